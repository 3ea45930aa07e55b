"""Tables and figures of the page of an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from traitscope.comparison.matching import MeasuredModel
from traitscope.comparison.page import (
    comparison_tables,
    layer_figures,
    primary_figure,
    scores_tables,
    terms_table,
)
from traitscope.comparison.read_runs import ReadModel, score_units
from traitscope.comparison.results import Comparison
from traitscope.config.recipe import Recipe
from traitscope.data.row_files import RECORDS
from traitscope.data.traits import load_trait, trait_name
from traitscope.interventions.vector import load_vector
from traitscope.plurals import counted
from traitscope.reporting.figures import Figure
from traitscope.reporting.tables import Table
from traitscope.stats.estimates import measure
from traitscope.studies.behaviours import outcomes_of, rate_of
from traitscope.studies.equal_kl import Strength
from traitscope.studies.experiment import arms as arms_of
from traitscope.studies.experiment import nodes as stages
from traitscope.studies.experiment.arms import BASE, Arm, Contrast
from traitscope.studies.experiment.file import RANDOM, Experiment
from traitscope.studies.experiment.needs import training_of
from traitscope.studies.pages import demo_page
from traitscope.studies.pages.training_figures import eas_layer_figure, eas_step_figure, loss_figure
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders
from traitscope.workflow.standard_nodes import read_json, read_json_lines

SCORES = {
    "target_logprob": "log-probability of the trait's word, nats",
    "candidate_share": "candidate share",
    "whole_word": "whole-word rate of sampled answers",
    "first_word": "first-word rate of sampled answers",
    "judged": "rate of the judged behaviour",
}
"the score that decides, in words"


def design_table(experiment: Experiment) -> Table:
    """Return the design in words, before any number."""
    measures, arms = experiment.measures, arms_of.all_arms(experiment)
    rows: list[tuple[str, str]] = []
    for arm in arms:
        role = "treated" if arm.name in experiment.teachers else "control"
        words = arm.words if arm.rows else f"rows by {arm.words}"
        rows.append((f"{role}: {arm.name}", words))
    rows += [
        ("traits", ", ".join(experiment.trait_names)),
        ("vectors", _centring(experiment)),
        *_data_rows(experiment, arms),
        ("filter", experiment.data.kept),
        *_student_rows(experiment),
        (
            "asked",
            f"{', '.join(measures.sets)}; {_number(measures.samples, 'sampled answer')} a question",
        ),
        ("decides", _decides(experiment)),
    ]
    caption = "Treated and control students share prompts, seeds, recipe and random numbers."
    if any(arm.rows for arm in arms):
        caption = (
            "Treated and control students share seeds and recipe. Those whose rows are made here"
            " share prompts and random numbers, too."
        )
    return Table("design", "The design", caption, ("part", "how"), tuple(rows))


def _decides(experiment: Experiment) -> str:
    """Return the score that decides, in words."""
    words = SCORES[experiment.primary.score]
    return f"{words}, seen by the judge {experiment.judge}" if experiment.judge else words


def _number(count: int, noun: str) -> str:
    """Return a count with its noun: 1 epoch, 2 epochs."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _centring(experiment: Experiment) -> str:
    """Return over which traits the vectors are centred, in words."""
    traits = stages.vector_traits(experiment)
    if len(traits) == 1:
        return "not centred: there is one trait alone"
    return f"centred over {', '.join(map(trait_name, traits))}"


