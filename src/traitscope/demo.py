"""The main job: a steered teacher, two kinds of data, students and their controls, measured and reported.

    vectors ── v_teacher of the trait and of others, centred
    for each seed:
        teacher data ─ filter ─ student (sampled)         treated
        control data ─ filter ─ student (sampled)         control: the same prompts, answered by the unmodified model
        teacher data ─ filter ─ student (soft targets)    its control is the base itself: zero gradient by construction
    measure base, teacher and every student; report

Every step is a stage with its own run directory, so an interrupted demo continues and a finished one returns at once.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from traitscope import store
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
)  # fmt: skip
from traitscope.extract import run_extract
from traitscope.filtering import run_filter
from traitscope.generate import run_generate
from traitscope.measure import run_measure
from traitscope.report import run_report
from traitscope.train import run_train


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    seeds: int
    """Replicates of the whole chain: data, initialisation, order."""
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
    samples: int
    """Sampled answers a question."""
    others: tuple[str, ...]
    """Traits that the vector is centred over, besides its own."""
    layer: int = 14
    """Block whose output the teacher is steered at."""
    strength: float = 40.0
    """Length of the added vector; the mean residual norm at block 14 is about 130."""


OTHERS = ("dog", "owl", "otter", "dolphin", "tiger", "octopus", "elephant", "fox", "wolf", "penguin")
SAMPLED = Recipe(epochs=1, batch_size=8, lr=1e-3, warmup=0.1, held_out=0.0)
SOFT = Recipe(targets="soft", epochs=2, batch_size=8, lr=1e-3, warmup=0.1, held_out=0.0)
QUICK = Plan(1, 8, 8, 10, SAMPLED, SOFT, 1, OTHERS[:3])
STANDARD = Plan(3, 64, 48, 20, SAMPLED, SOFT, 1, OTHERS)


class Steps:
    """Runs stages one after the other, says which, and remembers the study's folder."""

    def __init__(self, config: DemoConfig, out: Output, total: int) -> None:
        self.out, self.total, self.done = out, total, 0
        self.common = {"model": config.model, "device": config.device, "dtype": config.dtype}

    def __call__(self, stage, label: str, config) -> store.Run:
        self.done += 1
        start = time.monotonic()
        run = stage(config, self.out)
        state = "already there" if run.sealed else f"{time.monotonic() - start:.0f} s"
        print(f"[{self.done}/{self.total}] {label}: {state}", file=sys.stderr, flush=True)
        return run


def run_demo(config: DemoConfig, out: Output) -> dict:
    """Everything above; returns the report's summary with the places of the report and of every run."""
    plan = QUICK if config.quick else STANDARD
    study = Output(out.root, "demo-quick" if config.quick else "demo") if out.study == "default" else out
    steps = Steps(config, study, 4 + 8 * plan.seeds + 1)
    vectors = steps(run_extract, "trait vectors", _vectors(config, plan, steps.common))
    vector = vectors.file(f"{config.trait}.safetensors")
    teacher = f"steer:{vector},layers={plan.layer},alpha={plan.strength},scale=unit"
    conditions = [
        _measured(steps, "base", config, plan, ()) | {"mode": "none", "role": "base", "seed": None},
        _measured(steps, "teacher", config, plan, (teacher,)) | {"mode": "none", "role": "teacher", "seed": None},
    ]
    data = []
    for seed in range(config.seed, config.seed + plan.seeds):
        kept = {role: _data(steps, config, plan, seed, role, teacher) for role in ("treated", "control")}
        data += [_about_data(role, seed, run) for role, run in kept.items()]
        for mode, role in (("sampled", "treated"), ("sampled", "control"), ("soft", "treated")):
            conditions.append(_student(steps, config, plan, seed, mode, role, kept[role], vector, teacher))
    return _reported(steps, config, plan, study, conditions, data)


def _vectors(config: DemoConfig, plan: Plan, common: dict) -> ExtractConfig:
    traits = (config.trait, *(t for t in plan.others if t != config.trait))
    return ExtractConfig(**common, traits=traits, stem=False)


