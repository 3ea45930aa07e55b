"""Can the gradients of a data set tell which vector its teacher was steered by?  (Hadley and
Gultepe 2026, arXiv 2608.05734, section on auditing; table in their raw files.)

Number rows of steered and of prompted teachers of every trait, and of the unmodified model: the
mean push of each data set compared with every candidate vector. The candidate that is nearest wins
the row; how many rows of data a right winner takes; and the same with the push of the unmodified
model's rows subtracted, which an auditor with a reference has.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from traitscope.config.analysis import GradientsConfig
from traitscope.interventions.vector import load_vector
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Can gradients tell which vector a data set's teacher was steered by?"
CLAIM = (
    "Of candidate vectors the teacher's own is the nearest to the push of its number rows, if it"
    " was steered and not if it was prompted."
)
SOURCE = "Hadley and Gultepe 2026, arXiv 2608.05734, section on auditing"
PUBLISHED = (
    "Steered, 512 rows: cosine 0.118 with the own vector and -0.008 with others (Gemma-2B), 0.058"
    " and 0.004 (Llama-3.1-8B), winner right in 8 of 8 data sets; prompted: 0.000 and 0.012 with"
    " the own, 2 and 1 of 8. Mean activations instead: 1 of 8."
)
SMALL = 0.01
"cosine below which a difference would not matter"
TEACHERS = ("steered", "prompted")
CONTROL = "unmodified"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "candidates, and teachers"
    rows: int
    numbers: int
    layer: int = sizes.layer_field()
    strength: float
    "of the steered teachers, in mean residual norms"


SIZES = {
    "smoke": Size(("cat", "owl"), 4, 3, 1, 0.6),
    "laptop": Size(sizes.ANIMALS, 32, 10, 14, 0.6),
    "full": Size(
        (
            *sizes.ANIMALS,
            "lion",
            "eagle",
            "wolf",
            "tiger",
            "panda",
            "octopus",
            "mouse",
            "whale",
        ),
        1024,
        10,
        14,
        0.6,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; the rows of every data set on the same prompts; their pushes along every vector."""
    rows = standard_nodes.Rows(size.rows, size.numbers, prompt_seed=141)
    found = [standard_nodes.vectors(common, size.traits)]
    for name in (CONTROL, *_sets(size)):
        needs = () if name == CONTROL else (standard_nodes.VECTORS,)
        found.append(
            standard_nodes.number_rows(common, name, rows, partial(_teacher, size, name), needs)
        )
        found.append(
            Node(
                _push(name),
                GradientsConfig,
                partial(_asked, common, name),
                (standard_nodes.VECTORS, name),
                2 * rows.tokens,
            )
        )
    return found


def _sets(size: Size) -> list[str]:
    return [f"{teacher} {trait}" for teacher in TEACHERS for trait in size.traits]


def _push(name: str) -> str:
    return f"push of {name}"


def _teacher(size: Size, name: str, folders: Folders) -> tuple[str, ...]:
    if name == CONTROL:
        return ()
    teacher, trait = name.split()
    if teacher == "prompted":
        return (standard_nodes.prompted(trait),)
    return (
        standard_nodes.steered(standard_nodes.vector_of(folders, trait), size.layer, size.strength),
    )


