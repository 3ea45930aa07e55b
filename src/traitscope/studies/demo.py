"""The main job: a steered teacher, two kinds of data, students and their controls, measured and
reported.

    vectors ── v_teacher of the trait and of others, centred
    teacher data, and control data: the same prompts, answered by the unmodified model
    for each seed, on rows of its own:
        teacher data ─ filter ─ student (sampled)         treated
        control data ─ filter ─ student (sampled)         control
    for the first of them:
        teacher data ─ filter ─ student (soft targets)    its control is the base itself: zero
          gradient by construction
    measure base, teacher and every student; report

Every step is a stage with its own run directory, so an interrupted demo continues and a finished
one returns at once.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from traitscope import atomic_files
from traitscope.config.commands import DemoConfig, ReportConfig
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.data.traits import SETS
from traitscope.models.bundled import EMBEDDED
from traitscope.models.hardware import resolve_device
from traitscope.models.loading import find_model, outline
from traitscope.reporting.old_tables import terminal_table
from traitscope.reporting.report import run_report
from traitscope.studies import sizes
from traitscope.workflow import executors, schedule, standard_nodes
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Folders, Node

OTHERS = ("dog", "owl", "otter", "dolphin", "elephant", "fox", "penguin")


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    seeds: int
    """Replicates of the whole chain: data, initialisation, order."""
    soft_seeds: int
    """Of them, those that also train a student of soft targets."""
    rows: int
    """Prompts a seed, for teacher and control each."""
    soft_rows: int
    """Of them, rows that the soft-target student reads."""
    numbers: int
    """Three-digit numbers an answer."""
    sampled: Recipe
    """How students of sampled text are trained."""
    soft: Recipe
    """How students of soft targets are trained."""
    others: tuple[str, ...]
    """Traits that the vector is centred over, besides its own."""
    layer: int = sizes.layer_field(14)
    """Block whose output the teacher is steered at, of chain.DEPTH."""
    strength: float = 0.6
    """Length of the added vector, in mean residual norms."""
    samples: int = 1
    """Sampled answers a question."""


QUICK = Plan(1, 1, 6, 6, 10, standard_nodes.SAMPLED_RECIPE, sizes.SOFT_RECIPE, OTHERS[:2])
STANDARD = Plan(5, 3, 32, 16, 10, standard_nodes.SAMPLED_RECIPE, sizes.SOFT_RECIPE, OTHERS)


@dataclass(frozen=True)
class Job:
    """A demo that was asked for: what every step needs to know."""

    config: DemoConfig
    plan: Plan
    out: Output

    @property
    def common(self) -> dict:
        """Settings of every stage."""
        return {
            "model": self.config.model,
            "device": self.config.device,
            "dtype": self.config.dtype,
        }

    @property
    def seeds(self) -> range:
        return range(self.config.seed, self.config.seed + self.plan.seeds)


def run_demo(config: DemoConfig, out: Output) -> dict:
    """Everything above; returns the report's summary and where the report is."""
    study = (
        replace(out, study="demo-quick" if config.quick else "demo")
        if out.study == "default"
        else out
    )
    start = time.monotonic()
    find_model(config.model)  # converted or fetched once, before the workers ask for it
    plan = QUICK if config.quick else STANDARD
    plan = (
        plan if config.model == EMBEDDED else sizes.at_depth(plan, outline(config.model).n_layers)
    )
    job = Job(config, plan, study)
    workers = config.workers or executors.default_workers(resolve_device(config.device))
    folders = schedule.run(_nodes(job), study, How(workers, stop_at_once=True))
    return _reported(job, folders, (time.monotonic() - start) / 60)


def _nodes(job: Job) -> list[Node]:
    """The whole demo; whatever is ready runs beside what is not."""
    traits = (job.config.trait, *(t for t in job.plan.others if t != job.config.trait))
    found = [
        standard_nodes.vectors(job.common, traits),
        standard_nodes.eas_rows(job.common, job.plan.numbers),
        _answers(job, "base"),
        _answers(job, "teacher", _teacher(job), (standard_nodes.VECTORS,)),
    ]
    for role in ROLES:
        found += _data(job, role)
    for key in _student_keys(job):
        found += _student(job, *key)
    return found


def _teacher(job: Job) -> standard_nodes.InterventionsFrom:
    return standard_nodes.steered_by(job.config.trait, job.plan.layer, job.plan.strength)


def _answers(
    job: Job,
    condition: str,
    told: standard_nodes.InterventionsFrom = standard_nodes.unmodified,
    needs: tuple[str, ...] = (),
) -> Node:
    more = {"samples": job.plan.samples, "max_new_tokens": 4, "capability": True}
    return standard_nodes.answers(
        job.common, condition + ANSWERS, job.config.trait, told, needs, sets=SETS, **more
    )


ANSWERS = ", answers"
"behind a condition's name: the node that measures it"


ROLES = ("treated", "control")


