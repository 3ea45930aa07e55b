"""Does it matter how a teacher was given its trait?

Sources: Hadley and Gultepe 2026, arXiv 2608.05734, on prompted and steered teachers, and an older
repository on fine-tuned ones. Morgulis and Hewitt 2026, arXiv 2604.25783, on trained
vectors.

Every trait has four teachers, on one base. One has a system prompt. One is steered by the extracted
vector, at the block and the strength that name its trait most. One is fine-tuned on answers of the
prompted model. One is steered by a vector that was trained on the same answers. The strength of
trained vectors is chosen by how often number rows of the first one pass the filter, as published.
All students read the same rows of the unmodified model.

The trait is the unit. A trait passes on as far as its teacher's students name it more than students
of the other traits' teachers of the same kind do. These read the same rows, so what any number rows
or any teacher does to the answers is in both.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.data.traits import trait_name
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import HADLEY, Design, MeanPlan, students_here
from traitscope.studies.teachers import distances, kinds, positive_control, scanned
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS

TITLE = "Does it matter how a teacher was given its trait?"
CLAIM = "How a teacher was given its trait decides how much passes on."
SOURCE = "Hadley and Gultepe 2026, arXiv 2608.05734; Morgulis and Hewitt 2026, arXiv 2604.25783"
PUBLISHED = (
    "Rise of the target's rate in students, prompted and steered: 0.16 and 0.24 (Gemma-2B), 0.89"
    " and 0.16 (Llama-3.1-8B). So the order depends on the model. In an older repository of the"
    " first author, students of fine-tuned teachers rise weakly in Gemma. Students of trained"
    " vectors, injected at nearly all blocks, inherit the bias (third-party readings)."
)
PROTOCOL = replace(HADLEY, teacher="several kinds")
NATS = 0.05
"nats below which an effect would not matter"


COMPARED = (
    ("steered", "prompted"),
    ("steered", "fine-tuned"),
    ("trained vector", "fine-tuned"),
)
"pairs of kinds, of which the first is claimed to pass more on; the first pair is the primary claim"


@dataclass(frozen=True)
class Size:
    """How many students, how teachers are made, and which strengths are tried."""

    traits: tuple[str, ...]
    "traits that vectors are centred over"

    taught: int
    "how many of the traits have teachers: the first ones"
    seeds: tuple[int, ...]
    "seeds of students; they are averaged, because the trait is the unit"
    rows: int
    "rows that all students of a seed read"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    "block behind which the trained vectors are added, and where EAS is read"
    blocks: tuple[int, ...] = sizes.layer_field()
    "blocks that are tried for steered teachers"
    strengths: tuple[float, ...]
    "strengths that are tried for steered teachers, in mean residual norms"
    recipe: Recipe
    "how students are trained"
    tokens: int
    "tokens of the longest answer that teachers learn from"
    tuned: Recipe
    "how the fine-tuned teacher is trained"
    trained: Recipe
    "how the trained vector is trained, behind the block `layer`"
    multiples: tuple[float, ...]
    "multiples of the trained vector that are tried as its strength, rising"
    tried: int
    "free number rows at each multiple"
    passing: float
    "fraction of the unmodified model's pass rate that a strength must keep"


TRAINED = replace(sizes.FINE_TUNING_RECIPE, method="vector", layer=0, lr=0.3)
SOFT = sizes.FEW_ROWS_SOFT_RECIPE
LAPTOP = Size(
    traits=sizes.ANIMALS,
    taught=6,
    seeds=(1,),
    rows=12,
    numbers=10,
    layer=14,
    blocks=(10, 14, 18),
    strengths=(0.15, 0.3, 0.45),
    recipe=SOFT,
    tokens=24,
    tuned=sizes.FINE_TUNING_RECIPE,
    trained=TRAINED,
    multiples=(0.5, 1.0, 2.0, 4.0),
    tried=12,
    passing=0.8,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl"),
        taught=2,
        seeds=(1,),
        rows=4,
        numbers=3,
        layer=1,
        blocks=(1,),
        strengths=(0.3,),
        recipe=replace(SOFT, epochs=1),
        tokens=4,
        multiples=(0.5, 1.0),
        tried=2,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        taught=8,
        seeds=(1, 2),
        rows=512,
        recipe=replace(SOFT, epochs=3, batch_size=32, micro_batch=32, lr=4e-4),
        tokens=48,
        tuned=replace(sizes.FINE_TUNING_RECIPE, epochs=10),
        trained=replace(TRAINED, epochs=50, lr=1e-2),
        multiples=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
        tried=200,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the teachers of every trait and their answers, the strengths, and students by seed."""
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.numbers),
        *kinds.strength_nodes(size, common),
    ]
    for seed in size.seeds:
        graph.append(standard_nodes.number_rows(common, f"rows.{seed}", _rows(size, seed)))
    for trait in kinds.taught(size):
        graph += positive_control.nodes(common, trait, {})
        graph.append(scanned.scan(common, trait, size.blocks, size.strengths))
        recipes = {
            kinds.tuned_name(trait): size.tuned,
            kinds.trained_name(trait): replace(size.trained, layer=size.layer),
        }
        said = f"said of {trait_name(trait)}"
        graph += shared_nodes.fine_tuned(common, trait, size.tokens, recipes, said)
        for kind in kinds.TEACHERS:
            graph += _teacher_and_students(size, common, kind, trait)
    graph.append(distances.node(common, _made(size), size.numbers))
    return graph


