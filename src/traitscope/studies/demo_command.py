"""The command `demo`: the study of the same name, with its table on the terminal."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from traitscope.comparison.differences import mean_score, mean_values, scores_of
from traitscope.comparison.matching import MeasuredModel, seeds_of
from traitscope.comparison.read_runs import SCORE_UNITS
from traitscope.comparison.results import PERPLEXITY, Eas
from traitscope.comparison.wording import (
    NO_TRAIT,
    QUICK,
    direction,
    sentences,
    terminal_table,
)
from traitscope.config.commands import DemoConfig, StudyConfig
from traitscope.config.common import Output
from traitscope.config.fields import changed_flags
from traitscope.data.own_traits import needs
from traitscope.data.traits import trait_name
from traitscope.models.identity.finding import find_model
from traitscope.models.identity.words import model_words
from traitscope.reporting.study_page import PAGE
from traitscope.reporting.verdict import ClaimVerdict, Precondition
from traitscope.runs import store
from traitscope.stats.measurement import Measurement
from traitscope.studies import runner, sizes
from traitscope.studies.claims import demo
from traitscope.studies.claims.demo import Measured, Size
from traitscope.studies.conclusions import conclude, findings_of
from traitscope.studies.experiment import early
from traitscope.studies.pages import demo_page
from traitscope.studies.runner import Request
from traitscope.workflow import schedule

QUICK_LINE = "Quick run: these numbers are not evidence."


def run_demo(config: DemoConfig, out: Output) -> dict:
    """Run the study, print its table and where the page is; return the numbers as a summary."""
    start = time.monotonic()
    find_model(config.model)  # converted or fetched once, before the workers ask for it
    request = request_of(config, out)
    for sentence in needs.same_prompts(sizes.traits_of(request.size)):
        print(f"traitscope: {sentence}", file=sys.stderr)
    how = replace(runner.how(request.config), stop_at_once=True)
    nodes = request.nodes()
    tell = early.teller(demo.experiment_of(request.size), nodes, request.out)
    folders = schedule.run(nodes + request.information(), request.out, how, sealed=tell)
    minutes = (time.monotonic() - start) / 60
    run = conclude(request, folders)
    page = run.file(PAGE)
    size = sizes.named(request.size)
    chain = demo.measured(size, folders)
    teacher = chain.teacher_has_trait
    verdicts = findings_of(request, folders).verdicts
    summary = summary_of(size, chain, config, verdicts)
    _print(size, chain, summary)
    print(f"{minutes:.1f} minutes; report: {page}")
    places = {
        "run": str(run.path),
        "report": str(page),
        "next": _next(config, out, run, size, teacher),
    }
    return summary | {**places, "minutes": round(minutes, 2)}


def _next(
    config: DemoConfig, out: Output, run: store.Run, size: Size, teacher: Precondition
) -> str:
    """What one would type next.

    Where the teacher lacks the trait it is the scan for one that has it. Else it is, after the
    quick demo, the one whose numbers are evidence.
    """
    places = changed_flags(replace(out, json=None))
    if not teacher.met:
        company = [trait for trait in size.others if trait != trait_name(config.trait)]
        words = ["--trait", config.trait, "--company", *company, *model_words(vars(config))]
        return shlex.join(["traitscope", "steer-scan", *words, *places])
    if config.quick:
        settings = changed_flags(replace(config, quick=False))
        return shlex.join(["traitscope", "demo", *settings, *places])
    return f"traitscope show {run.path}"


def request_of(config: DemoConfig, out: Output) -> Request:
    """Return the request for the study that the demo's settings ask for."""
    size = demo.SIZES["smoke" if config.quick else "laptop"]
    seeds = list(range(config.seed, config.seed + len(size.seeds)))
    changes = []
    if config.trait != size.trait:
        changes.append(f"trait={config.trait}")
    if tuple(seeds) != size.seeds:
        changes.append(f"seeds={seeds}")
    if out.study == "default":
        out = replace(out, study="demo-quick" if config.quick else "demo")
    study = StudyConfig(
        model=config.model,
        device=config.device,
        dtype=config.dtype,
        template=config.template,
        control_tokens=config.control_tokens,
        same_as=config.same_as,
        action="run",
        name="demo",
        size="smoke" if config.quick else "laptop",
        set=tuple(changes),
        workers=config.workers,
    )
    return runner.request_of(study, out)


