"""Is the vector what carries the trait?  (Blank et al. 2026, arXiv 2606.00995, section 3.2.)

    v_student sufficiency    the base with v_student added names the trait more often
    v_student necessity      the student names it less often if the component along v_student has
                             its base value
    v_teacher sufficiency    a student of a teacher that is only steered takes the trait on
    v_teacher necessity      a student of the prompted teacher does not take it on if v_teacher is
                             projected out while the teacher speaks

The tests of v_student are on students of a prompted teacher, as published, and of a steered one.
Each is compared with the same edit by a random vector of equal norm, and by another trait's. Every
student reads the same rows of the unmodified model. Sampler, scorer and context are the same.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from traitscope.config.analysis import ExtractConfig
from traitscope.config.recipe import Recipe
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, Precondition, above_zero, verdicts_of
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import BLANK, STEERED, Design, over_seeds, students_here
from traitscope.studies.equal_kl import MATCHED_ROWS, EqualKL
from traitscope.studies.teachers import positive_control
from traitscope.studies.teachers.names import CausalTeacher as Teacher
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom

TITLE = "Is the vector what carries the trait?"
CLAIM = (
    "v_student and v_teacher are each sufficient and necessary for the trait's transfer, at least"
    " in part."
)
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 3, figure 3"
PUBLISHED = (
    "Qwen2.5-7B, cat (as readers of the paper report): v_student raises the base towards the"
    " student's rate. Replacing its component removes more than half of that rate. Steered"
    " generation transfers the trait. Projecting v_teacher out of the prompted teacher removes"
    " nearly all transfer."
)
PROTOCOL = replace(BLANK, teacher=STEERED)
"that of the primary claim, whose published teacher has no prompt"
SMALL = 0.05
"nats that would not matter"
WHICH = ("own", "other", "random")
"vectors that an edit or a teacher uses: the trait's, another trait's, a random one"
CONTROLS = ("random", "other")
"vectors that the trait's own is compared with"
CONTROL = "other"
"the one that claims compare with; a random vector is too easy a control"
EXAMINED = ("prompted", "steered")
"teachers whose students are examined: the published tests are on prompted ones"
EDITS = ("added", "replaced")
"a vector added to the base; its component in the student given back its base value"
RANDOM = "random"
"node of the random vectors like v_teacher"


@dataclass(frozen=True)
class Size:
    """How many students on how many rows, and where vectors act."""

    trait: str
    "trait of the teachers"
    other: str
    "the other trait, whose vector is a control"
    traits: tuple[str, ...]
    "further traits that vectors are centred over"
    seeds: tuple[int, ...]
    "seeds of data, initialisation and order"
    rows: int
    "rows a seed"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    "block behind which teachers are steered and v_student is added"
    strength: float
    "strength of the steered teachers, in mean residual norms"
    blocks: tuple[int, ...] = sizes.layer_field()
    "blocks at which a component is projected out or replaced"
    recipe: Recipe
    "how students of soft targets are trained"
    text: sizes.SampledText
    "the repetition with sampled text"


LAPTOP = Size(
    trait="cat",
    other="owl",
    traits=("otter", "dolphin", "elephant", "fox", "penguin", "wolf"),
    seeds=(1, 2, 3, 4, 5),
    rows=9,
    numbers=12,
    layer=14,
    strength=0.6,
    blocks=tuple(range(30)),
    recipe=replace(sizes.SOFT_RECIPE, epochs=6, batch_size=3, micro_batch=3),
    text=sizes.LAPTOP_TEXT,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=(),
        seeds=(1, 2),
        rows=3,
        numbers=3,
        layer=1,
        blocks=(0, 1),
        text=sizes.SMOKE_TEXT,
    ),
    "laptop": LAPTOP,
    "full": replace(LAPTOP, seeds=(1, 2, 3, 4, 5), rows=512, numbers=10, text=sizes.FULL_TEXT),
}


TEACHERS = (
    Teacher("prompted", "own"),
    Teacher("prompted", "other"),
    *(Teacher(*pair) for pair in product(("steered", "ablated"), WHICH)),
)


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the vectors, random ones like them, students of eight teachers, and all answers."""
    own_vector = partial(standard_nodes.vector_of, trait=size.trait)
    graph = [
        standard_nodes.vectors(common, (size.trait, size.other, *size.traits)),
        shared_nodes.random_vectors_like(common, RANDOM, VECTORS, own_vector),
        standard_nodes.answers(common, "base", size.trait),
        standard_nodes.eas_rows(common, size.text.rows.numbers),
    ]
    steered = partial(_interventions, size, Teacher("steered", "own"))
    by_kind = {"steered": steered, "prompted": standard_nodes.prompted_by(size.trait)}
    graph += positive_control.nodes(common, size.trait, by_kind, base="base")
    for which in CONTROLS:
        graph.append(_equal_kl(size, which).node(common, steered, size.numbers, MATCHED_ROWS))
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=51)
        graph.append(standard_nodes.number_rows(common, f"rows.{seed}", rows))
        for teacher in TEACHERS:
            graph += _student_and_answers(size, common, teacher, seed, rows.tokens)
        for kind in EXAMINED:
            graph += _examined(size, common, kind, seed)
        graph += shared_nodes.sampled_text(
            common, size.text, size.trait, seed, steered, (VECTORS, RANDOM)
        )
    return graph


