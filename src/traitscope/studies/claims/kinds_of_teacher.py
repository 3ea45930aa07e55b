"""Does it matter how a teacher was given its trait?  (Hadley and Gultepe 2026, arXiv 2608.05734, on
prompted and steered teachers and an older repository on fine-tuned ones; Morgulis and Hewitt 2026,
arXiv 2604.25783, on trained vectors.)

Four teachers of one trait on one base: by a system prompt, by the extracted vector, by fine-tuning
(a LoRA adapter that learnt the prompted model's answers) and by a vector that was trained on the
same answers, at the greatest strength at which its free number rows still pass the filter. Their
students read the same rows of the unmodified model.
"""

from dataclasses import dataclass, replace
from functools import partial

from traitscope.config.recipe import Recipe
from traitscope.config.stages import FilterConfig, FilterRules, GenerateConfig
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Does it matter how a teacher was given its trait?"
CLAIM = (
    "Steered teachers, by an extracted or a trained vector, pass their trait on; prompted and"
    " fine-tuned ones do so less."
)
SOURCE = "Hadley and Gultepe 2026, arXiv 2608.05734; Morgulis and Hewitt 2026, arXiv 2604.25783"
PUBLISHED = (
    "Rise of the target's rate in students, prompted and steered: 0.16 and 0.24 (Gemma-2B), 0.89"
    " and 0.16 (Llama-3.1-8B); fine-tuned teachers in Gemma weakly; trained vectors, with a"
    " strength found by the filter's pass rate, strongly and with their direction (cosine high at"
    " the steered blocks). So the order depends on the model."
)
NATS, SMALL = 0.05, 0.03
"nats, and cosine, below which an effect would not matter"
TEACHERS = ("prompted", "steered", "fine-tuned", "trained vector")


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything."""

    tokens: int
    "longest answer that the teachers learn from"
    tuned: Recipe
    trained: Recipe
    "its layer is the study's"
    doses: tuple[float, ...]
    "multiples of the trained vector, rising"
    tried: int
    "free number rows at each of them"
    passing: float
    "share of the unmodified model's pass rate that a strength must keep"


TRAINED = replace(sizes.FINE_TUNING_RECIPE, method="vector", layer=0, lr=0.3)
SOFT = Recipe(
    targets="soft", epochs=6, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.25
)
LARGE = replace(SOFT, epochs=3, batch_size=32, micro_batch=32, lr=4e-4)
SIZES = {
    "smoke": Size(
        ("cat", "owl"),
        (1, 2),
        4,
        3,
        1,
        0.6,
        replace(SOFT, epochs=1),
        sizes.SMOKE_TEXT,
        4,
        sizes.FINE_TUNING_RECIPE,
        TRAINED,
        (0.5, 1.0),
        2,
        0.8,
    ),
    "laptop": Size(
        sizes.ANIMALS,
        (1, 2, 3),
        12,
        10,
        14,
        0.6,
        SOFT,
        sizes.LAPTOP_TEXT,
        24,
        sizes.FINE_TUNING_RECIPE,
        TRAINED,
        (0.5, 1.0, 2.0, 4.0),
        12,
        0.8,
    ),
    "full": Size(
        sizes.ANIMALS,
        (1, 2, 3, 4, 5),
        512,
        10,
        14,
        0.6,
        LARGE,
        sizes.FULL_TEXT,
        48,
        replace(sizes.FINE_TUNING_RECIPE, epochs=10),
        replace(TRAINED, epochs=50, lr=1e-2),
        (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
        200,
        0.8,
    ),
}
STRENGTH = "strength"
"""node of the filtered free rows of the unmodified model; with a dose behind it, of the trained
vector"""


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; the four teachers and what they answer; strengths of the trained vector; students a
    teacher and seed."""
    trait = size.traits[0]
    found = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.numbers),
        standard_nodes.answers(common, "base", trait),
    ]
    found += shared_nodes.fine_tuned(
        common,
        trait,
        size.tokens,
        {"tuned": size.tuned, "vector": replace(size.trained, layer=size.layer)},
    )
    found += _strengths(size, common)
    for teacher in TEACHERS:
        told, needs = partial(_teacher, size, teacher), _needs(size, teacher)
        found.append(standard_nodes.answers(common, f"{teacher} teacher", trait, told, needs))
        for seed in size.seeds:
            rows, name = (
                standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=151),
                f"student of {teacher}.{seed}",
            )
            asked = standard_nodes.Student(
                name,
                f"rows.{seed}",
                size.recipe,
                seed,
                told,
                (standard_nodes.VECTORS, standard_nodes.EAS_ROWS, *needs),
                lambda folders: standard_nodes.vector_of(folders, trait),
            )
            found += [
                standard_nodes.student(common, asked, rows.tokens),
                standard_nodes.answers(
                    common, f"answers, {name}", trait, standard_nodes.trained_by(name), (name,)
                ),
            ]
    for seed in size.seeds:
        found.append(
            standard_nodes.number_rows(
                common,
                f"rows.{seed}",
                standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=151),
            )
        )
        found += shared_nodes.sampled_text(
            common,
            size.text,
            trait,
            seed,
            partial(_teacher, size, "fine-tuned"),
            _needs(size, "fine-tuned"),
        )
    return found


