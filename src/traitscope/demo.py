"""The main job: a steered teacher, two kinds of data, students and their controls, measured and reported.

    vectors ── v_teacher of the trait and of others, centred
    for each seed:
        teacher data ─ filter ─ student (sampled)         treated
        control data ─ filter ─ student (sampled)         control: the same prompts, answered by the unmodified model
    for the first of them:
        teacher data ─ filter ─ student (soft targets)    its control is the base itself: zero gradient by construction
    measure base, teacher and every student; report

Every step is a stage with its own run directory, so an interrupted demo continues and a finished one returns at once.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from traitscope import execute, graph, store
from traitscope.configs import (
    DemoConfig,
    ExtractConfig,
    FilterConfig,
    FilterRules,
    GenerateConfig,
    MeasureConfig,
    Output,
    Recipe,
    ReportConfig,
    TrainConfig,
)
from traitscope.graph import Folders, Node
from traitscope.model import find_model, resolve_device
from traitscope.report import run_report
from traitscope.tables import terminal_table

OTHERS = ("dog", "owl", "otter", "dolphin", "elephant", "fox", "penguin")
TOKENS = 60
"tokens of a number prompt behind the shared system turn, for the estimate of the work"


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
    layer: int = 14
    """Block whose output the teacher is steered at."""
    strength: float = 80.0
    """Length of the added vector; the mean residual norm at block 14 is about 130."""
    samples: int = 1
    """Sampled answers a question."""

    @property
    def row_tokens(self) -> int:
        return TOKENS + 4 * self.numbers


SAMPLED = Recipe(epochs=1, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.0)
SOFT = replace(SAMPLED, targets="soft", epochs=2)
QUICK = Plan(1, 1, 9, 9, 10, SAMPLED, SOFT, OTHERS[:2])
STANDARD = Plan(4, 3, 21, 12, 30, SAMPLED, SOFT, OTHERS)


@dataclass(frozen=True)
class Job:
    """A demo that was asked for: what every step needs to know."""

    config: DemoConfig
    plan: Plan
    out: Output

    @property
    def common(self) -> dict:
        """Settings of every stage."""
        return {"model": self.config.model, "device": self.config.device, "dtype": self.config.dtype}

    @property
    def seeds(self) -> range:
        return range(self.config.seed, self.config.seed + self.plan.seeds)


def run_demo(config: DemoConfig, out: Output) -> dict:
    """Everything above; returns the report's summary and where the report is."""
    study = replace(out, study="demo-quick" if config.quick else "demo") if out.study == "default" else out
    job = Job(config, QUICK if config.quick else STANDARD, study)
    start = time.monotonic()
    find_model(config.model)  # converted or fetched once, before the workers ask for it
    workers = config.workers or execute.default_workers(resolve_device(config.device))
    folders = graph.run(_nodes(job), study, workers)
    return _reported(job, folders, (time.monotonic() - start) / 60)


VECTORS = "trait vectors"
ANSWERS = ", answers"
"behind a condition's name: the node that measures it"


def _nodes(job: Job) -> list[Node]:
    """The whole demo; whatever is ready runs beside what is not."""
    traits = (job.config.trait, *(t for t in job.plan.others if t != job.config.trait))
    found = [Node(VECTORS, "extract", lambda _: ExtractConfig(**job.common, traits=traits, stem=False), (), 1000 * len(traits))]
    found.append(_measuring(job, "base", (), lambda _: ()))
    found.append(_measuring(job, "teacher", (VECTORS,), lambda folders: (_teacher(job, folders),)))
    for key in _data_keys(job):
        found += _data(job, *key)
    for key in _student_keys(job):
        found += _student(job, *key)
    return found


def _teacher(job: Job, folders: Folders) -> str:
    vector = f"{folders[VECTORS] / job.config.trait}.safetensors"
    return f"steer:{vector},layers={job.plan.layer},alpha={job.plan.strength},scale=unit"


def _measuring(job: Job, name: str, needs: tuple[str, ...], interventions: Callable[[Folders], tuple[str, ...]]) -> Node:
    """The condition's answers to the trait's questions."""

    def config(folders: Folders) -> MeasureConfig:
        under, samples = interventions(folders), job.plan.samples
        return MeasureConfig(**job.common, trait=job.config.trait, interventions=under, samples=samples, max_new_tokens=4)

    return Node(name + ANSWERS, "measure", config, needs, 2500)


def _data_keys(job: Job) -> list[tuple[int, str]]:
    return [(seed, role) for seed in job.seeds for role in ("treated", "control")]


