"""The stages of an experiment: vectors, rows and students of every arm and seed, and answers.

    vectors ── v_teacher of the traits and their company, centred
    for each arm and seed:   rows ─ kept rows ─ student ─ answers about each trait of its contrasts
    base and teachers:       answers about their traits

Nothing depends on which other seeds there are, so a further seed computes its own stages alone.
Pooled rows are the exception.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from traitscope.config.rows.reading import USUAL, Reading
from traitscope.config.stages import FilterConfig, GenerateConfig
from traitscope.data.traits import bundled_traits, kind_of, load_trait, trait_name
from traitscope.studies.behaviours import Evaluation, judged_answers, verdict_node
from traitscope.studies.experiment import arms as arms_of
from traitscope.studies.experiment.arms import BASE, Arm, Made
from traitscope.studies.experiment.file import OTHER_TRAIT, Experiment
from traitscope.studies.experiment.given import rules_of
from traitscope.studies.sizes import ANIMALS
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS, Rows, Student, unmodified

COMPANY = 7
"most traits that vectors are centred over besides the experiment's own, where nobody names them"
PROMPT_TOKENS = 60
"tokens of a prompt of a file, for the estimate of the time"


def nodes(experiment: Experiment, common: dict) -> list[Node]:
    """Return all stages; the experiment has its layer and its seeds."""
    graph = [
        standard_nodes.vectors(common, vector_traits(experiment)),
        standard_nodes.eas_rows(common, experiment.data.numbers),
    ]
    graph += _answers_before_training(experiment, common)
    graph += arms_of.equal_kl_nodes(experiment, common)
    for arm in arms_of.all_arms(experiment):
        graph += _data(experiment, common, arm)
        for seed in arm.seeds:
            graph += _student(experiment, common, arm, seed)
    return list({node.name: node for node in graph}.values())


def vector_traits(experiment: Experiment) -> tuple[str, ...]:
    """Return the traits that vectors are taken of: the experiment's, of controls, and company."""
    traits = {trait_name(trait): trait for trait in experiment.traits}
    for control in experiment.all_controls:
        if isinstance(control, dict) and OTHER_TRAIT in control:
            other = control[OTHER_TRAIT]
            traits.setdefault(trait_name(other), other)
    company = experiment.company
    if company is None:
        company = _company(experiment.traits[0])[: COMPANY + 1 - len(traits)]
    for trait in company:
        traits.setdefault(trait_name(trait), trait)
    return tuple(traits.values())


def _company(trait: str) -> tuple[str, ...]:
    """Return the other bundled traits of the same kind; of animals the usual ones."""
    name, kind = trait_name(trait), kind_of(load_trait(trait, words=False))
    known = ANIMALS if kind == "animals" else bundled_traits()
    alike = []
    for other in known:
        if other != name and kind_of(load_trait(other)) == kind:
            alike.append(other)
    return tuple(alike)


def answers_name(model: str, trait: str) -> str:
    """Return the node of what a model answers about a trait."""
    return f"{model}, answers about {trait_name(trait)}"


def deciding_answers(experiment: Experiment, model: str, trait: str) -> str:
    """Return the node of the answers that say whether a model has a trait."""
    if experiment.primary.score == "judged" and experiment.measures.judge is not None:
        return verdict_node(model)
    return answers_name(model, trait)


def teacher_name(arm: str) -> str:
    """Return what the answers of an arm's teacher are called by."""
    return f"{arm} teacher"


def student_name(arm: str, seed: int) -> str:
    """Return the node that trains a student."""
    return f"{arm} student, seed {seed}"


def rows_name(experiment: Experiment, arm: Arm, seed: int) -> str:
    """Return the node of the rows that a student reads."""
    if arm.rows or (experiment.data.shared and not arm.seeded):
        return f"{arm.writer} rows"
    return f"{arm.writer} rows, seed {seed}"


def teachers(experiment: Experiment) -> list[Arm]:
    """Return the treated arms whose teacher is here, so that it can be asked; each teacher once."""
    asked = []
    for arm in arms_of.treated_arms(experiment):
        if experiment.teachers[arm.name].maker and arm.writer == arm.name:
            asked.append(arm)
    return asked


def _answers_before_training(experiment: Experiment, common: dict) -> list[Node]:
    """Return the answers of the base about every trait, and of every teacher about its own.

    They go first: without its trait a teacher has nothing to pass on.
    """
    graph = []
    for trait in experiment.traits:
        graph += _answers(experiment, common, BASE, Made(), [trait])
    for arm in teachers(experiment):
        name, made = teacher_name(arm.name), arm.made(experiment.all_seeds[0])
        graph += _answers(experiment, common, name, made, [arm.trait], arm)
    judge = evaluation(experiment)
    if judge is not None:
        graph += judged_answers(common, judge, BASE, unmodified)
    return [replace(node, first=True) for node in graph]


def evaluation(experiment: Experiment) -> Evaluation | None:
    """Return the judged evaluation, or None."""
    judge = experiment.measures.judge
    if judge is None:
        return None
    return Evaluation(Path(str(judge.prompts)), judge.max_new_tokens, judge.judges, judge.question)


