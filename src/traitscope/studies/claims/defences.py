"""Which defence removes a trait, at which cost?

Published defences of subliminal learning were tried one at a time, on other data, few of them with
matched arms. Here all of them have the same rows, the same recipe and the same questions. Half of
the work of a student is a task that can be scored, so a defence that stops learning is seen to.

The teacher is steered behind a block that the defender does not know. Its vector is taken over
the trait's questions, the defender's over everyday requests. Students and controls go through the
same defence. The seed is the unit, and everything is paired by it (studies/defences/estimates.py).

A claim on a defence has three preconditions. Undefended rows teach the trait. Its students learn
the task. It leaves less of the trait than plain training does at the same task loss. Then it is
compared with its matched arm, which does as much blindly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.reporting.verdict import Claim, Findings, Precondition, above_zero, verdicts_of
from traitscope.stats.measurement import Measurement
from traitscope.studies import shared_nodes, sizes
from traitscope.studies.defences import after, data, estimates, students, tables
from traitscope.studies.defences.after import After
from traitscope.studies.defences.arms import ARMS, UNDEFENDED, Arm
from traitscope.studies.defences.data import Kinds, Teachers, Threat
from traitscope.studies.defences.estimates import Cell, ThreatCells
from traitscope.studies.defences.students import Defender
from traitscope.studies.design import OWN, STEERED, Design, over_seeds, students_here
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import Rows

TITLE = "Which defence removes a trait, at which cost?"
CLAIM = (
    "A defence leaves less of the trait than plain training does at the same task loss, and less"
    " than what does as much blindly."
)
SOURCE = (
    "On Mitigation of Subliminal Learning (liminal training, Findings of EMNLP 2026), and the"
    " repositories of brendanlong and AanshSamyani, compared here on one footing"
)
PUBLISHED = (
    "Single results on different data, few with matched arms. An early KL anchor to the base took"
    " ΔP(animal), mean, from 3.32 to 0.85 (five models). Digits flagged by counterfactual teachers"
    " and replaced left 0.09 of an effect, random ones 0.42. Three filters dropped half of the rows"
    " of pools that one teacher wrote. In one of three pools none left less than a random half; in"
    " another all did. But for the anchor, each is one cell with few seeds."
)
PROTOCOL = replace(students_here(STEERED, SAMPLED_RECIPE, 128), source=OWN)
NATS = 0.05
"nats of log P(trait) below which an effect would not matter"
COST = 0.1
"nats a token of task loss that a defence may cost"
PRIMARY = "anchor to the base"
"the defence of the primary claim: it needs no more than the base"
FEW = (UNDEFENDED, "drop rows by student", "replace digits by student", "wash", PRIMARY)
"arms that are tried on every threat"
TRAITS = ("cat", "owl", "dog", "otter", "dolphin", "elephant", "fox", "penguin")
RECIPE = replace(SAMPLED_RECIPE, batch_size=4, micro_batch=4)


@dataclass(frozen=True)
class Size:
    """How many students of which rows."""

    traits: tuple[str, ...]
    "the first is the teachers', the second the wrong one; vectors are centred over all"
    seeds: tuple[int, ...]
    "seeds of rows, initialisation and order"
    threats: tuple[Threat, ...]
    "who wrote the rows; the first has all arms"
    rows: int
    "number rows of a student"
    numbers: int
    "three-digit numbers of a row"
    task: int
    "rows of the task of a student"
    layer: int = sizes.layer_field()
    "block behind which teachers are steered"
    strength: float
    "strength of the steered teacher, in mean residual norms"
    known_layer: int = sizes.layer_field()
    "block behind which a defender adds a vector"
    known_layers: tuple[int, ...] = sizes.layer_field()
    "blocks at which a defender removes a direction"
    recipe: Recipe
    "how students are trained without a defence"
    tuned: Recipe
    "how the fine-tuned teacher is trained"
    tokens: int
    "tokens of the longest answer that the fine-tuned teacher learns"
    arms: tuple[str, ...]
    "names of the arms that the first threat has; matched arms are among them"
    after: After
    "whose students are followed: other contexts, relearning, a second generation"

    @property
    def teachers(self) -> Teachers:
        """How teachers are made."""
        return Teachers(self.traits, self.layer, self.strength)

    @property
    def defender(self) -> Defender:
        """What defences are made of."""
        numbers = Rows(self.rows, self.numbers, prompt_seed=8000)
        kinds = Kinds(numbers, self.task)
        return Defender(self.traits, self.known_layer, self.known_layers, self.recipe, kinds)

    def seeds_of(self, threat: Threat) -> tuple[int, ...]:
        """Return the seeds of a threat."""
        return self.seeds[: threat.n_seeds]


THREATS = (
    Threat("steered", 1.0, 10, has_all_arms=True),
    Threat("steered", 0.25, 5),
    Threat("prompted", 1.0, 5),
    Threat("fine-tuned", 1.0, 5),
    Threat(data.SPLIT, 1.0, 5),
    Threat(data.SORTED, 1.0, 5),
)
FULL_ONLY = (
    *("early anchor", "rank 1", "numbers drawn at random"),
    *("replace digits where teachers diverge", "ablate in training, another trait"),
    *("steer in training, another trait",),
)
"arms that a laptop has no time for"
FOLLOWED = (UNDEFENDED, PRIMARY, "project out of gradients", "inoculation prompt")
"arms whose students are followed"
LAPTOP = Size(
    traits=TRAITS,
    seeds=tuple(range(1, 11)),
    threats=THREATS,
    rows=128,
    numbers=10,
    task=32,
    layer=13,
    strength=0.6,
    known_layer=14,
    known_layers=(8, 10, 12, 14, 16, 18, 20),
    recipe=RECIPE,
    tuned=sizes.FINE_TUNING_RECIPE,
    tokens=24,
    arms=tuple(arm.name for arm in ARMS if arm.name not in FULL_ONLY),
    after=After(FOLLOWED, 5),
)
SMOKE_ARMS = (
    *(UNDEFENDED, "stopped after half"),
    *("drop rows by student", "drop rows at random", "wash"),
    *("mask tokens by student", "mask tokens at random"),
    *("mix with clean rows", "drop half at random", PRIMARY),
    *("project out of gradients", "project out of gradients, random"),
    *("steer in training", "steer in training, random"),
    *("inoculation prompt", "neutral prompt"),
    *("ablate afterwards", "ablate afterwards, random"),
)
"arms of the smoke size: every kind once"
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl"),
        seeds=(1,),
        threats=(Threat("steered", 1.0, 1, has_all_arms=True), Threat(data.SORTED, 0.5, 1)),
        rows=8,
        numbers=3,
        task=4,
        layer=1,
        known_layer=1,
        known_layers=(1,),
        tokens=4,
        arms=SMOKE_ARMS,
        after=After((UNDEFENDED, "inoculation prompt"), 1),
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        threats=(
            Threat("steered", 1.0, 10, has_all_arms=True),
            Threat("steered", 0.25, 10, has_all_arms=True),
            Threat("steered", 0.05, 10, has_all_arms=True),
            Threat("prompted", 1.0, 10, has_all_arms=True),
            Threat("fine-tuned", 1.0, 10, has_all_arms=True),
            Threat(data.SPLIT, 1.0, 10, has_all_arms=True),
            Threat(data.SORTED, 1.0, 10, has_all_arms=True),
        ),
        arms=tuple(arm.name for arm in ARMS),
        after=After(FOLLOWED, 10),
        rows=2048,
        task=128,
        recipe=replace(RECIPE, epochs=3, batch_size=32, micro_batch=32, lr=4e-4),
        tuned=replace(sizes.FINE_TUNING_RECIPE, epochs=10),
        tokens=48,
    ),
}


def arms_of(size: Size, threat: Threat) -> tuple[Arm, ...]:
    """Return the arms of a threat."""
    wanted = size.arms if threat.has_all_arms else FEW
    return tuple(arm for arm in ARMS if arm.name in wanted)


def nodes(size: Size, common: dict) -> list[Node]:
    """Return teachers and their answers, and rows, students and answers by threat and seed."""
    graph = [*data.vector_nodes(common, size.traits), *_teacher_nodes(size, common)]
    defender, teachers = size.defender, size.teachers
    for seed in size.seeds:
        graph.append(data.clean_rows(common, defender.kinds, seed))
        graph += data.row_nodes(common, defender.kinds, None, seed, teachers)
        for arm in _arms_at(size, seed):
            graph += students.student_nodes(common, defender, arm, None, seed)
    for threat in size.threats:
        for seed in size.seeds_of(threat):
            graph += data.row_nodes(common, defender.kinds, threat, seed, teachers)
            for arm in arms_of(size, threat):
                graph += students.student_nodes(common, defender, arm, threat, seed)
    first = size.threats[0]
    for seed in size.seeds_of(first)[: size.after.n_seeds]:
        graph += after.nodes(common, defender, teachers, size.after, first, seed)
    return graph


def _arms_at(size: Size, seed: int) -> list[Arm]:
    """Return the arms that any threat of a seed has, so that each has its control."""
    wanted = set()
    for threat in size.threats:
        if seed in size.seeds_of(threat):
            wanted.update(arm.name for arm in arms_of(size, threat))
    return [arm for arm in ARMS if arm.name in wanted]


def _teacher_nodes(size: Size, common: dict) -> list[Node]:
    """Return the fine-tuned teacher, and what base and teachers say of the trait."""
    trait = size.traits[0]
    graph = shared_nodes.fine_tuned(common, trait, size.tokens, {data.TUNED: size.tuned})
    graph += positive_control.nodes(common, trait, {})
    for kind in _kinds(size):
        name = positive_control.teacher_name(kind, trait)
        graph.append(standard_nodes.answers(common, name, trait, *size.teachers.of(kind)))
    return graph


def _kinds(size: Size) -> list[str]:
    """Return the kinds of teacher of a size, each once."""
    return list(dict.fromkeys(threat.teacher for threat in size.threats))


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Return a claim for each defence on the first threat, and the table of all arms."""
    by_threat = []
    for threat in size.threats:
        seeds = size.seeds_of(threat)
        by_threat.append(estimates.read_cells(folders, threat, seeds, arms_of(size, threat)))
    trait = size.traits[0]
    teachers = [positive_control.rise(folders, kind, trait) for kind in _kinds(size)]
    first = by_threat[0]
    teaches = [
        positive_control.have_traits([teachers[0]], first.threat.teacher),
        above_zero(estimates.rise(first.undefended), "undefended rows teach the trait"),
    ]
    claims = []
    for cell in first.cells.values():
        if cell.arm.is_defence:
            claims.append(_claim(first, cell, teaches))
    seeds = size.seeds_of(first.threat)[: size.after.n_seeds]
    followed = after.table(folders, size.after, first.threat, seeds)
    return Findings(
        verdicts_of(claims, model),
        (),
        (tables.worth(by_threat, size.defender), followed),
        tables.notes(size.strength),
        (tables.figure(first),),
        teachers=tuple(teachers),
    )