def _made(size: Size) -> dict[str, distances.Made]:
    """Return how all teachers are made, by name."""
    made = {}
    for kind, trait in _every_teacher(size):
        interventions = partial(kinds.teacher, size, kind, trait)
        needs = kinds.needs_of(size, kind, trait)
        made[positive_control.teacher_name(kind, trait)] = distances.Made(interventions, needs)
    return made


def _every_teacher(size: Size) -> list[tuple[str, str]]:
    """Return the kind and the trait of all teachers."""
    return list(product(kinds.TEACHERS, kinds.taught(size)))


def _rows(size: Size, seed: int) -> standard_nodes.Rows:
    return standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=151)


def _teacher_and_students(size: Size, common: dict, kind: str, trait: str) -> list[Node]:
    """Build the answers of a teacher, and its students with their answers about every trait."""
    interventions = partial(kinds.teacher, size, kind, trait)
    needs = kinds.needs_of(size, kind, trait)
    name = positive_control.teacher_name(kind, trait)
    graph = [standard_nodes.answers(common, name, trait, interventions, needs)]
    for seed in size.seeds:
        student = standard_nodes.Student(
            kinds.student_name(kind, trait, seed),
            f"rows.{seed}",
            size.recipe,
            seed,
            interventions,
            (VECTORS, EAS_ROWS, *needs),
            partial(standard_nodes.vector_of, trait=trait),
        )
        graph.append(standard_nodes.student(common, student, _rows(size, seed).tokens))
        for asked in kinds.taught(size):
            answers = kinds.answers_name(kind, trait, asked, seed)
            graph.append(standard_nodes.student_answers(common, answers, asked, student.name))
    return graph


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare kinds by what a trait's students say beyond students of other traits' teachers."""
    passed = {kind: _passed(size, folders, kind) for kind in kinds.TEACHERS}
    teachers = {kind: _teacher_rises(size, folders, kind) for kind in kinds.TEACHERS}
    has_trait = {kind: positive_control.have_traits(teachers[kind], kind) for kind in teachers}
    claims = []
    for one, other in COMPARED:
        differences = np.subtract(passed[one], passed[other]).tolist()
        claims.append(
            Claim(
                f"A {one} teacher passes more of its trait on than a {other} one.",
                mean_over_units(f"{one} minus {other}", differences, "nats", "traits"),
                NATS,
                needs=(has_trait[one], has_trait[other]),
                primary=(one, other) == COMPARED[0],
            )
        )
    for kind, by_trait in passed.items():
        claims.append(
            Claim(
                f"A {kind} teacher passes its trait on.",
                _over_traits(kind, by_trait),
                NATS,
                needs=(has_trait[kind],),
            )
        )
    tables = (
        _kinds_table(size, folders, passed),
        _strengths_table(size, folders),
        scanned.places_table(folders, kinds.taught(size)),
    )
    return Findings(
        verdicts_of(claims, model),
        (),
        tables,
        _notes(size, folders),
        teachers=tuple(chain.from_iterable(teachers.values())),
    )


def _over_traits(kind: str, by_trait: list[float]) -> Measurement:
    name = f"{kind}: students of a trait's teacher minus those of other traits' teachers"
    return mean_over_units(name, by_trait, "nats", "traits")


def _passed(size: Size, folders: Folders, kind: str, score: str = "target_logprob") -> list[float]:
    """Return by trait a score of its teacher's students minus that of other teachers' students."""
    differences = []
    for trait in kinds.taught(size):
        pairs = []
        for other in kinds.taught(size):
            for seed in size.seeds:
                if other != trait:
                    own_answers = kinds.answers_name(kind, trait, trait, seed)
                    pairs.append((seed, own_answers, kinds.answers_name(kind, other, trait, seed)))
        differences.append(readings.rise(folders, trait, pairs, score).estimate)
    return differences


def _teacher_rises(size: Size, folders: Folders, kind: str) -> list[Measurement]:
    """Return what the teachers of a kind say of their traits beyond the base."""
    return [positive_control.rise(folders, kind, trait) for trait in kinds.taught(size)]


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = MeanPlan(
        effect=0.5,
        sd=0.3,
        unit="nats",
        n=size.taught,
        counted="traits",
        source=(
            "Steered minus prompted was 0.78 with an sd of 0.16 over three seeds of one"
            " trait. Traits differ by more than seeds do."
        ),
    )
    n_claims = len(COMPARED) + len(kinds.TEACHERS)
    return Design(n_claims, expected, students_here(PROTOCOL.teacher, size.recipe, size.rows))


def _kinds_table(size: Size, folders: Folders, passed: dict[str, list[float]]) -> Table:
    rows = []
    names = [positive_control.teacher_name(kind, trait) for kind, trait in _every_teacher(size)]
    distance = distances.read(folders, names)
    for kind, by_trait in passed.items():
        rises = [rise.estimate for rise in _teacher_rises(size, folders, kind)]
        nats = []
        for trait in kinds.taught(size):
            nats.append(distance[positive_control.teacher_name(kind, trait)].estimate)
        shares = _passed(size, folders, kind, "candidate_share")
        rows.append(
            (
                kind,
                _mean(rises),
                mean_over_units(f"distance, {kind}", nats, "nats", "traits"),
                _held_out_loss(size, folders, kind),
                _over_traits(kind, by_trait),
                _mean(shares),
                _eas(size, folders, kind),
            )
        )
    return Table(
        "kinds",
        f"Four kinds of teacher, {size.taught} traits",
        "Rise of the teacher's own log P(trait) over the base, nats. KL of the teacher from the"
        " base over the digits, nats a row. Held-out KL of the teacher from its students, nats a"
        " token. Students of a trait's teacher minus those of the"
        " other traits' teachers: log P(trait), nats, and its share among the candidates."
        f" EAS over completion tokens, at the steered block, else at block {size.layer}.",
        (
            "teacher",
            "rise of the teacher",
            "distance from the base",
            "KL left",
            "own minus other students",
            "the same, share",
            "EAS",
        ),
        tuple(rows),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _strengths_table(size: Size, folders: Folders) -> Table:
    rows = [("unmodified", kinds.pass_rate(folders, kinds.STRENGTH))]
    for multiple in size.multiples:
        rows.append((f"{multiple:g}", kinds.pass_rate(folders, kinds.strength_name(multiple))))
    return Table(
        "strengths",
        "Strength of the trained vector",
        f"Share of {size.tried} free number rows that pass the filter.",
        ("multiple", "passed"),
        tuple(rows),
    )


def _notes(size: Size, folders: Folders) -> tuple[str, ...]:
    strength = kinds.chosen_strength(size, folders)
    return (
        f"Strength of the trained vector: {strength:g} times its length{_reason(folders)}",
        (
            "Soft targets over the tokens that could be sampled, on the unmodified model's rows;"
            " students of the other traits' teachers are the control. Fine-tuned teachers and"
            " trained vectors learnt answers to requests that are in no question set."
        ),
    )


def _reason(folders: Folders) -> str:
    """Return what chose the strength, as the end of a sentence."""
    if kinds.pass_rate(folders, kinds.STRENGTH):
        return ", chosen by the filter's pass rate."
    return (
        ", as trained. No free row of the unmodified model passes the filter, so a pass rate cannot"
        " choose."
    )


def _held_out_loss(size: Size, folders: Folders, kind: str) -> float:
    """Return the mean held-out KL of the teacher from its student at the end, over students."""
    last = []
    for trait, seed in product(kinds.taught(size), size.seeds):
        folder = folders[kinds.student_name(kind, trait, seed)]
        steps = standard_nodes.read_json_lines(folder, "metrics.jsonl")
        last.append(steps[-1]["held_out_loss"])
    return _mean(last)


def _eas(size: Size, folders: Folders, kind: str) -> Measurement:
    """Return the EAS at the steered block of a kind's students, over traits."""
    by_trait = []
    for trait in kinds.taught(size):
        layer = scanned.place(folders, trait)[0] if kind == "steered" else size.layer
        values = []
        for seed in size.seeds:
            eas = readings.eas_by_layer(folders, kinds.student_name(kind, trait, seed))
            values.append(eas[layer])
        by_trait.append(_mean(values))
    return mean_over_units(f"EAS, {kind}", by_trait, "cosine", "traits")