def _data(job: Job, seed: int, role: str) -> list[Node]:
    """Filtered number rows of the teacher, or of the unmodified model on the same prompts and random streams."""
    name, treated = f"{role} data, seed {seed}", role == "treated"

    def asked(folders: Folders) -> GenerateConfig:
        return GenerateConfig(
            **job.common,
            seed=seed,
            n=job.plan.rows,
            prompt_seed=1000 + seed,
            count=job.plan.numbers,
            vocabulary="template",
            separator=" ",
            interventions=(_teacher(job, folders),) if treated else (),
        )

    rules = FilterRules(max_count=job.plan.numbers)
    weight = job.plan.rows * job.plan.row_tokens
    return [
        Node(f"raw {name}", "generate", asked, (VECTORS,) if treated else (), weight),
        Node(name, "filter", lambda folders: FilterConfig(data=folders[f"raw {name}"], rules=rules), (f"raw {name}",)),
    ]


def _student_keys(job: Job) -> list[tuple[str, str, int]]:
    sampled = [("sampled", role, seed) for seed in job.seeds for role in ("treated", "control")]
    return sampled + [("soft", "treated", seed) for seed in job.seeds[: job.plan.soft_seeds]]


def _student(job: Job, mode: str, role: str, seed: int) -> list[Node]:
    """Train a student, watching its EAS, and measure it."""
    name, data, soft = f"{mode} {role}, seed {seed}", f"{role} data, seed {seed}", mode == "soft"
    recipe = job.plan.soft if soft else job.plan.sampled
    rows = job.plan.soft_rows if soft else job.plan.rows

    def asked(folders: Folders) -> TrainConfig:
        return TrainConfig(
            **job.common,
            seed=seed,
            data=folders[data],
            recipe=recipe,
            teacher=(_teacher(job, folders),) if soft else (),
            max_rows=rows,
            vector=folders[VECTORS] / f"{job.config.trait}.safetensors",
            eas_every=4,
            eas_prompts=10,
        )

    weight = (3.5 if soft else 2.5) * recipe.epochs * rows * job.plan.row_tokens
    trained = Node(name, "train", asked, (VECTORS, data), weight)
    return [trained, _measuring(job, name, (name,), lambda folders: (f"adapter:{folders[name]}",))]


def _entry(mode: str, role: str, seed: int | None, trained: Path | None, measured: Path) -> dict:
    """A condition of the study file; `eas` is where a student's vector and cosines lie."""
    return {"mode": mode, "role": role, "seed": seed, "measure": measured, "train": trained, "eas": trained}


def _reported(job: Job, folders: Folders, minutes: float) -> dict:
    """Write the study file, make the report of it, print its tables."""
    folder, plan = job.out.root / job.out.study, job.plan
    conditions = [_entry("none", role, None, None, folders[role + ANSWERS]) for role in ("base", "teacher")]
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
        "vector": _relative(folders[VECTORS] / f"{job.config.trait}.safetensors", folder),
        "conditions": [{k: _relative(v, folder) for k, v in entry.items()} for entry in conditions],
        "data": [_about_data(key, folders[f"{key[1]} data, seed {key[0]}"]) for key in _data_keys(job)],
    }
    store.write_json(folder / "study.json", found)
    report = run_report(ReportConfig(folder / "study.json"), job.out)
    summary = json.loads(report.file("summary.json").read_text(encoding="utf-8"))
    Console().print(terminal_table(summary))
    print(f"{minutes:.1f} minutes; report: {report.file('report.html')}")
    return summary | {"report": str(report.file("report.html")), "minutes": round(minutes, 2)}


def _relative(value: object, folder: Path) -> object:
    return value.relative_to(folder).as_posix() if isinstance(value, Path) else value


def _about_data(key: tuple[int, str], path: Path) -> dict:
    found = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    name = "teacher" if key[1] == "treated" else "control"
    return {"name": f"{name} seed {key[0]}", **{k: found[k] for k in ("kept", "rows", "reasons")}}


def _settings(job: Job) -> dict[str, str]:
    plan, recipe = job.plan, job.plan.sampled
    return {
        "teacher": f"{job.config.trait} vector of length {plan.strength:g} added at block {plan.layer}, all positions",
        "data": f"{plan.rows} rows a seed, {plan.numbers} three-digit numbers each, only the digits sampled",
        "student": f"LoRA rank {recipe.rank}, alpha {recipe.alpha:g}, AdamW {recipe.lr:g}, batch {recipe.batch_size}",
        "sampled": f"{plan.rows} rows, {recipe.epochs} epochs",
        "soft": f"{plan.soft_rows} rows, {plan.soft.epochs} epochs",
        "seeds": f"{plan.seeds} of sampled text, {plan.soft_seeds} of soft targets (data, initialisation and order)",
    }