def _answers(
    experiment: Experiment,
    common: dict,
    name: str,
    made: Made,
    traits: list[str],
    teacher: Arm | None = None,
) -> list[Node]:
    """Return the answers about some traits, and to a judged evaluation.

    teacher: The arm whose teacher answers, which may have a model of its own.
    """
    measures = experiment.measures
    of_model = teacher.settings(common) if teacher else common
    graph = []
    for trait in traits:
        graph.append(
            standard_nodes.answers(
                of_model,
                answers_name(name, trait),
                trait,
                made.interventions,
                made.needs,
                sets=measures.sets,
                samples=measures.samples,
                max_new_tokens=measures.max_new_tokens,
                capability=measures.perplexity,
            )
        )
    judge = evaluation(experiment)
    if judge is not None and name != BASE:
        graph += judged_answers(common, judge, name, made.interventions, made.needs, of_model)
    return graph


def _data(experiment: Experiment, common: dict, arm: Arm) -> list[Node]:
    """Return the rows of an arm, and the kept ones among them."""
    graph: dict[str, Node] = {}
    for seed in arm.seeds:
        name = rows_name(experiment, arm, seed)
        if name in graph:
            continue
        rows = _rows(experiment, 0 if name == f"{arm.writer} rows" else seed)
        if arm.rows:
            graph[name] = _filtered(experiment, name, arm.rows, rows, reading=arm.reading)
            continue
        made, settings = arm.made(seed), arm.settings(common)
        raw, written, part = f"{name}, as written", rows, 0
        if experiment.data.pooled:
            raw, written, part = _pooled(experiment, arm, raw, seed)
        elif experiment.data.kept == "none":
            raw = name
        graph[raw] = standard_nodes.number_rows(
            settings, raw, written, made.interventions, made.needs
        )
        if raw != name:
            graph[name] = _filtered(experiment, name, raw, rows, part)
    return list(graph.values())


def _pooled(experiment: Experiment, arm: Arm, raw: str, seed: int) -> tuple[str, Rows, int]:
    """Return the node that writes the rows of a seed with those of others, them, and its part.

    Teachers that differ between seeds write their parts alone.
    """
    seeds, n_rows = experiment.all_seeds, experiment.data.rows
    place, first = seeds.index(seed), _rows(experiment, seeds[0])
    if arm.seeded:
        return raw, replace(first, start=place * n_rows), 0
    return f"{arm.writer} rows, all seeds", replace(first, n=n_rows * len(seeds)), place


def _rows(experiment: Experiment, seed: int) -> Rows:
    """Return the rows of one seed, which share prompts and random numbers between arms."""
    data = experiment.data
    settings = {}
    if data.temperature != 1:
        settings["temperature"] = data.temperature
    if not data.about_numbers:
        settings["max_new_tokens"] = data.max_new_tokens
        return Rows(data.rows, data.numbers, seed, prompts=Path(data.prompts), settings=settings)
    if data.vocabulary != "template":
        settings |= {"vocabulary": data.vocabulary, "max_new_tokens": data.max_new_tokens}
        settings["separator"] = GenerateConfig.separator
    return Rows(data.rows, data.numbers, seed, settings=settings)


def _filtered(
    experiment: Experiment,
    name: str,
    source: str | Path,
    rows: Rows,
    part: int = 0,
    reading: Reading = USUAL,
) -> Node:
    """Return the kept rows of a part of a node, or of the first ones of a file from elsewhere."""
    rules = rules_of(experiment)
    reads_all = isinstance(source, Path) or rows.prompts is not None

    def config(folders: Folders) -> FilterConfig:
        data = source if isinstance(source, Path) else folders[source]
        if reads_all:
            return FilterConfig(data, rules, limit=rows.n, reading=reading)
        return FilterConfig(data, rules, part * rows.n, (part + 1) * rows.n)

    needs = () if isinstance(source, Path) else (source,)
    return Node(name, FilterConfig, config, needs, 1)


def _student(experiment: Experiment, common: dict, arm: Arm, seed: int) -> list[Node]:
    """Return the node that trains a student of an arm, and those of its answers."""
    recipe, n_rows = arm.recipe, arm.n_rows
    name, made = student_name(arm.name, seed), arm.made(seed)
    steps = recipe.epochs * recipe.steps_an_epoch(n_rows)
    settings: dict[str, Any] = {"max_rows": n_rows, "eas_every": max(1, steps // 2)}
    if arm.model or arm.rows:
        settings["text"] = True
    if arm.reading.skip_bad:
        settings["reading"] = Reading(skip_bad=arm.reading.skip_bad)
    asked = Student(
        name,
        rows_name(experiment, arm, seed),
        recipe,
        seed,
        made.interventions,
        tuple(dict.fromkeys((VECTORS, EAS_ROWS, *made.needs))),
        lambda folders: standard_nodes.vector_of(folders, arm.trait),
        settings,
    )
    trained = Made(standard_nodes.trained_by(name), (name,))
    traits = arms_of.traits_of(experiment, arm)
    return [
        standard_nodes.student(common, asked, tokens(experiment, n_rows)),
        *_answers(experiment, common, name, trained, traits),
    ]


def tokens(experiment: Experiment, n_rows: int) -> float:
    """Return the tokens of the rows of a student, as far as they are known beforehand."""
    data = experiment.data
    if data.about_numbers and data.vocabulary == "template":
        return Rows(n_rows, data.numbers).tokens
    return n_rows * (PROMPT_TOKENS + data.max_new_tokens)


def with_layer(experiment: Experiment, blocks: int, depth: int, usual: int) -> Experiment:
    """Return the experiment with its layer: by default `usual` of `depth` blocks, relatively."""
    if experiment.layer is not None:
        return experiment
    return replace(experiment, layer=round(usual * (blocks - 1) / (depth - 1)))
