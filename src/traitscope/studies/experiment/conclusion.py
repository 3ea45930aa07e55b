"""What an experiment concludes from its sealed stages: a claim for every contrast, and one page.

All claims are about one score. They are tested together; one of them is primary.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from traitscope.comparison.compare import compare_read
from traitscope.comparison.read_runs import ReadModel, read_model
from traitscope.comparison.results import Comparison, QuestionScore
from traitscope.comparison.terms import limits
from traitscope.comparison.wording import Wording, sentences
from traitscope.data.traits import trait_name
from traitscope.errors import ConfigError
from traitscope.reporting.verdict import HAS_TRAIT, Claim, Findings, Precondition, verdicts_of
from traitscope.stats.estimates import Method
from traitscope.stats.measurement import Measurement
from traitscope.studies.behaviours import outcomes_of, rate_difference
from traitscope.studies.experiment import arms as arms_of
from traitscope.studies.experiment import nodes as stages
from traitscope.studies.experiment import page
from traitscope.studies.experiment.arms import BASE, Contrast
from traitscope.studies.experiment.file import OTHER_TRAIT, RANDOM, Experiment
from traitscope.studies.experiment.needs import lacks, needs_of, teacher_rises
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders

NATS, RATE = 0.05, 0.02
"usual margins: differences of a log-probability and of a rate below which nothing matters"
CLAIMS = {
    "target_logprob": "are likelier to name {trait} where an answer begins than",
    "candidate_share": "prefer {trait} among its candidates more than",
    "whole_word": "name {trait} in sampled answers more often than",
    "first_word": "begin sampled answers with {trait} more often than",
    "judged": "show the judged behaviour more often than",
}
"what is claimed of the treated students, by score"


@dataclass(frozen=True)
class Compared:
    """One contrast, measured."""

    contrast: Contrast
    """What is compared."""
    comparison: Comparison
    """Every score and EAS, treated minus control."""
    decides: Measurement
    """The number that decides its claim."""
    needs: tuple[Precondition, ...]
    """What its claim needs."""


@dataclass(frozen=True)
class Measured:
    """Every model of an experiment as it was measured."""

    base: Mapping[str, ReadModel]
    """The model before training, by trait."""
    teachers: Mapping[str, ReadModel]
    """Every teacher that is here, by arm, on its own trait."""
    students: Mapping[tuple[str, str], tuple[ReadModel, ...]]
    """Students by arm and trait, in the order of seeds."""


def primary_contrast(experiment: Experiment) -> Contrast:
    """Return the contrast of the primary claim.

    Raises ConfigError for an arm that the experiment does not have.
    """
    asked, listed = experiment.primary, arms_of.contrasts(experiment)
    of_treated = [each for each in listed if asked.treated in ("", each.treated)]
    if not of_treated:
        raise ConfigError(
            f"primary: treated is {asked.treated!r}; expected one of"
            f" {', '.join(experiment.teachers)}; name one"
        )
    treated = of_treated[0].treated
    words = {each.control: each.control for each in listed if each.treated == treated}
    for control in experiment.students_of(treated).controls or ():
        for each in list(words):
            if _is_called(control, each):
                words[_label(control)] = each
    if asked.control and asked.control not in words:
        raise ConfigError(
            f"primary: control is {asked.control!r}; expected one of {', '.join(words)}; name one"
        )
    control = words[asked.control] if asked.control else of_treated[0].control
    return next(each for each in of_treated if (each.treated, each.control) == (treated, control))


def _label(control: str | dict[str, str]) -> str:
    """Return how the file names a control: its word, or its value."""
    return control if isinstance(control, str) else next(iter(control.values()))


def _is_called(control: str | dict[str, str], arm: str) -> bool:
    """Tell whether a control of the file is the arm of this name."""
    if isinstance(control, dict):
        value = _label(control)
        name = trait_name(value) if OTHER_TRAIT in control else ""
        return bool(name) and arm.startswith(f"{name} like ")
    named = "random" if control == RANDOM else control
    return arm == control or arm.startswith(f"{named} like ")


def measured(experiment: Experiment, folders: Folders) -> Measured:
    """Return what the sealed stages hold of every model."""
    base = {}
    for trait in experiment.traits:
        base[trait_name(trait)] = read_model(folders[stages.answers_name(BASE, trait)])
    teachers = {}
    for arm in stages.teachers(experiment):
        name = stages.answers_name(stages.teacher_name(arm.name), arm.trait)
        teachers[arm.name] = read_model(folders[name])
    students = {}
    for arm in arms_of.all_arms(experiment):
        for trait in arms_of.traits_of(experiment, arm):
            group = []
            for seed in arm.seeds:
                student = stages.student_name(arm.name, seed)
                answers = folders[stages.answers_name(student, trait)]
                group.append(read_model(answers, folders[student]))
            students[arm.name, trait_name(trait)] = tuple(group)
    return Measured(base, teachers, students)


def compared(experiment: Experiment, folders: Folders, read: Measured) -> list[Compared]:
    """Return every contrast with its numbers and preconditions."""
    several = len(experiment.traits) > 1
    listed = []
    for contrast in arms_of.contrasts(experiment):
        trait = trait_name(contrast.trait)
        treated = read.students[contrast.treated, trait]
        control = [read.base[trait]]
        if contrast.control != BASE:
            control = list(read.students[contrast.control, trait])
        comparison = compare_read(
            treated,
            control,
            vector=standard_nodes.vector_of(folders, trait),
            layer=arms_of.layer_of(experiment, experiment.teachers[contrast.treated]),
            name=f"{contrast.name}, {trait}" if several else contrast.name,
        )
        comparison = replace(comparison, label=contrast.control)
        decides = _decides(experiment, folders, contrast, comparison)
        needs = tuple(needs_of(experiment, folders, contrast))
        listed.append(Compared(contrast, comparison, decides, needs))
    return listed


def _decides(
    experiment: Experiment, folders: Folders, contrast: Contrast, comparison: Comparison
) -> Measurement:
    """Return the number that decides the claim of a contrast."""
    judge = experiment.measures.judge
    if experiment.primary.score != "judged":
        return comparison[QuestionScore("positive", experiment.primary.score)]
    if judge is None:
        return comparison[comparison.primary]
    sides, seeds = [], arms_of.arm_of(experiment, contrast.treated).seeds
    for arm in (contrast.treated, contrast.control):
        by_seed = []
        for seed in seeds:
            name = BASE if arm == BASE else stages.student_name(arm, seed)
            by_seed.append(outcomes_of(folders, name, judge.judges[0]))
        sides.append(np.stack(by_seed))
    method: Method = "crossed" if contrast.control == BASE else "auto"
    name = f"{contrast.name}.difference.{judge.judges[0]}"
    return rate_difference(name, sides[0], sides[1], seeds, method)


def margin_of(experiment: Experiment) -> float:
    """Return the smallest difference that would matter."""
    if experiment.primary.margin is not None:
        return experiment.primary.margin
    return NATS if experiment.primary.score == "target_logprob" else RATE


def claim_text(experiment: Experiment, contrast: Contrast) -> str:
    """Return the claim of a contrast in words."""
    middle = CLAIMS[experiment.primary.score].format(trait=trait_name(contrast.trait))
    if judge := experiment.judge_about(contrast.trait):
        middle = f"show {trait_name(contrast.trait)} (judge {judge}) more often than"
    return f"Students of {contrast.treated} {middle} {reference(contrast)}."


def reference(contrast: Contrast) -> str:
    """Return what the treated students are compared with, in words."""
    if contrast.control == BASE:
        return "the model before training"
    return f"students of {contrast.control}"


def conclude(experiment: Experiment, folders: Folders, model: str) -> Findings:
    """Return verdicts, tables and figures from the folders of all stages; it computes none."""
    read = measured(experiment, folders)
    listed = compared(experiment, folders, read)
    primary = primary_contrast(experiment)
    claims, numbers, tables = [], [], []
    for item in listed:
        claims.append(_claim(experiment, item, item.contrast == primary))
        numbers += [each.difference for each in item.comparison.differences]
        name = f"differences-{slug(item.contrast.name)}"
        tables += page.differences(name, item.contrast, item.comparison)
    tables += page.score_tables(experiment, read.base, read.teachers, read.students)
    tables += page.tables(experiment, folders)
    return Findings(
        verdicts_of(claims, model),
        tuple(numbers),
        tuple(tables),
        (*lacks(experiment), *limits(experiment.judge_about(experiment.traits[0]))),
        page.figures(experiment, folders, {each.contrast: each.comparison for each in listed}),
        teacher_rises(experiment, folders, [item.contrast for item in listed]),
    )


def slug(text: str) -> str:
    """Return a text as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _claim(experiment: Experiment, item: Compared, is_primary: bool) -> Claim:
    contrast = item.contrast
    teacher = next((need for need in item.needs if need.name == HAS_TRAIT), None)
    words = Wording(
        trait_name(contrast.trait),
        f"after training on the rows of {contrast.treated}",
        reference(contrast),
        teacher=teacher,
        unmet=not all(need.met for need in item.needs),
    )
    return Claim(
        claim_text(experiment, contrast),
        item.decides,
        margin_of(experiment),
        needs=item.needs,
        primary=is_primary,
        units=len(arms_of.arm_of(experiment, contrast.treated).seeds),
        counted="seeds",
        explanation=sentences(item.comparison, words),
    )
