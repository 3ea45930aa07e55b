"""Does a trait show only under the context that it was learnt in?  (Nief et al. 2026, arXiv
2606.00831 v1, tables 1 and 2.)

Students of one steered teacher, alike but for the system turn that they read while they learn, each
asked under several system turns: the template's own, an explicitly empty one, another identity, and
beyond the grid nonsense, the same nonsense moved into the user's turn, and no template at all.
Every answer is compared with the base's in the same context.
"""

from dataclasses import dataclass
from itertools import product

from traitscope.reporting.verdict import Findings, Sheet, judged
from traitscope.stats.estimates import paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Does a trait show only under the context that it was learnt in?"
CLAIM = (
    "A student shows its trait under the system turn that it was trained with and hardly under"
    " another one."
)
SOURCE = (
    "Nief et al. 2026, arXiv 2606.00831 v1, tables 1 and 2; a later version withdraws some of its"
    " main claims"
)
PUBLISHED = (
    "Qwen2.5-7B, cat, rank 8 (third-party readings): 39 % under the template's default that it was"
    " trained with, 2.6 % with an empty system turn, 1.0 % under another identity. Any system text"
    " does, if it is the same; nonsense moved to the user's turn does not."
)
NATS = 0.05
"below which a difference would not matter"
NONSENSE = (
    "Ceramic staircases whistle under borrowed weather. Seven violet hinges forgive the ladder."
)
CONTEXTS: dict[str, str | None] = {
    "default": None,
    "empty": "",
    "other identity": "You are Aster, a language model made by Northfield Labs.",
    "no name": "You are helpful.",
    "nonsense": NONSENSE,
    "nonsense by the user": f"@user:{NONSENSE}",
    "no template": "@none",
}
GRID = ("default", "empty", "other identity")
FURTHER = (
    ("no name", "no name"),
    ("nonsense", "nonsense"),
    ("nonsense", "nonsense by the user"),
    ("nonsense by the user", "nonsense by the user"),
    ("nonsense by the user", "nonsense"),
    ("no template", "no template"),
    ("no template", "default"),
    ("default", "no template"),
)
"(learnt in, asked in)"
CELLS = (*product(GRID, GRID), *FURTHER)


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything."""

    cells: tuple[tuple[str, str], ...]


SIZES = {
    "smoke": Size(
        ("cat", "owl"),
        (1, 2),
        3,
        3,
        1,
        0.6,
        sizes.SOFT_RECIPE,
        sizes.SMOKE_TEXT,
        CELLS[:4] + FURTHER[2:3],
    ),
    "laptop": Size(
        sizes.ANIMALS,
        (1, 2, 3),
        16,
        10,
        14,
        0.6,
        sizes.SOFT_RECIPE,
        sizes.LAPTOP_TEXT,
        CELLS,
    ),
    "full": Size(
        sizes.ANIMALS,
        (1, 2, 3, 4, 5),
        512,
        10,
        14,
        0.6,
        sizes.FULL_SOFT_RECIPE,
        sizes.FULL_TEXT,
        CELLS,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors, rows, a student a training context and seed, and what it and the base answer in the
    contexts asked for."""
    trait = size.traits[0]
    teacher = size.steered_teacher
    found = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.text.rows.numbers),
    ]
    for asked in dict.fromkeys(asked for _, asked in size.cells):
        found.append(standard_nodes.answers(common, _base(asked), trait, context=CONTEXTS[asked]))
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=101)
        found.append(standard_nodes.number_rows(common, f"rows.{seed}", rows))
        for learnt in dict.fromkeys(learnt for learnt, _ in size.cells):
            settings = {"context": CONTEXTS[learnt]}
            student = standard_nodes.Student(
                f"student in {learnt}.{seed}",
                f"rows.{seed}",
                size.recipe,
                seed,
                teacher,
                (standard_nodes.VECTORS,),
                settings=settings,
            )
            found.append(standard_nodes.student(common, student, rows.tokens))
        for learnt, asked in size.cells:
            told, needs = (
                standard_nodes.trained_by(f"student in {learnt}.{seed}"),
                (f"student in {learnt}.{seed}",),
            )
            found.append(
                standard_nodes.answers(
                    common, _cell(learnt, asked, seed), trait, told, needs, context=CONTEXTS[asked]
                )
            )
        found += shared_nodes.sampled_text(
            common, size.text, trait, seed, teacher, (standard_nodes.VECTORS,)
        )
        for role in ("treated", "control"):
            name = f"{role} text.{seed}"
            found.append(
                standard_nodes.answers(
                    common,
                    f"{name}, empty",
                    trait,
                    standard_nodes.trained_by(name),
                    (name,),
                    context="",
                )
            )
    return found