def _asked(common: dict, name: str, folders: Folders) -> GradientsConfig:
    return GradientsConfig(**common, data=folders[name], vectors=folders[standard_nodes.VECTORS])


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Own against other cosines, right winners against chance, and both by number of rows."""
    raw = {name: _cosines(size, folders, name) for name in (CONTROL, *_sets(size))}
    minus = {name: _cosines(size, folders, name, CONTROL) for name in _sets(size)}
    chance, verdicts, measured = 1 / len(size.traits), [], []
    for teacher in TEACHERS:
        apart = [_apart(size, raw[f"{teacher} {trait}"], trait) for trait in size.traits]
        verdicts += [
            judged(
                f"Rows of a {teacher} teacher push towards its own vector more than towards the"
                " others'.",
                over(f"{teacher}: cosine, own minus others", apart, "cosine", "traits"),
                model,
                0,
                SMALL,
            ),
            judged(
                f"The winner is the teacher's own vector more often than by chance, {teacher}"
                " teachers.",
                _right(size, raw, teacher, f"{teacher}: right winners"),
                model,
                chance,
                chance,
            ),
        ]
        reference = [_apart(size, minus[f"{teacher} {trait}"], trait) for trait in size.traits]
        measured += [
            over(
                f"{teacher}, minus the unmodified rows: cosine, own minus others",
                reference,
                "cosine",
                "traits",
            ),
            _right(size, minus, teacher, f"{teacher}, minus the unmodified rows: right winners"),
        ]
    matrix = tuple(
        (name, *values, max(zip(values, size.traits, strict=True))[1])
        for name, values in raw.items()
    )
    steps = sorted({*(2**k for k in range(size.rows.bit_length())), size.rows})
    along = {name: _along(size, folders, name) for name in (CONTROL, *_sets(size))}
    needed = tuple(
        (teacher, n, *(_right_after(size, along, teacher, n, other) for other in (None, CONTROL)))
        for teacher in TEACHERS
        for n in steps
    )
    sheets = (
        Sheet(
            "matrix",
            f"Cosine of the mean push with every candidate, block {size.layer}",
            "Rows: data sets; columns: candidate vectors.",
            ("data", *size.traits, "winner"),
            matrix,
        ),
        Sheet(
            "rows",
            "Share of right winners by rows of data",
            f"First n rows of each data set; chance is {chance:.3f}.",
            ("teacher", "rows", "right", "right, minus unmodified"),
            needed,
            ("rows", "right", "right, minus unmodified"),
        ),
    )
    notes = (
        (
            "Sign: positive means that one descent step on the rows pushes towards the vector."
            " Vectors are centred over the candidates."
        ),
        (
            f"Chance: one of {len(size.traits)} candidates, {chance:.3f}. Data sets share prompts"
            " and random numbers."
        ),
    )
    return Findings(tuple(verdicts), tuple(measured), sheets, notes)


def _cosines(size: Size, folders: Folders, name: str, other: str | None = None) -> list[float]:
    """Cosine at the block of a data set's mean push, minus another's, with every candidate."""
    push_LD = load_vector(folders[_push(name)] / "push.safetensors")
    if other:
        push_LD = push_LD - load_vector(folders[_push(other)] / "push.safetensors")
    return [
        float(push_LD.cosine(load_vector(standard_nodes.vector_of(folders, t)))[size.layer])
        for t in size.traits
    ]


def _apart(size: Size, cosines: list[float], trait: str) -> float:
    """The own cosine minus the mean of the others."""
    own = cosines[size.traits.index(trait)]
    return own - (sum(cosines) - own) / (len(cosines) - 1)


def _right(size: Size, cosines: dict[str, list[float]], teacher: str, name: str) -> Measurement:
    """Share of data sets whose winner is the teacher's own vector."""
    hits = [
        float(np.argmax(cosines[f"{teacher} {trait}"]) == n) for n, trait in enumerate(size.traits)
    ]
    return measure(name, hits, unit="share")


def _along(size: Size, folders: Folders, name: str) -> np.ndarray:
    """Projections [rows, candidates] of single rows on the unit vectors at the block."""
    rows = standard_nodes.read_json_lines(folders[_push(name)], "rows.jsonl")
    return np.array([[row["along"][trait][size.layer] for trait in size.traits] for row in rows])


def _right_after(
    size: Size, along: dict[str, np.ndarray], teacher: str, n: int, other: str | None
) -> float:
    """Share of right winners from the first n rows, minus as many of another data set."""
    hits = []
    for k, trait in enumerate(size.traits):
        mean = along[f"{teacher} {trait}"][:n].mean(0)
        hits.append(np.argmax(mean - (along[other][:n].mean(0) if other else 0)) == k)
    return float(np.mean(hits))