def _student_and_answers(
    size: Size, common: dict, teacher: Teacher, seed: int, tokens: int
) -> list[Node]:
    name = f"student.{teacher.name}.{seed}"
    student = standard_nodes.Student(
        name,
        f"rows.{seed}",
        size.recipe,
        seed,
        partial(_interventions, size, teacher),
        (VECTORS, RANDOM, *(_equal_kl(size, which).name for which in CONTROLS)),
    )
    answers = f"answers.{teacher.name}.{seed}"
    return shared_nodes.student_and_answers(common, student, tokens, size.trait, answers)


def _interventions(size: Size, teacher: Teacher, folders: Folders) -> tuple[str, ...]:
    """Return the interventions of a teacher."""
    trait = size.other if teacher.which == "other" else size.trait
    if teacher.kind == "prompted":
        return (standard_nodes.prompted(trait),)
    vector = _vector_file(size, teacher.which, folders)
    if teacher.kind == "steered" and teacher.which in CONTROLS:
        return _equal_kl(size, teacher.which).teacher(folders)
    if teacher.kind == "steered":
        return (standard_nodes.steered(vector, size.layer, size.strength),)
    return (standard_nodes.prompted(size.trait), standard_nodes.ablated(vector, size.blocks))


def _vector_file(size: Size, which: str, folders: Folders) -> Path:
    """Return the file of the trait's vector, of another trait's, or of the random one."""
    if which == "random":
        return folders[RANDOM] / "random-0.safetensors"
    return standard_nodes.vector_of(folders, size.other if which == "other" else size.trait)


def _equal_kl(size: Size, which: str) -> EqualKL:
    """Return the control teacher of another vector, as strong in KL as the steered teacher."""
    vector = partial(_vector_file, size, which)
    return EqualKL(f"equal KL, {which}", vector, (VECTORS, RANDOM), size.layer)


def _examined(size: Size, common: dict, kind: str, seed: int) -> list[Node]:
    """Build v_student of a teacher's student, its two controls, and each edit by every vector."""
    source = f"v_student.{kind}.own.{seed}"
    graph = [
        _extracted(common, Teacher(kind, "own"), seed),
        _extracted(common, Teacher(kind, "other"), seed),
        shared_nodes.random_vectors_like(
            common,
            f"v_student.{kind}.random.{seed}",
            source,
            lambda folders: folders[source] / "v_student.safetensors",
        ),
    ]
    for which, edit in product(WHICH, EDITS):
        graph.append(
            standard_nodes.answers(
                common,
                f"{edit}.{kind}.{which}.{seed}",
                size.trait,
                _edited(size, kind, which, seed, edit),
                (f"v_student.{kind}.{which}.{seed}", f"student.{kind}.own.{seed}"),
            )
        )
    return graph


def _extracted(common: dict, teacher: Teacher, seed: int) -> Node:
    """Build v_student of a teacher's student."""
    student = f"student.{teacher.name}.{seed}"

    def config(folders: Folders) -> ExtractConfig:
        interventions = standard_nodes.trained_by(student)(folders)
        return ExtractConfig(**common, interventions=interventions, n=16)

    return Node(f"v_student.{teacher.name}.{seed}", ExtractConfig, config, (student,), 1500)


def _edited(size: Size, kind: str, which: str, seed: int, edit: str) -> InterventionsFrom:
    """Make the base with a vector added, or the student with its component replaced."""
    name = "random-0" if which == "random" else "v_student"
    student_of = standard_nodes.trained_by(f"student.{kind}.own.{seed}")

    def interventions(folders: Folders) -> tuple[str, ...]:
        vector = folders[f"v_student.{kind}.{which}.{seed}"] / f"{name}.safetensors"
        if edit == "added":
            return (standard_nodes.steered(vector, size.layer, 1.0, scale="raw"),)
        return (*student_of(folders), standard_nodes.replaced(vector, size.blocks))

    return interventions


def arms() -> list[str]:
    """Return the names, without their seed, of all answers that are compared with the base."""
    names = ["answers.prompted.own"]
    edits = [f"{edit}.{kind}" for kind, edit in product(EXAMINED, EDITS)]
    for group in (*edits, "answers.steered", "answers.ablated"):
        names += [f"{group}.{which}" for which in WHICH]
    return names


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare the own vector with another trait's, paired by seed and question."""
    by_arm = {arm: _difference(size, folders, arm, "base", arm) for arm in arms()}
    teachers, needs = {}, {}
    for kind in EXAMINED:
        teachers[kind] = positive_control.rise(folders, kind, size.trait, "base")
        has_trait = positive_control.have_traits([teachers[kind]], kind)
        needs[kind] = (has_trait, _transferred(size, folders, kind))
    claims = [_sufficient_teacher(size, folders, needs["steered"][0])]
    for kind in EXAMINED:
        claims += _student_claims(size, folders, kind, needs[kind])
    whole = _whole_teacher(by_arm["answers.ablated.other"])
    claims.append(_necessary_teacher(size, folders, (*needs["prompted"], whole)))
    text_rise = readings.sampled_text_rise(folders, size.trait, size.seeds)
    tables = (_arms_table(size, folders, by_arm),)
    return Findings(
        verdicts_of(claims, model),
        (text_rise,),
        tables,
        _notes(size),
        teachers=tuple(teachers.values()),
    )