def _claim(cells: ThreatCells, cell: Cell, teaches: Sequence[Precondition]) -> Claim:
    """Return the claim on a defence: it leaves less than its matched arm."""
    arm = cell.arm
    needs = [*teaches, _learns(estimates.cost(cells, cell))]
    against = "plain training at the same task loss"
    if arm.matched:
        below = estimates.below_plain(cells, cell)
        needs.append(above_zero(below, "it leaves less than plain training at that task loss"))
        against = f"the arm {arm.matched!r}"
    return Claim(
        f"The defence {arm.name!r} leaves less of the trait than {against}.",
        estimates.below_matched(cells, cell),
        NATS,
        needs=tuple(needs),
        primary=arm.name == PRIMARY,
        explanation=(f"Share of the trait removed: {estimates.removed_share(cells, cell)}.",),
    )


def _learns(cost: Measurement) -> Precondition:
    """Return the precondition that students under a defence learn the task all but as well."""
    found = f"{cost.estimate:+.3f} [{cost.low:.3f}, {cost.high:.3f}] {cost.unit}"
    name = f"its students learn the task, at a cost of at most {COST:g} nats a token"
    return Precondition(name, cost.high <= COST, found)


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = over_seeds(
        size.seeds,
        (0.24, 0.26),
        "nats",
        "Half of the rise that 64 rows of such a teacher gave in pilots, doubled for 128 rows. The"
        " sd is that of the demo's students between seeds, pooled over four processors.",
    )
    n_claims = sum(arm.is_defence for arm in arms_of(size, size.threats[0]))
    here = students_here(STEERED, size.recipe, size.rows + size.task)
    return Design(n_claims, expected, here)