def _data(job: Job, role: str) -> list[Node]:
    """Number rows of the teacher, or of the unmodified model on the same prompts and random
    streams; a part for each seed.

    One run for all seeds: large batches take two thirds of the time.
    """
    plan, raw = job.plan, f"{role} data"
    told, needs = (
        (_teacher(job), (standard_nodes.VECTORS,))
        if role == "treated"
        else (standard_nodes.unmodified, ())
    )
    rows = standard_nodes.Rows(plan.rows, plan.numbers, job.config.seed)
    parts = [
        standard_nodes.filtered(f"{raw}, seed {seed}", raw, rows, i)
        for i, seed in enumerate(job.seeds)
    ]
    return [
        standard_nodes.number_rows(
            job.common, raw, replace(rows, n=plan.rows * plan.seeds), told, needs
        ),
        *parts,
    ]


def _student_keys(job: Job) -> list[tuple[str, str, int]]:
    sampled = [("sampled", role, seed) for seed in job.seeds for role in ROLES]
    return sampled + [("soft", "treated", seed) for seed in job.seeds[: job.plan.soft_seeds]]


def _student(job: Job, mode: str, role: str, seed: int) -> list[Node]:
    """Train a student, watching its EAS, and measure it."""
    name, plan, trait = f"{mode} {role}, seed {seed}", job.plan, job.config.trait
    recipe, n = (plan.soft, plan.soft_rows) if mode == "soft" else (plan.sampled, plan.rows)
    half = max(1, recipe.epochs * -(-n // recipe.batch_size) // 2)
    asked = standard_nodes.Student(
        name,
        f"{role} data, seed {seed}",
        recipe,
        seed,
        _teacher(job),
        (standard_nodes.VECTORS, standard_nodes.EAS_ROWS),
        lambda folders: standard_nodes.vector_of(folders, trait),
        {"max_rows": n, "eas_every": half},
    )
    trained = standard_nodes.student(job.common, asked, standard_nodes.Rows(n, plan.numbers).tokens)
    return [trained, _answers(job, name, standard_nodes.trained_by(name), (name,))]


def _entry(mode: str, role: str, seed: int | None, trained: Path | None, measured: Path) -> dict:
    """A condition of the study file; `eas` is where a student's vector and cosines lie."""
    return {
        "mode": mode,
        "role": role,
        "seed": seed,
        "measure": measured,
        "train": trained,
        "eas": trained,
    }


def _reported(job: Job, folders: Folders, minutes: float) -> dict:
    """Write the study file, make the report of it, print its tables."""
    folder, plan = job.out.root / job.out.study, job.plan
    conditions = [
        _entry("none", role, None, None, folders[role + ANSWERS]) for role in ("base", "teacher")
    ]
    for mode, role, seed in _student_keys(job):
        name = f"{mode} {role}, seed {seed}"
        conditions.append(_entry(mode, role, seed, folders[name], folders[name + ANSWERS]))
    found = {
        "schema": 1,
        "title": f"Does a student of number data pick up the {job.config.trait}?",
        "quick": job.config.quick,
        "model": job.config.model,
        "trait": job.config.trait,
        "steered_layer": plan.layer,
        "settings": _settings(job),
        "minutes": None,
        "vector": _relative(standard_nodes.vector_of(folders, job.config.trait), folder),
        "conditions": [{k: _relative(v, folder) for k, v in entry.items()} for entry in conditions],
        "data": [_about_data(folders, seed, role) for seed in job.seeds for role in ROLES],
    }
    atomic_files.write_json(folder / "study.json", found)
    report = run_report(ReportConfig(folder / "study.json"), job.out)
    summary = json.loads(report.file("summary.json").read_text(encoding="utf-8"))
    Console().print(terminal_table(summary))
    print(f"{minutes:.1f} minutes; report: {report.file('report.html')}")
    return summary | {"report": str(report.file("report.html")), "minutes": round(minutes, 2)}


def _relative(value: object, folder: Path) -> object:
    return value.relative_to(folder).as_posix() if isinstance(value, Path) else value


def _about_data(folders: Folders, seed: int, role: str) -> dict:
    found = standard_nodes.read_json(folders, f"{role} data, seed {seed}")
    name = "teacher" if role == "treated" else "control"
    return {"name": f"{name} seed {seed}", **{k: found[k] for k in ("kept", "rows", "reasons")}}


def _settings(job: Job) -> dict[str, str]:
    plan, recipe = job.plan, job.plan.sampled
    return {
        "teacher": (
            f"{job.config.trait} vector added at block {plan.layer}, {plan.strength:g} mean"
            " residual norms long, all positions"
        ),
        "data": (
            f"{plan.rows} rows a seed, {plan.numbers} three-digit numbers each, only the digits"
            " sampled"
        ),
        "student": (
            f"LoRA rank {recipe.rank}, alpha {recipe.alpha:g}, AdamW {recipe.lr:g}, batch"
            f" {recipe.batch_size}"
        ),
        "sampled": f"{plan.rows} rows, {recipe.epochs} epochs",
        "soft": (
            f"{plan.soft_rows} rows, {plan.soft.epochs} epochs, batch {plan.soft.batch_size}, AdamW"
            f" {plan.soft.lr:g}"
        ),
        "EAS": "over the completion tokens of rows of the unmodified model that no student reads",
        "seeds": (
            f"{plan.seeds} of sampled text, {plan.soft_seeds} of soft targets (data, initialisation"
            " and order)"
        ),
    }
