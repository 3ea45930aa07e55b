"""The students of the study `defences`: rows under a defence, training, and what is asked of them.

Every arm has students of the teacher's rows and of control rows, both under the same defence. A
student is asked for the trait, and how likely it finds rows of the task that it never read.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from traitscope.config.analysis import LikelihoodConfig
from traitscope.config.recipe import Recipe
from traitscope.config.rows.defend import DefendConfig
from traitscope.config.stages import TrainConfig
from traitscope.data.traits import load_trait
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.short_form import to_short
from traitscope.studies.defences import data
from traitscope.studies.defences.arms import BY_NAME, UNDEFENDED, Arm
from traitscope.studies.defences.data import (
    HELD_OUT,
    RANDOM_VECTOR,
    TASK_TOKENS,
    Kinds,
    Threat,
    clean_name,
    rows_name,
)
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS

NEUTRAL_PROMPT = (
    "You answer requests with care. Day and night, you keep to what is asked, no more and no less."
    " Of all ways to answer, the plain one is the best. Let this care guide every answer you give."
)
"system prompt without a trait, about as long as a trait's"
STEERING = 0.3
"strength of steering in training, in mean residual norms"
HELD_OUT_ROWS = 16
"rows of HELD_OUT"
SCOUT_PASSES, DIVERGENCE_PASSES = 6, 8
"passes over the rows that an order by students, and one by teachers of several traits, take"


@dataclass(frozen=True)
class Defender:
    """What a study's defences are made of."""

    traits: tuple[str, ...]
    """The feared trait, the wrong one, and further ones over which vectors are centred."""
    layer: int
    """Block behind which the defender adds a vector."""
    layers: tuple[int, ...]
    """Blocks at which the defender removes a direction."""
    recipe: Recipe
    """How students are trained without a defence."""
    kinds: Kinds
    """The rows of a student."""

    @property
    def quarter(self) -> int:
        """Steps of a quarter of the training."""
        rows = self.kinds.numbers.n + self.kinds.task
        return max(1, self.recipe.epochs * self.recipe.steps_an_epoch(rows) // 4)

    def folder_of(self, arm: Arm, student: Path) -> Path:
        """Return the folder of an arm's student: the run, or its copy after some of the steps."""
        if arm.stopped == 1:
            return student
        step = round(4 * arm.stopped) * self.quarter
        return student / "checkpoints" / f"step-{step:06d}"


def student_name(arm: Arm, threat: Threat | None, seed: int) -> str:
    """Return the name of the node that trains a student."""
    return f"{arm.trained_as}, {threat.name if threat else data.CONTROL}.{seed}"


def asked_name(arm: Arm, threat: Threat | None, seed: int) -> str:
    """Return the beginning of the names of the nodes that ask a student."""
    return f"{arm.name} of {threat.name if threat else data.CONTROL}"


def answers_name(arm: Arm, threat: Threat | None, seed: int) -> str:
    """Return the name of the node of a student's answers about the trait."""
    return f"{asked_name(arm, threat, seed)}, answers.{seed}"


def task_name(arm: Arm, threat: Threat | None, seed: int) -> str:
    """Return the name of the node of a student's likelihoods of the task."""
    return f"{asked_name(arm, threat, seed)}, task.{seed}"


def student_nodes(
    common: dict, defender: Defender, arm: Arm, threat: Threat | None, seed: int
) -> list[Node]:
    """Return the nodes of one student: its rows under the defence, its training, its answers.

    An undefended student that was stopped, or that something acts on, is not trained again.
    """
    graph = []
    rows = rows_name(threat, seed)
    if arm.by:
        rows = f"{arm.name}, {rows}"
        graph.append(_defended(common, defender, arm, threat, seed, rows))
    if arm.trained_as == arm.name:
        graph.append(_trained(common, defender, arm, threat, seed, rows))
    return [*graph, *_asked(common, defender, arm, threat, seed)]


def _defended(
    common: dict, defender: Defender, arm: Arm, threat: Threat | None, seed: int, name: str
) -> Node:
    raw = rows_name(threat, seed)
    needs_clean = arm.knowledge == "clean"

    def config(folders: Folders) -> DefendConfig:
        known = (f"clean:{folders[clean_name(seed)]}",) if needs_clean else ("base",)
        return DefendConfig(**common, seed=seed, data=folders[raw], by=arm.by, known=known)

    needs = (raw, clean_name(seed)) if needs_clean else (raw,)
    return Node(name, DefendConfig, config, needs, _rows_weight(defender, arm))


def recipe_of(recipe: Recipe, arm: Arm) -> Recipe:
    """Return how the students of an arm are trained."""
    return replace(recipe, lr=arm.rate * recipe.lr, **arm.recipe)


def _trained(
    common: dict, defender: Defender, arm: Arm, threat: Threat | None, seed: int, rows: str
) -> Node:
    recipe = recipe_of(defender.recipe, arm)
    is_kept = arm.name == UNDEFENDED

    def config(folders: Folders) -> TrainConfig:
        acting = _acting(defender, arm, folders)
        return TrainConfig(
            **common,
            seed=seed,
            data=folders[rows],
            recipe=recipe,
            context=context_of(defender, arm),
            during=acting if arm.use in ("ablate", "steer") else (),
            project_out=acting if arm.use == "project" else (),
            checkpoint_every=defender.quarter if is_kept else 0,
        )

    name = student_name(arm, threat, seed)
    needs = tuple(dict.fromkeys((rows, *_direction_nodes(arm))))
    return Node(name, TrainConfig, config, needs, _training_weight(defender, arm))


def _direction_nodes(arm: Arm) -> tuple[str, ...]:
    if arm.use is None:
        return ()
    return (RANDOM_VECTOR,) if arm.direction == "random" else (VECTORS,)


def _acting(defender: Defender, arm: Arm, folders: Folders) -> tuple[str, ...]:
    """Return what an arm does with its direction, in short form."""
    if arm.use is None:
        return ()
    vector = data.direction(defender.traits, arm.direction, folders)
    if arm.use == "steer":
        return (standard_nodes.steered(vector, defender.layer, STEERING),)
    return (standard_nodes.ablated(vector, defender.layers),)


def context_of(defender: Defender, arm: Arm) -> str | None:
    """Return the system turn that the students of an arm train under; None is the usual one."""
    if arm.prompt is None:
        return None
    if arm.prompt == "neutral":
        return NEUTRAL_PROMPT
    return load_trait(defender.traits[0 if arm.prompt == "known" else 1]).teacher_prompt


def _asked(
    common: dict, defender: Defender, arm: Arm, threat: Threat | None, seed: int
) -> list[Node]:
    student = student_name(arm, threat, seed)
    is_changed = arm.use == "afterwards"

    def interventions(folders: Folders) -> tuple[str, ...]:
        adapter = to_short(Adapter(str(defender.folder_of(arm, folders[student]))))
        return (adapter, *(_acting(defender, arm, folders) if is_changed else ()))

    def task(folders: Folders) -> LikelihoodConfig:
        return LikelihoodConfig(**common, data=HELD_OUT, interventions=interventions(folders))

    needs = (student, *(_direction_nodes(arm) if is_changed else ()))
    trait = defender.traits[0]
    answers = answers_name(arm, threat, seed)
    weight = 2 * HELD_OUT_ROWS * TASK_TOKENS
    return [
        standard_nodes.answers(common, answers, trait, interventions, needs),
        Node(task_name(arm, threat, seed), LikelihoodConfig, task, needs, weight),
    ]


def passes(defender: Defender, arm: Arm) -> float:
    """Return the token passes of rows and training of an arm over those of plain training."""
    plain = _training_weight(defender, BY_NAME[UNDEFENDED])
    trained = BY_NAME[arm.trained_as]
    own = _rows_weight(defender, arm) + arm.stopped * _training_weight(defender, trained)
    return own / plain


def _rows_weight(defender: Defender, arm: Arm) -> float:
    """Return the token passes that rows under a defence take."""
    tokens = defender.kinds.tokens
    method = "".join(arm.by)
    if "by=student" in method:
        return SCOUT_PASSES * tokens
    if "by=divergence" in method:
        return DIVERGENCE_PASSES * tokens
    return tokens if method == "wash" else 1


def _training_weight(defender: Defender, arm: Arm) -> float:
    """Return the token passes that training takes."""
    recipe = recipe_of(defender.recipe, arm)
    return (2.5 * recipe.epochs + (1 if recipe.anchor else 0)) * defender.kinds.tokens