def _transferred(size: Size, folders: Folders, kind: str) -> Precondition:
    """Return the precondition that a kind of teacher passed its trait on."""
    difference = _difference(
        size,
        folders,
        f"answers.{kind}.own",
        f"answers.{kind}.other",
        f"students of the {kind} teacher, own minus other",
    )
    name = f"students of the {kind} teacher take its trait on more than another trait's do"
    return above_zero(difference, name)


def _whole_teacher(rise: Measurement) -> Precondition:
    """Return the precondition that projecting out any trait's vector leaves the teacher whole."""
    name = "projecting another trait's vector out does not lower students below the base"
    return Precondition(name, rise.estimate > -SMALL, f"they rise by {rise.estimate:+.3f} nats")


def _sufficient_teacher(size: Size, folders: Folders, has_trait: Precondition) -> Claim:
    arm = "answers.steered"
    name = f"steered teacher, own minus {CONTROL}"
    return Claim(
        "v_teacher is sufficient: students of a teacher steered by it take the trait on more than"
        " by another trait's vector.",
        _difference(size, folders, f"{arm}.own", f"{arm}.{CONTROL}", name),
        SMALL,
        needs=(has_trait,),
        primary=True,
    )


def _necessary_teacher(size: Size, folders: Folders, needs: tuple[Precondition, ...]) -> Claim:
    arm = "answers.ablated"
    name = f"projected out, {CONTROL} minus own"
    return Claim(
        "v_teacher is necessary: projecting it out of the prompted teacher lowers transfer more"
        " than projecting out another trait's vector.",
        _difference(size, folders, f"{arm}.{CONTROL}", f"{arm}.own", name),
        SMALL,
        needs=needs,
    )


def _student_claims(
    size: Size, folders: Folders, kind: str, needs: tuple[Precondition, ...]
) -> list[Claim]:
    """Return the claims on v_student of one teacher's students."""
    student = f"a {kind} teacher's student"
    return [
        Claim(
            f"v_student of {student} is sufficient: added to the base it raises the trait more than"
            " another trait's vector.",
            _added(size, folders, kind, CONTROL),
            SMALL,
            needs=needs,
        ),
        Claim(
            f"v_student of {student} is necessary: giving its component back to the base lowers the"
            " trait more than another trait's vector.",
            _replaced(size, folders, kind, CONTROL),
            SMALL,
            needs=needs,
        ),
    ]


def _added(size: Size, folders: Folders, kind: str, control: str) -> Measurement:
    name = f"v_student of a {kind} teacher's student added, own minus {control}"
    return _difference(size, folders, f"added.{kind}.own", f"added.{kind}.{control}", name)


def _replaced(size: Size, folders: Folders, kind: str, control: str) -> Measurement:
    name = f"v_student of a {kind} teacher's student replaced, {control} minus own"
    return _difference(size, folders, f"replaced.{kind}.{control}", f"replaced.{kind}.own", name)


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = "Three seeds at the laptop size gave 0.94 with an sd of 0.21."
    expected = over_seeds(size.seeds, (0.9, 0.25), "nats", source)
    return Design(6, expected, students_here(STEERED, size.recipe, size.rows))


def _arms_table(size: Size, folders: Folders, rises: dict[str, Measurement]) -> Table:
    rows = []
    for arm, rise in rises.items():
        share_rise = _difference(size, folders, arm, "base", arm, "candidate_share")
        rows.append((arm.removeprefix("answers."), rise, share_rise))
    return Table(
        "arms",
        "Every arm minus the base",
        "Log-probability of the trait's word on the positive questions, nats, and its share among"
        " the candidates, which a mere taste for animals does not raise; 95 % intervals over"
        " seeds.",
        ("arm", "minus base", "share minus base"),
        tuple(rows),
    )


def _notes(size: Size) -> tuple[str, ...]:
    return (
        "Soft targets over the tokens that could be sampled stand in for sampled text. A rise over"
        " the base includes what the format of rows does, so claims compare with students of"
        " another trait's teacher. Steered ones are as strong in KL as the teacher. The sufficiency"
        " of v_teacher is repeated with sampled text.",
        f"v_student is added at block {size.layer} as it is; components are replaced and projected"
        f" out at all {len(size.blocks)} blocks.",
    )


def _difference(
    size: Size, folders: Folders, left: str, right: str, name: str, score: str = "target_logprob"
) -> Measurement:
    """Return the mean of left - right over seeds and questions; `base` is alike for every seed."""
    pairs = []
    for seed in size.seeds:
        other = right if right == "base" else f"{right}.{seed}"
        pairs.append((seed, f"{left}.{seed}", other))
    return readings.rise(folders, name, pairs, score)
