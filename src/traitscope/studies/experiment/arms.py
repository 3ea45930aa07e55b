"""The arms of an experiment: who writes the rows that students read, treated and control.

A control belongs to one treated arm where it is made like its teacher, and to all otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.config.rows.reading import USUAL, Reading
from traitscope.data.traits import trait_name
from traitscope.interventions.intervention import Adapter, SystemPrompt
from traitscope.interventions.short_form import to_short
from traitscope.studies import shared_nodes
from traitscope.studies.equal_kl import EqualKL
from traitscope.studies.experiment.file import (
    OTHER_TRAIT,
    PROMPT,
    RANDOM,
    ROWS,
    UNMODIFIED,
    Experiment,
    Teacher,
)
from traitscope.studies.experiment.given import given_rows, reading_of
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom

BASE = "base"
"the model before training, which stands in where there is no control"


@dataclass(frozen=True)
class Made:
    """What makes a teacher."""

    interventions: InterventionsFrom = standard_nodes.unmodified
    """Its interventions, from the folders of the nodes that it needs."""
    needs: tuple[str, ...] = ()
    """These nodes."""


@dataclass(frozen=True)
class Arm:
    """Who writes the rows of some students."""

    name: str
    """Name of the arm, by which its nodes are called."""
    words: str
    """How the rows come to be, in words."""
    trait: str
    """Trait whose vector EAS is taken against, by name or file."""
    made: Callable[[int], Made]
    """What makes the teacher of a seed."""
    seeded: bool = False
    """Whether every seed has a teacher of its own."""
    model: str = ""
    """Another model that writes the rows; empty: the experiment's."""
    template: tuple[str, ...] | None = None
    """Variables of that model's chat template; None: the experiment's."""
    rows: Path | None = None
    """Rows from elsewhere."""
    reading: Reading = USUAL
    """How they are read."""
    writer: str = ""
    """Arm whose rows its students read: its own, or that of a teacher that is made alike."""
    recipe: Recipe = SAMPLED_RECIPE
    """How its students are trained."""
    n_rows: int = 0
    """Rows that a student reads."""
    asked_rows: int = 0
    """Rows that it should read; a file may hold fewer."""
    seeds: tuple[int, ...] = ()
    """Seeds of its students."""

    def settings(self, common: dict) -> dict:
        """Settings of what its teacher computes, from those that all stages share.

        A model of its own is not the one that `same_as` vouches for.
        """
        if not self.model:
            return common
        template = common["template"] if self.template is None else self.template
        return common | {"model": self.model, "template": template, "same_as": None}


@dataclass(frozen=True)
class Contrast:
    """A treated arm, and what its students are compared with."""

    treated: str
    """Name of the treated arm."""
    control: str
    """Name of the control arm; BASE where there is no control."""
    trait: str
    """Trait that is asked about, by name or file."""

    @property
    def name(self) -> str:
        """What the plan and the page call it."""
        return f"{self.treated} minus {self.control}"


def always(made: Made) -> Callable[[int], Made]:
    """Return the function that gives every seed the same teacher."""
    return lambda seed: made


def treated_arms(experiment: Experiment) -> list[Arm]:
    """Return the arms of the teachers, in the order of the file."""
    arms = []
    for name, teacher in experiment.teachers.items():
        words, made = _teacher(experiment, teacher)
        if teacher.rows:
            words = f"rows of {teacher.rows.name}" + (f", made by {words}" if words else "")
        arm = Arm(
            name,
            words,
            teacher.trait,
            always(made),
            model=teacher.model or "",
            template=teacher.template,
            rows=teacher.rows,
            reading=reading_of(experiment, name),
        )
        arms.append(_with_students(experiment, name, arm, experiment.writer_of(name)))
    return arms


def _with_students(experiment: Experiment, teacher: str, arm: Arm, writer: str) -> Arm:
    """Return an arm with what holds for the students of its teacher."""
    students = experiment.students_of(teacher)
    seeds = experiment.all_seeds[: students.seeds]
    assert students.recipe and students.rows
    arm = replace(arm, writer=writer, recipe=students.recipe, seeds=seeds)
    n_rows = students.rows
    if arm.rows is not None:
        n_rows = min(n_rows, given_rows(experiment, arm.rows, arm.reading).kept)
    return replace(arm, n_rows=n_rows, asked_rows=students.rows)


def layer_of(experiment: Experiment, teacher: Teacher) -> int:
    """Return the block behind which a teacher is steered, or its controls are."""
    layer = teacher.layer if teacher.layer is not None else experiment.layer
    assert layer is not None, "the request fills the layer in"
    return layer