def summary_of(
    size: Size, chain: Measured, config: DemoConfig, verdicts: Sequence[ClaimVerdict]
) -> dict:
    """Return what `--json` writes: the verdicts of the page, readings by comparison, every number.

    verdicts: Those of the study, in the order of its comparisons. The primary one is the status.
    """
    contrasts, teacher = {}, chain.teacher_has_trait
    primary = next(verdict for verdict in verdicts if verdict.stated.primary)
    for verdict, (contrast, comparison) in zip(verdicts, chain.comparisons.items(), strict=True):
        words = demo_page.wording(size, contrast, teacher)
        contrasts[contrast] = {
            "status": _status(size, teacher, verdict),
            "verdict": demo_page.verdict_sentence(verdict),
            "direction": direction(comparison),
            "reference": comparison.reference,
            "seeds": seeds_of(comparison.treated),
            "text": [*sentences(comparison, words), demo_page.excluded(contrast)],
        }
    numbers = []
    for measurement in measurements(chain):
        numbers.append(measurement.as_dict())
    return {
        "schema": 1,
        "status": _status(size, teacher, primary),
        "title": f"Does a student of number data pick up the {size.trait}?",
        "quick": size.quick,
        "model": config.model,
        "trait": size.trait,
        "steered_layer": size.layer,
        "teacher_has_trait": teacher.met,
        "positive_control": teacher.found,
        "modes": contrasts,
        "measurements": numbers,
    }


def _status(size: Size, teacher: Precondition, verdict: ClaimVerdict) -> str:
    """Return the outcome of a claim. A quick run, and one without the trait, say why they have
    none."""
    if size.quick:
        return QUICK
    return verdict.outcome if teacher.met else NO_TRAIT


def measurements(chain: Measured) -> list[Measurement]:
    """Return every number of the demo: the means of every condition, then the differences."""
    numbers = _means("none.base", [chain.base.model])
    numbers += _means("none.teacher", [chain.teacher.model])
    for (mode, role), group in chain.students.items():
        models = [read.model for read in group]
        numbers += _means(f"{mode}.{role}", models)
    for comparison in chain.comparisons.values():
        for item in comparison.differences:
            is_eas = isinstance(item.quantity, Eas)
            if is_eas and item.treated is not None:
                numbers.append(item.treated)
            if is_eas and item.control is not None:
                numbers.append(item.control)
            numbers.append(item.difference)
    return numbers


def _means(name: str, models: list[MeasuredModel]) -> list[Measurement]:
    """Return the mean of every score and of the perplexity in one condition."""
    means = []
    for question_set, score in scores_of(models, SCORE_UNITS):
        full_name = f"{name}.{question_set}.{score}"
        means.append(mean_score(full_name, models, question_set, score, SCORE_UNITS[score]))
    values = [model.perplexity for model in models]
    if None not in values:
        means.append(mean_values(f"{name}.{PERPLEXITY}", models, values, PERPLEXITY))
    return means


def _print(size: Size, chain: Measured, summary: dict) -> None:
    """Print treated minus each control, what it says, and what the control excludes."""
    groups = {}
    lines = [QUICK_LINE] if size.quick else []
    for contrast, comparison in chain.comparisons.items():
        title = demo_page.heading(contrast)
        said = summary["modes"][contrast]
        texts = said["text"]
        groups[title] = comparison
        lines.append(f"{title}: {said['verdict']} {texts[0]} {texts[1]} {texts[-1]}")
    title = f"{summary['title']}: {summary['status']}\n{summary['positive_control']}"
    Console().print(terminal_table(title, "\n".join(lines), groups, size.trait))