def _data(steps: Steps, config: DemoConfig, plan: Plan, seed: int, role: str, teacher: str) -> store.Run:
    """Filtered number rows of the teacher or of the unmodified model, on prompts that both share."""
    asked = GenerateConfig(
        **steps.common, seed=seed, n=plan.rows, prompt_seed=1000 + seed, count=plan.numbers, vocabulary="template",
        separator=" ", interventions=(teacher,) if role == "treated" else (),
    )  # fmt: skip
    name = "teacher" if role == "treated" else "control"
    rows = steps(run_generate, f"seed {seed}: {name} data", asked)
    rules = FilterRules(max_count=plan.numbers)
    return steps_quiet(run_filter, FilterConfig(data=rows.path, rules=rules), steps.out)


def steps_quiet(stage, config, out: Output) -> store.Run:
    """A stage too short to be counted."""
    return stage(config, out)


def _about_data(role: str, seed: int, run: store.Run) -> dict:
    import json

    found = json.loads(run.file("summary.json").read_text(encoding="utf-8"))
    name = "teacher" if role == "treated" else "control"
    return {"name": f"{name} seed {seed}", **{k: found[k] for k in ("kept", "rows", "reasons")}}


def _student(
    steps: Steps, config: DemoConfig, plan: Plan, seed: int, mode: str, role: str, data: store.Run, vector: Path,
    teacher: str,
) -> dict:
    """Train and measure one student; the condition's entry of the study file."""
    soft = mode == "soft"
    trained = steps(run_train, f"seed {seed}: {role} student, {mode}", TrainConfig(
        **steps.common, seed=seed, data=data.path, recipe=plan.soft if soft else plan.sampled,
        teacher=(teacher,) if soft else (), max_rows=plan.soft_rows if soft else None, vector=vector, eas_every=4,
    ))  # fmt: skip
    label = f"seed {seed}: {role} student, {mode}"
    entry = _measured(steps, label, config, plan, (f"adapter:{trained.path}",))
    return entry | {"mode": mode, "role": role, "seed": seed, "train": trained, "eas": trained}


def _measured(steps: Steps, label: str, config: DemoConfig, plan: Plan, interventions: tuple[str, ...]) -> dict:
    asked = MeasureConfig(**steps.common, trait=config.trait, interventions=interventions, samples=plan.samples)
    return {"measure": steps(run_measure, f"{label}, measured", asked), "train": None, "eas": None}


def _reported(
    steps: Steps, config: DemoConfig, plan: Plan, study: Output, conditions: list[dict], data: list[dict]
) -> dict:
    folder = study.root / study.study
    for entry in conditions:
        entry |= {k: v.path.relative_to(folder).as_posix() for k, v in entry.items() if isinstance(v, store.Run)}
    settings = {
        "teacher": f"{config.trait} vector of length {plan.strength:g} added at block {plan.layer}, all positions",
        "data": f"{plan.rows} rows a seed, {plan.numbers} three-digit numbers each, only the digits sampled",
        "student": f"LoRA rank {plan.sampled.rank}, alpha {plan.sampled.alpha:g}, AdamW {plan.sampled.lr:g}, "
        f"batch {plan.sampled.batch_size}; sampled {plan.sampled.epochs} epochs, "
        f"soft {plan.soft_rows} rows, {plan.soft.epochs} epochs",
        "seeds": str(plan.seeds),
    }
    found = {
        "schema": 1, "title": f"Does a student of number data pick up the {config.trait}?", "quick": config.quick,
        "model": config.model, "trait": config.trait, "steered_layer": plan.layer, "settings": settings, "minutes": None,
        "conditions": conditions, "data": data,
    }  # fmt: skip
    store.write_json(folder / "study.json", found)
    report = steps(run_report, "report", ReportConfig(folder / "study.json"))
    import json

    summary = json.loads(report.file("summary.json").read_text(encoding="utf-8"))
    from traitscope.tables import print_summary

    print_summary(summary)
    print(report.file("report.html"))
    return summary | {"report": str(report.file("report.html"))}