def _teacher(experiment: Experiment, teacher: Teacher) -> tuple[str, Made]:
    """Return how a teacher is made, in words and as a node's interventions."""
    layer = layer_of(experiment, teacher)
    trait = trait_name(teacher.trait)
    match teacher.maker:
        case "steer":
            words = f"{trait} vector at block {layer}, {teacher.steer:g} mean residual norms"
            return words, Made(_steered(teacher, layer), (VECTORS,))
        case "prompt" if teacher.prompt is True:
            return f"the system prompt of {trait}", Made(standard_nodes.prompted_by(teacher.trait))
        case "prompt":
            prompt = to_short(SystemPrompt(str(teacher.prompt)))
            return f"the system prompt “{teacher.prompt}”", Made(standard_nodes.fixed(prompt))
        case "adapter":
            adapter = to_short(Adapter(str(teacher.adapter)))
            return f"the adapter {Path(str(teacher.adapter)).name}", Made(
                standard_nodes.fixed(adapter)
            )
        case "interventions":
            given = teacher.interventions or ()
            words = " and ".join(given) or "the unmodified model"
            return words, Made(lambda folders: given)
        case "model":
            under = f" under {', '.join(teacher.template)}" if teacher.template else ""
            return f"the model {teacher.model}{under}", Made()
    return "", Made()


def _vector(teacher: Teacher, trait: str = "") -> Callable[[Folders], Path]:
    """Return the file of the vector that a teacher is steered with."""
    if teacher.vector and not trait:
        return lambda folders: Path(str(teacher.vector))
    return lambda folders: standard_nodes.vector_of(folders, trait or teacher.trait)


def _steered(teacher: Teacher, layer: int) -> InterventionsFrom:
    vector, strength = _vector(teacher), float(teacher.steer or 0.0)

    def interventions(folders: Folders) -> tuple[str, ...]:
        return (standard_nodes.steered(vector(folders), layer, strength),)

    return interventions


def equal_kl(experiment: Experiment, name: str, seed: int) -> EqualKL:
    """Return the search for a random vector that is as strong as a teacher, for one seed."""
    name = experiment.writer_of(name)
    teacher = experiment.teachers[name]
    vectors = random_vector_node(experiment, name, seed)
    place = experiment.all_seeds.index(seed) if experiment.data.pooled else 0

    def vector(folders: Folders) -> Path:
        return folders[vectors] / f"random-{place}.safetensors"

    _, made = _teacher(experiment, teacher)
    needs = tuple(dict.fromkeys((VECTORS, vectors, *made.needs)))
    layer = layer_of(experiment, teacher)
    return EqualKL(f"equal KL with {name}, seed {seed}", vector, needs, layer)


def random_vector_node(experiment: Experiment, name: str, seed: int) -> str:
    """Return the node of the random vector of a teacher and a seed."""
    if experiment.data.pooled:
        return f"random vectors like {name}"
    return f"random vector like {name}, seed {seed}"


def equal_kl_nodes(experiment: Experiment, common: dict) -> list[Node]:
    """Build a random vector a teacher and seed, and the search for its strength.

    Each has the seed's own number, so a further seed leaves those that are there. Of pooled rows
    the vectors are pooled, too.
    """
    seeds, data, graph = experiment.all_seeds, experiment.data, {}
    for arm in treated_arms(experiment):
        if RANDOM not in (experiment.students_of(arm.name).controls or ()):
            continue
        teacher = experiment.teachers[arm.name]
        _, made = _teacher(experiment, teacher)
        for seed in arm.seeds:
            control = equal_kl(experiment, arm.writer, seed)
            vectors = random_vector_node(experiment, arm.writer, seed)
            number, first = (len(seeds), seeds[0]) if data.pooled else (1, seed)
            graph[vectors] = shared_nodes.random_vectors_like(
                common, vectors, VECTORS, _vector(teacher), number, first
            )
            graph[control.name] = control.node(
                common, made.interventions, data.numbers, data.matched_rows
            )
    return list(graph.values())


def controls_of(experiment: Experiment, name: str) -> list[Arm]:
    """Return the control arms of a treated arm, in the order of the file."""
    teacher, writer = experiment.teachers[name], experiment.writer_of(name)
    students = experiment.students_of(name)
    usual = replace(experiment, controls=students.controls)
    arms = []
    for control in students.controls or ():
        made = _control(usual, name, control)
        if made is None:
            continue
        written = _control(usual, writer, control)
        if teacher.students is not None and made.name == (written or made).name:
            made = replace(made, name=f"{made.name} like {name}")
        made = replace(made, reading=experiment.reading)
        arms.append(_with_students(experiment, name, made, (written or made).name))
    return arms