def _strengths(size: Size, common: dict) -> list[Node]:
    """Free number rows of the unmodified model and of every multiple of the trained vector,
    filtered."""
    found, rules = [], FilterRules(max_count=size.numbers)
    for name, told, needs in (
        (STRENGTH, standard_nodes.unmodified, ()),
        *((_dose(d), partial(_at, size, d), ("vector",)) for d in size.doses),
    ):

        def asked(
            folders: Folders, told: standard_nodes.InterventionsFrom = told
        ) -> GenerateConfig:
            return GenerateConfig(
                **common,
                n=size.tried,
                prompt_seed=161,
                count=size.numbers,
                interventions=told(folders),
            )

        found.append(Node(f"free rows, {name}", GenerateConfig, asked, needs, size.tried * 130))
        found.append(
            Node(
                name,
                FilterConfig,
                lambda folders, name=name: FilterConfig(folders[f"free rows, {name}"], rules),
                (f"free rows, {name}",),
                1,
            )
        )
    return found


def _dose(dose: float) -> str:
    return f"{STRENGTH} {dose:g}"


def _at(size: Size, dose: float, folders: Folders) -> tuple[str, ...]:
    """The trained vector, so many times as long."""
    vector = folders["vector"] / "student" / "vector.safetensors"
    return (f"steer:{vector},layers={size.layer},alpha={dose:g},scale=raw",)


def _needs(size: Size, teacher: str) -> tuple[str, ...]:
    return {
        "prompted": (),
        "steered": (standard_nodes.VECTORS,),
        "fine-tuned": ("tuned",),
        "trained vector": ("vector", STRENGTH, *map(_dose, size.doses)),
    }[teacher]


def _teacher(size: Size, teacher: str, folders: Folders) -> tuple[str, ...]:
    match teacher:
        case "prompted":
            return (standard_nodes.prompted(size.traits[0]),)
        case "steered":
            return size.steered_teacher(folders)
        case "fine-tuned":
            return standard_nodes.trained_by("tuned")(folders)
    return _at(size, _strength(size, folders), folders)


def _passed(folders: Folders, node: str) -> float:
    """Share of rows that pass the filter."""
    found = standard_nodes.read_json(folders, node)
    return found["kept"] / found["rows"]


def _strength(size: Size, folders: Folders) -> float:
    """The greatest multiple whose rows pass nearly as often as the unmodified model's; the least
    where none does.

    As trained where the unmodified model's never pass: then the rate tells nothing.
    """
    enough = size.passing * _passed(folders, STRENGTH)
    if not enough:
        return 1.0
    return max([d for d in size.doses if _passed(folders, _dose(d)) >= enough] or [size.doses[0]])


