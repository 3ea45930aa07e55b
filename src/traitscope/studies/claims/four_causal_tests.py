"""Is the vector what carries the trait?  The four causal tests of Blank et al. 2026 (arXiv
2606.00995, section 3.2).

    v_student sufficiency    the base with v_student added                  names the trait more
                             often
    v_student necessity      the student with the base's component of it    names it less often
    v_teacher sufficiency    a student of a teacher that is only steered    takes the trait on
    v_teacher necessity      a student of the prompted teacher with v_teacher projected out while it
                             speaks    does not

The tests of v_student are made on students of a prompted teacher, as published, and of a steered
one. Each stands beside the same edit with a random vector of the same norm and with another
trait's. One sampler, one scorer, one context for all; every student reads the same rows of the
unmodified model under the teacher's whole distribution.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product

from traitscope.config.analysis import ExtractConfig
from traitscope.config.recipe import Recipe
from traitscope.data.traits import load_trait
from traitscope.reporting.verdict import Findings, Sheet, judged
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Is the vector what carries the trait?"
CLAIM = (
    "v_student and v_teacher are each sufficient and necessary for the trait's transfer, at least"
    " in part."
)
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 3, figure 3"
PUBLISHED = (
    "Qwen2.5-7B, cat: v_student raises the base towards the student's rate and its replacement"
    " removes more than half of it; steered generation transfers the trait; projecting v_teacher"
    " out of the prompted teacher removes nearly all transfer."
)
SMALL = 0.05
"nats that would not matter"
VECTORS = ("own", "other", "random")
CONTROLS = {"random": "a random vector of the same norm", "other": "another trait's vector"}
TAUGHT = ("prompted", "steered")
"teachers whose students are looked into: the published tests are on prompted ones"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    trait: str
    other: str
    traits: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: int
    numbers: int
    layer: int = sizes.layer_field()
    strength: float
    "of the steered teacher, in mean residual norms"
    blocks: tuple[int, ...] = sizes.layer_field()
    "blocks at which a component is removed or replaced"
    recipe: Recipe
    text: sizes.SampledText


SOFT = Recipe(
    targets="soft", epochs=6, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.0
)
MORE = ("otter", "dolphin", "elephant", "fox", "penguin", "wolf")
SIZES = {
    "smoke": Size("cat", "owl", (), (1, 2), 3, 3, 1, 0.6, (0, 1), SOFT, sizes.SMOKE_TEXT),
    "laptop": Size(
        "cat",
        "owl",
        MORE,
        (1, 2, 3),
        9,
        12,
        14,
        0.6,
        tuple(range(30)),
        SOFT,
        sizes.LAPTOP_TEXT,
    ),
    "full": Size(
        "cat",
        "owl",
        MORE,
        (1, 2, 3, 4, 5),
        512,
        10,
        14,
        0.6,
        tuple(range(30)),
        SOFT,
        sizes.FULL_TEXT,
    ),
}


TEACHERS = (
    "prompted.own",
    "prompted.other",
    *(f"{kind}.{which}" for kind in ("steered", "ablated") for which in VECTORS),
)


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors of teacher and students, random ones like them, students of eight teachers,
    everything measured."""
    found = [
        standard_nodes.vectors(common, (size.trait, size.other, *size.traits)),
        Node(
            "random",
            ExtractConfig,
            partial(
                _random,
                common,
                standard_nodes.VECTORS,
                f"{load_trait(size.trait).name}.safetensors",
            ),
            (standard_nodes.VECTORS,),
            1,
        ),
        standard_nodes.answers(common, "base", size.trait),
        standard_nodes.eas_rows(common, size.text.rows.numbers),
    ]
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=51)
        found.append(standard_nodes.number_rows(common, f"rows.{seed}", rows))
        for teacher in TEACHERS:
            name, told = f"student.{teacher}.{seed}", partial(_teacher, size, teacher)
            asked = standard_nodes.Student(
                name, f"rows.{seed}", size.recipe, seed, told, (standard_nodes.VECTORS, "random")
            )
            found.append(standard_nodes.student(common, asked, rows.tokens))
            found.append(
                standard_nodes.answers(
                    common,
                    f"answers.{teacher}.{seed}",
                    size.trait,
                    standard_nodes.trained_by(name),
                    (name,),
                )
            )
        for kind in TAUGHT:
            found += _looked_into(size, common, kind, seed)
        found += shared_nodes.sampled_text(
            common,
            size.text,
            size.trait,
            seed,
            partial(_teacher, size, "steered.own"),
            (standard_nodes.VECTORS, "random"),
        )
    return found


def _random(common: dict, node: str, name: str, folders: Folders) -> ExtractConfig:
    return ExtractConfig(**common, like=folders[node] / name)


def _teacher(size: Size, teacher: str, folders: Folders) -> tuple[str, ...]:
    kind, which = teacher.split(".")
    if kind == "prompted":
        return (standard_nodes.prompted(size.trait if which == "own" else size.other),)
    vector = folders["random"] / "random-0.safetensors"
    if which != "random":
        vector = standard_nodes.vector_of(folders, size.trait if which == "own" else size.other)
    if kind == "steered":
        return (standard_nodes.steered(vector, size.layer, size.strength),)
    return (standard_nodes.prompted(size.trait), f"ablate:{vector},layers={_joined(size)}")


def _joined(size: Size) -> str:
    return "+".join(map(str, size.blocks))