def _control(experiment: Experiment, name: str, control: str | dict[str, str]) -> Arm | None:
    """Return the arm of one control of a teacher; None where it is the teacher itself."""
    teacher = experiment.teachers[name]
    if control == UNMODIFIED:
        first = next(iter(experiment.teachers.values()))
        return Arm(UNMODIFIED, "the unmodified model", first.trait, always(Made()))
    if control == RANDOM:
        return _random_arm(experiment, name)
    if isinstance(control, dict) and not _is_itself(control, teacher):
        ((key, value),) = control.items()
        return _named_arm(experiment, name, teacher, key, value)
    return None


def _is_itself(control: dict[str, str], teacher: Teacher) -> bool:
    """Tell whether another trait is the teacher's own, so that it is no control of it."""
    other = control.get(OTHER_TRAIT)
    return other is not None and trait_name(other) == trait_name(teacher.trait)


def _random_arm(experiment: Experiment, name: str) -> Arm:
    teacher = experiment.teachers[name]

    def made(seed: int) -> Made:
        control = equal_kl(experiment, name, seed)
        return Made(control.teacher, (*control.needs, control.name))

    words = (
        f"a random vector a seed at block {layer_of(experiment, teacher)}, as strong in KL as the"
        f" teacher {name}"
    )
    return Arm(f"random like {name}", words, teacher.trait, made, seeded=True)


def _named_arm(experiment: Experiment, name: str, teacher: Teacher, key: str, value: str) -> Arm:
    """Return the arm of a control that is named by a word and a value."""
    if key == ROWS:
        path = Path(value)
        first = next(iter(experiment.teachers.values()))
        called = _distinct(experiment, key, value, lambda given: f"rows {Path(given).stem}")
        return Arm(called, f"rows of {path.name}", first.trait, always(Made()), rows=path)
    if key == PROMPT:
        prompt = standard_nodes.fixed(to_short(SystemPrompt(value)))
        first = next(iter(experiment.teachers.values()))
        words = f"the system prompt “{value}”"
        called = _distinct(experiment, key, value, lambda given: f"prompt “{given[:24]}”")
        return Arm(called, words, first.trait, always(Made(prompt)))
    assert key == OTHER_TRAIT, key
    other = trait_name(value)
    if teacher.maker == "prompt":
        made = Made(standard_nodes.prompted_by(value))
        return Arm(
            f"{other} like {name}", f"the system prompt of {other}", teacher.trait, always(made)
        )
    layer = layer_of(experiment, teacher)
    strength = float(teacher.steer or 0.0)
    words = f"{other} vector at block {layer}, {strength:g} mean residual norms"
    made = Made(standard_nodes.steered_by(value, layer, strength), (VECTORS,))
    return Arm(f"{other} like {name}", words, teacher.trait, always(made))


def _distinct(experiment: Experiment, key: str, value: str, called: Callable[[str], str]) -> str:
    """Return what a control is called, with a number where an earlier one is called so, too."""
    alike = []
    for control in experiment.controls or ():
        if isinstance(control, dict) and key in control and called(control[key]) == called(value):
            alike.append(control[key])
    place = alike.index(value)
    return f"{called(value)}, {place + 1}" if place else called(value)


def ambiguous(experiment: Experiment) -> list[str]:
    """Return the names of controls that name something else, too: a teacher, or another control."""
    known: dict[str, tuple[str, Path | None] | None] = dict.fromkeys(experiment.teachers)
    wrong = []
    for name in experiment.teachers:
        controls = controls_of(experiment, name)
        names = [arm.name for arm in controls]
        for arm in controls:
            is_other = known.setdefault(arm.name, (arm.words, arm.rows)) != (arm.words, arm.rows)
            if is_other or names.count(arm.name) > 1:
                wrong.append(arm.name)
    return sorted(set(wrong))


def all_arms(experiment: Experiment) -> list[Arm]:
    """Return every arm once: treated ones, then controls."""
    arms = {arm.name: arm for arm in treated_arms(experiment)}
    for name in experiment.teachers:
        for arm in controls_of(experiment, name):
            arms.setdefault(arm.name, arm)
    return list(arms.values())


def arm_of(experiment: Experiment, name: str) -> Arm:
    """Return the arm of a name."""
    return next(arm for arm in all_arms(experiment) if arm.name == name)


def contrasts(experiment: Experiment) -> list[Contrast]:
    """Return what is compared: every treated arm with each of its controls, the primary one first.

    Without controls, students are compared with the model before training.
    """
    listed = []
    for name, teacher in experiment.teachers.items():
        controls = [arm.name for arm in controls_of(experiment, name)] or [BASE]
        listed += [Contrast(name, control, teacher.trait) for control in controls]
    return listed


def traits_of(experiment: Experiment, arm: Arm) -> list[str]:
    """Return the traits that students of an arm are asked about: those of its contrasts."""
    traits: dict[str, None] = {}
    for contrast in contrasts(experiment):
        if arm.name in (contrast.treated, contrast.control):
            traits[contrast.trait] = None
    return list(traits)