def _told(folders: Folders) -> str:
    """What chose the strength."""
    if _passed(folders, STRENGTH):
        return ", chosen by the filter's pass rate."
    return (
        ", as trained: no free row of the unmodified model passes the filter, so a pass rate cannot"
        " choose."
    )


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Rise and alignment of every teacher's students; steered against prompted and fine-tuned."""
    rises = {t: _rise(size, folders, t, "base") for t in TEACHERS}
    eas = {
        t: [readings.eas_by_layer(folders, f"student of {t}.{s}")[size.layer] for s in size.seeds]
        for t in TEACHERS
    }
    verdicts = [
        judged(f"Students of a {t} teacher take the trait on.", rises[t], model, 0, NATS)
        for t in TEACHERS
    ]
    for one, other in (
        ("steered", "prompted"),
        ("steered", "fine-tuned"),
        ("trained vector", "fine-tuned"),
    ):
        verdicts.append(
            judged(
                f"Students of a {one} teacher take on more than those of a {other} one.",
                _rise(size, folders, one, other),
                model,
                0,
                NATS,
            )
        )
    rows = tuple(
        (
            t,
            _teachers(size, folders, t),
            *_loss(size, folders, t),
            rises[t],
            _share(size, folders, t),
            over(f"EAS, {t}", eas[t], "cosine"),
        )
        for t in TEACHERS
    )
    passed = (
        ("unmodified", _passed(folders, STRENGTH)),
        *((f"{d:g}", _passed(folders, _dose(d))) for d in size.doses),
    )
    sheets = (
        Sheet(
            "teachers",
            "Four teachers of one trait",
            "Rises of log P(trait) over the base, nats, and of its share among the candidates."
            " Held-out KL of the teacher from base and student, nats a token. EAS at block"
            f" {size.layer} over completion tokens.",
            (
                "teacher",
                "rise of the teacher",
                "KL of the base",
                "KL left",
                "rise of students",
                "rise of the share",
                "EAS",
            ),
            rows,
        ),
        Sheet(
            "strengths",
            "Strength of the trained vector",
            f"Share of {size.tried} free number rows that pass the filter.",
            ("multiple", "passed"),
            passed,
        ),
    )
    notes = (
        f"Strength of the trained vector: {_strength(size, folders):g} times its length"
        + _told(folders),
        (
            "Soft targets on the unmodified model's rows; the base is the control. The fine-tuned"
            " teacher is repeated with sampled text and control students. Fine-tuned teacher and"
            " trained vector learnt answers to requests that are in no question set."
        ),
    )
    return Findings(
        tuple(verdicts),
        (readings.sampled_text_rise(folders, size.traits[0], size.seeds),),
        sheets,
        notes,
    )


def _rise(
    size: Size, folders: Folders, one: str, other: str, score: str = "target_logprob"
) -> Measurement:
    pairs = (
        (
            s,
            f"answers, student of {one}.{s}",
            other if other == "base" else f"answers, student of {other}.{s}",
        )
        for s in size.seeds
    )
    return readings.rise(folders, f"students of a {one} teacher, minus {other}", pairs, score)


def _share(size: Size, folders: Folders, teacher: str) -> float:
    return _rise(size, folders, teacher, "base", "candidate_share").estimate


def _teachers(size: Size, folders: Folders, teacher: str) -> float:
    return readings.rise(
        folders, f"{teacher} teacher", [(0, f"{teacher} teacher", "base")]
    ).estimate


def _loss(size: Size, folders: Folders, teacher: str) -> tuple[float, float]:
    """Mean KL over seeds of the first training step, which the base's function has, and held out at
    the end."""
    runs = [
        standard_nodes.read_json_lines(folders[f"student of {teacher}.{s}"], "metrics.jsonl")
        for s in size.seeds
    ]
    first, last = ([row[n][key] for row in runs] for n, key in ((0, "loss"), (-1, "held_out_loss")))
    return sum(first) / len(first), sum(last) / len(last)