def _looked_into(size: Size, common: dict, kind: str, seed: int) -> list[Node]:
    """v_student of a teacher's student, of the other trait's student, and a random one; added and
    replaced."""
    own, student = f"v_student.{kind}.own.{seed}", f"student.{kind}.own.{seed}"
    found = [_extracted(common, f"{kind}.{which}", seed) for which in ("own", "other")]
    random = partial(_random, common, own, "v_student.safetensors")
    found.append(Node(f"v_student.{kind}.random.{seed}", ExtractConfig, random, (own,), 1))
    for which in VECTORS:
        needs, edited = (
            (f"v_student.{kind}.{which}.{seed}", student),
            partial(_edited, size, kind, which, seed),
        )
        for edit in ("added", "replaced"):
            found.append(
                standard_nodes.answers(
                    common,
                    f"{edit}.{kind}.{which}.{seed}",
                    size.trait,
                    partial(edited, edit),
                    needs,
                )
            )
    return found


def _extracted(common: dict, which: str, seed: int) -> Node:
    student = f"student.{which}.{seed}"

    def asked(folders: Folders) -> ExtractConfig:
        return ExtractConfig(
            **common, interventions=standard_nodes.trained_by(student)(folders), n=16
        )

    return Node(f"v_student.{which}.{seed}", ExtractConfig, asked, (student,), 1500)


def _edited(
    size: Size, kind: str, which: str, seed: int, edit: str, folders: Folders
) -> tuple[str, ...]:
    name = "random-0" if which == "random" else "v_student"
    vector = folders[f"v_student.{kind}.{which}.{seed}"] / f"{name}.safetensors"
    if edit == "added":
        return (f"steer:{vector},layers={size.layer},alpha=1.0,scale=raw",)
    return (
        *standard_nodes.trained_by(f"student.{kind}.own.{seed}")(folders),
        f"replace:{vector},layers={_joined(size)}",
    )


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Each test as own against random and against another trait's, paired by seed and question;
    every arm minus the base."""
    between = partial(_between, size, folders)
    edits = [f"{edit}.{kind}" for kind in TAUGHT for edit in ("added", "replaced")]
    taught = ["answers.steered", "answers.ablated"]
    arms = [
        "answers.prompted.own",
        *(f"{group}.{which}" for group in (*edits, *taught) for which in VECTORS),
    ]
    rises = {arm.removeprefix("answers."): between(arm, "base", arm) for arm in arms}
    shares = [between(arm, "base", arm, "candidate_share") for arm in arms]
    verdicts = []
    for kind, (control, words) in product(TAUGHT, CONTROLS.items()):
        of = f"a {kind} teacher's student"
        verdicts += [
            judged(
                f"v_student of {of} is sufficient: added to the base it raises the trait more than"
                f" {words}.",
                between(
                    f"added.{kind}.own",
                    f"added.{kind}.{control}",
                    f"v_student of {of} added, own minus {control}",
                ),
                model,
                0,
                SMALL,
            ),
            judged(
                f"v_student of {of} is necessary: giving its component back to the base lowers the"
                f" trait more than {words}.",
                between(
                    f"replaced.{kind}.{control}",
                    f"replaced.{kind}.own",
                    f"v_student of {of} replaced, {control} minus own",
                ),
                model,
                0,
                SMALL,
            ),
        ]
    for control, words in CONTROLS.items():
        verdicts += [
            judged(
                "v_teacher is sufficient: students of a teacher steered by it take the trait on"
                f" more than by {words}.",
                between(
                    "answers.steered.own",
                    f"answers.steered.{control}",
                    f"steered teacher, own minus {control}",
                ),
                model,
                0,
                SMALL,
            ),
            judged(
                "v_teacher is necessary: projecting it out of the prompted teacher lowers transfer"
                f" more than projecting out {words}.",
                between(
                    f"answers.ablated.{control}",
                    "answers.ablated.own",
                    f"projected out, {control} minus own",
                ),
                model,
                0,
                SMALL,
            ),
        ]
    still = [kind for kind in TAUGHT if not rises[f"{kind}.own"].low > 0]
    caption = (
        "Log-probability of the trait's word on the positive questions, nats, and its share among"
        " the candidates, which a mere taste for animals does not raise; 95 % intervals over seeds."
    )
    rows = tuple(
        (arm, rise, share) for (arm, rise), share in zip(rises.items(), shares, strict=True)
    )
    sheet = Sheet(
        "arms", "Every arm minus the base", caption, ("arm", "minus base", "share minus base"), rows
    )
    notes = (
        (
            "Soft targets stand in for sampled text; a student distilled from the unmodified model"
            " has no gradient, so the clean student is the base itself and `minus base` is the"
            " comparison with it. The sufficiency of v_teacher is repeated with sampled text and"
            " its own control students."
        ),
        (
            f"v_student is added at block {size.layer} as it is; components are replaced and"
            f" projected out at all {len(size.blocks)} blocks."
        ),
        *(
            f"The {kind} teacher's students did not take the trait on: tests of necessity on them"
            " had nothing to remove."
            for kind in still
        ),
    )
    return Findings(
        tuple(verdicts),
        (readings.sampled_text_rise(folders, size.trait, size.seeds),),
        (sheet,),
        notes,
    )


def _between(
    size: Size, folders: Folders, left: str, right: str, name: str, score: str = "target_logprob"
) -> Measurement:
    """Mean of left - right over seeds and questions; `base` is the same for every seed."""
    pairs = ((s, *(n if n == "base" else f"{n}.{s}" for n in (left, right))) for s in size.seeds)
    return readings.rise(folders, name, pairs, score)