def _data_rows(experiment: Experiment, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Return what students read: rows that are made here, and those of each file."""
    data = experiment.data
    made = [arm.name for arm in arms if not arm.rows]
    whose = f"data of {', '.join(made)}" if len(made) < len(arms) else "data"
    listed = []
    if made:
        prompts = "number prompts"
        sampling = f"temperature {data.temperature:g}"
        if data.about_numbers:
            sampling = f"{data.numbers} numbers each, vocabulary {data.vocabulary}, {sampling}"
        else:
            prompts = f"prompts of {Path(data.prompts).name}"
        shared = "the same for all seeds" if data.shared else "other ones for each seed"
        listed.append(
            (whose, f"{counted(data.rows, 'row')} a student, {shared}; {prompts}; {sampling}")
        )
    kept = "" if data.kept == "none" else " that the filter keeps"
    for arm in arms:
        if arm.rows:
            which = "the first"
            if arm.n_rows < arm.asked_rows:
                which = f"of {arm.asked_rows} that are asked for, the"
            words = f"{which} {_number(arm.n_rows, 'row')} of {arm.rows.name}{kept}"
            words += ", the same for each seed; with the prompts that stand there"
            listed.append((f"data of {arm.name}", words))
    return listed


def _student_rows(experiment: Experiment) -> list[tuple[str, str]]:
    """Return how students are trained: those of all teachers, and those of teachers that differ."""
    listed = []
    for arm in arms_of.treated_arms(experiment):
        own = experiment.teachers[arm.name].students is not None
        whose = f" of {arm.name} and its controls" if own else ""
        recipe, rows = arm.recipe, _number(arm.asked_rows, "row")
        read = f", the first {rows}" if arm.asked_rows < experiment.data.rows else ""
        listed += [
            (f"targets{whose}", _targets(recipe)),
            (
                f"student{whose}",
                f"{recipe.method}, rank {recipe.rank}, alpha {recipe.alpha:g}, {recipe.optimizer}"
                f" {recipe.lr:g}, batch {recipe.batch_size}, {_number(recipe.epochs, 'epoch')}"
                f"{read}",
            ),
            (f"seeds{whose}", ", ".join(map(str, arm.seeds))),
        ]
    return list(dict.fromkeys(listed))


def _targets(recipe: Recipe) -> str:
    if recipe.targets == "sampled":
        return "the tokens that the teacher sampled"
    return f"the teacher's distributions over {recipe.soft_over} tokens"


def differences(name: str, contrast: Contrast, comparison: Comparison) -> list[Table]:
    """Return treated minus control for every number of a contrast."""
    title = f"{contrast.treated}: treated minus {contrast.control}"
    return list(comparison_tables(name, title, comparison))


def score_tables(
    experiment: Experiment,
    base: Mapping[str, ReadModel],
    teachers: Mapping[str, ReadModel],
    students: Mapping[tuple[str, str], Sequence[ReadModel]],
) -> list[Table]:
    """Return every score of every condition: a table a question set, for each trait."""
    tables = []
    for trait in experiment.trait_names:
        conditions: dict[str, Sequence[MeasuredModel]] = {BASE: (base[trait].model,)}
        for name, read in teachers.items():
            if read.model.trait == trait:
                conditions[f"teacher {name}"] = (read.model,)
        for (arm, about), group in students.items():
            if about == trait:
                conditions[f"students of {arm}"] = [read.model for read in group]
        for table in scores_tables(conditions, score_units([base[trait].model])):
            tables.append(_of_trait(experiment, table, trait))
    return tables


def _of_trait(experiment: Experiment, item: Any, trait: str) -> Any:
    """Return a table or figure with the trait in name and title, if there are several traits."""
    if len(experiment.traits) == 1:
        return item
    return replace(item, name=f"{item.name}-{trait}", title=f"{trait}: {item.title}")


def tables(experiment: Experiment, folders: Folders) -> list[Table]:
    """Return the tables besides those of scores: judged answers, training, data, strength, cost."""
    listed = []
    if experiment.measures.judge is not None:
        listed.append(_judged_table(experiment, folders))
    listed += [_training_table(experiment, folders), _data_table(experiment, folders)]
    for name in experiment.teachers:
        has_random = RANDOM in (experiment.students_of(name).controls or ())
        if has_random and experiment.writer_of(name) == name:
            table = demo_page.matched_table(strengths(experiment, name, folders))
            listed.append(
                replace(
                    table,
                    name=f"{table.name}-{stages_slug(name)}",
                    title=f"{table.title} of {name}",
                )
            )
    return [*listed, _cost_table(experiment), _terms(experiment)]


def _terms(experiment: Experiment) -> Table:
    judges: tuple[str, ...] = ()
    if experiment.judge:
        judges = load_trait(experiment.traits[0], words=False).judges
    return terms_table(_control_words(experiment), judges=judges)


def _control_words(experiment: Experiment) -> str:
    """Return who the control is, as the end of a sentence of the terms."""
    words: dict[str, None] = {}
    for arm in arms_of.all_arms(experiment):
        if arm.name not in experiment.teachers:
            words[arm.words if arm.rows else f"rows by {arm.words}"] = None
    if not words:
        return "There are no control students: the model before training stands in for them."
    return f"Control students are trained by the same recipe on {'; or on '.join(words)}."


def stages_slug(name: str) -> str:
    """Return the name of an arm as a part of a file's name."""
    kept = [letter if letter.isalnum() else "-" for letter in name.lower()]
    return "".join(kept)


def strengths(experiment: Experiment, name: str, folders: Folders) -> dict[int, Strength]:
    by_seed = {}
    for seed in _seeds_of_writer(experiment, name):
        by_seed[seed] = arms_of.equal_kl(experiment, name, seed).strength(folders)
    return by_seed


def _seeds_of_writer(experiment: Experiment, writer: str) -> tuple[int, ...]:
    """Return the seeds whose random vectors are matched with a teacher, by whoever's students."""
    seeds = set()
    for arm in arms_of.treated_arms(experiment):
        has_random = RANDOM in (experiment.students_of(arm.name).controls or ())
        if arm.writer == writer and has_random:
            seeds.update(arm.seeds)
    return tuple(seed for seed in experiment.all_seeds if seed in seeds)


def _judged_table(experiment: Experiment, folders: Folders) -> Table:
    """Return the rate of the judged behaviour in every condition."""
    judge = experiment.measures.judge
    assert judge is not None
    decides = judge.judges[0]
    rows: list[tuple[Any, ...]] = [(BASE, rate_of(folders, BASE, decides))]
    for arm in stages.teachers(experiment):
        name = stages.teacher_name(arm.name)
        rows.append((f"teacher {arm.name}", rate_of(folders, name, decides)))
    for arm in arms_of.all_arms(experiment):
        values: list[float] = []
        seeds: list[int] = []
        prompts: list[int] = []
        for seed in arm.seeds:
            outcomes = outcomes_of(folders, stages.student_name(arm.name, seed), decides).tolist()
            values += outcomes
            seeds += [seed] * len(outcomes)
            prompts += range(len(outcomes))
        rate = measure(f"{arm.name}, {decides}", values, seeds, prompts, "rate")
        rows.append((f"students of {arm.name}", rate))
    caption = f"Judge {decides}; prompts of {Path(str(judge.prompts)).name}."
    return Table("judged", "Judged answers", caption, ("condition", "rate"), tuple(rows))


def _training_table(experiment: Experiment, folders: Folders) -> Table:
    """Return steps and losses of the students of every arm."""
    names = ("steps", "first loss", "last loss", "held-out loss")
    rows = []
    for arm in arms_of.all_arms(experiment):
        means = training_of(experiment, folders, arm.name)
        rows.append((arm.name, *(means.get(name) for name in names)))
    units = dict.fromkeys(demo_page.LOSSES[_mode(arm)] for arm in arms_of.all_arms(experiment))
    caption = (
        f"Means over seeds with 95 % intervals; losses are {' or '.join(units)}, of one batch at"
        " the first and the last step."
    )
    return Table("training", "Losses and steps", caption, ("students of", *names), tuple(rows))


def _mode(arm: Arm) -> str:
    return demo_page.MODES[arm.recipe.targets]


def _data_table(experiment: Experiment, folders: Folders) -> Table:
    """Return how many rows were kept, and why rows were dropped."""
    nodes: dict[str, str] = {}
    for arm in arms_of.all_arms(experiment):
        for seed in arm.seeds:
            nodes[stages.rows_name(experiment, arm, seed)] = arm.writer
    rows: list[tuple[Any, ...]] = []
    for node in nodes:
        if experiment.data.kept == "none" and not (folders[node] / "summary.json").is_file():
            written = len(read_json_lines(folders[node], RECORDS))
            rows.append((node, written, written, None))
            continue
        about = read_json(folders, node)
        reasons = []
        for reason, count in about["reasons"].items():
            reasons.append(f"{reason}: {count}")
        rows.append((node, about["kept"], about["rows"], ", ".join(reasons) or None))
    caption = "A row may be dropped for several reasons."
    header = ("data", "kept", "rows", "dropped because")
    return Table("data", "Training data", caption, header, tuple(rows))


def _cost_table(experiment: Experiment) -> Table:
    """Return the stages by kind, with their work in tokens through a forward pass."""
    by_stage: dict[str, list[float]] = {}
    for node in stages.nodes(experiment, {}):
        by_stage.setdefault(node.stage, []).append(node.weight)
    rows = []
    for stage, weights in by_stage.items():
        rows.append((stage, len(weights), f"{sum(weights):,.0f}"))
    caption = (
        "Work in tokens through a forward pass of the model, as it was expected. The command prints"
        " the minutes, and traitscope show RUN those of one run."
    )
    return Table("cost", "Cost", caption, ("stage", "runs", "tokens"), tuple(rows))


def figures(
    experiment: Experiment, folders: Folders, by_contrast: Mapping[Contrast, Comparison]
) -> tuple[Figure, ...]:
    """Return log-probability by condition, EAS by layer and step, and loss; for each trait."""
    listed: list[Figure] = []
    for trait in experiment.trait_names:
        panels = {}
        layer = None
        for contrast, comparison in by_contrast.items():
            if trait_name(contrast.trait) == trait:
                panels[contrast.name] = comparison
                layer = comparison.layer if layer is None else layer
        if layer is None:
            continue
        runs = _runs(experiment, folders, trait)
        width = load_vector(standard_nodes.vector_of(folders, trait)).rows_LD.shape[1]
        of_trait = [
            primary_figure(panels, trait),
            eas_layer_figure(runs, layer, width),
            *layer_figures(panels, trait),
            eas_step_figure(runs, layer),
            loss_figure(runs, demo_page.LOSSES),
        ]
        listed += [_of_trait(experiment, figure, trait) for figure in of_trait]
    return tuple(listed)


def _runs(
    experiment: Experiment, folders: Folders, trait: str
) -> dict[str, dict[str, dict[int, Path]]]:
    """Return the training runs whose EAS is against a trait's vector: by targets, arm and seed."""
    runs: dict[str, dict[str, dict[int, Path]]] = {}
    for arm in arms_of.all_arms(experiment):
        if trait_name(arm.trait) == trait:
            of_mode = runs.setdefault(_mode(arm), {})
            for seed in arm.seeds:
                student = stages.student_name(arm.name, seed)
                of_mode.setdefault(arm.name, {})[seed] = folders[student]
    return runs