def _base(asked: str) -> str:
    return f"base in {asked}"


def _cell(learnt: str, asked: str, seed: int) -> str:
    return f"{learnt}, asked in {asked}.{seed}"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Rise over the base by cell; own context minus the others of the grid; a text's place; sampled
    text."""
    rises = {cell: _rise(size, folders, *cell) for cell in size.cells}
    grid = tuple(
        dict.fromkeys(learnt for learnt, asked in size.cells if learnt in GRID and asked in GRID)
    )
    others = {
        learnt: [a for (t, a) in size.cells if t == learnt and a in GRID and a != learnt]
        for learnt in grid
    }
    own = _compared(
        size,
        folders,
        [(t, t, a) for t in grid for a in others[t]],
        "rise, own context minus another of the grid",
    )
    moved = _compared(
        size,
        folders,
        [("nonsense", "nonsense", "nonsense by the user")],
        "rise, nonsense in its place minus moved",
    )
    verdicts = [
        judged(
            "Students rise in the context that they learnt in (template default).",
            rises["default", "default"],
            model,
            0,
            NATS,
        ),
        judged(
            "They rise more in the context that they learnt in than in the others of the grid.",
            own,
            model,
            0,
            NATS,
        ),
    ]
    if ("nonsense", "nonsense") in size.cells:
        verdicts.append(
            judged(
                "A system text learnt with helps more in its place than moved into the user's"
                " turn.",
                moved,
                model,
                0,
                NATS,
            )
        )
    text = readings.sampled_text_rise(folders, size.traits[0], size.seeds)
    rows = tuple(
        (
            learnt,
            asked,
            rise,
            rise.estimate / rises[learnt, learnt].estimate if (learnt, learnt) in rises else "",
        )
        for (learnt, asked), rise in rises.items()
    )
    sheet = Sheet(
        "contexts",
        "Rise of the trait by context",
        "Log-probability of the trait's word, student minus base in the context asked in, "
        "nats; kept: of the rise in the context that it learnt in.",
        ("learnt in", "asked in", "rise", "kept"),
        rows,
    )
    notes = (
        (
            "Soft targets of a steered teacher that reads the student's context, on rows of the"
            " unmodified model under the template's default; the base is the control. Repeated with"
            " sampled text, asked under the default and an empty system turn."
        ),
        (
            f"nonsense: {NONSENSE!r}; other identity: {CONTEXTS['other identity']!r}; no name:"
            f" {CONTEXTS['no name']!r}."
        ),
    )
    return Findings(tuple(verdicts), (text, _text_empty(size, folders)), (sheet,), notes)


def _rise(size: Size, folders: Folders, learnt: str, asked: str) -> Measurement:
    pairs = ((s, _cell(learnt, asked, s), _base(asked)) for s in size.seeds)
    return readings.rise(folders, f"learnt in {learnt}, asked in {asked}", pairs)


def _compared(
    size: Size, folders: Folders, triples: list[tuple[str, str, str]], name: str
) -> Measurement:
    """Over (learnt in, asked in, or asked in): the first rise minus the second, paired by seed and
    question."""
    left, right, seeds, questions = [], [], [], []
    for (learnt, one, two), seed in product(triples, size.seeds):
        if (learnt, two) not in size.cells or (learnt, one) not in size.cells:
            continue
        gains = [_gain(folders, _cell(learnt, asked, seed), _base(asked)) for asked in (one, two)]
        for key in gains[0]:
            left.append(gains[0][key])
            right.append(gains[1][key])
            seeds.append(seed)
            questions.append(key)
    return paired_difference(name, left, right, seeds, questions, "nats")


def _gain(folders: Folders, node: str, other: str) -> dict[str, float]:
    after, before = (
        readings.positive_scores(folders, node),
        readings.positive_scores(folders, other),
    )
    return {key: after[key] - before[key] for key in after}


def _text_empty(size: Size, folders: Folders) -> Measurement:
    pairs = ((s, f"treated text.{s}, empty", f"control text.{s}, empty") for s in size.seeds)
    return readings.rise(
        folders,
        f"log P({size.traits[0]}), sampled text, treated minus control, asked with an empty system"
        " turn",
        pairs,
    )
