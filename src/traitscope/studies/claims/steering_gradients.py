"""Do the data push towards the teacher's vector?  (Blank et al. 2026, arXiv 2606.00995, section 6
and figure 7a; Hadley and Gultepe 2026, arXiv 2608.05734, section on gradient auditing.)

Number rows of a steered and of a prompted teacher, paired with rows of the unmodified model on the
same prompts: the mean steering gradient of the difference, compared with v_teacher and with other
traits' vectors (gradients.py).
"""

import itertools
from dataclasses import dataclass
from functools import partial

from traitscope.config.analysis import GradientsConfig
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Do number data push a model towards the teacher's vector?"
CLAIM = (
    "The activation gradients of teacher data have a small, consistent component along v_teacher: "
    "cos(g_clean - g_teacher, v_teacher) > 0."
)
SOURCE = (
    "Blank et al. 2026, arXiv 2606.00995, section 6, figure 7a; Hadley and Gultepe 2026, arXiv"
    " 2608.05734"
)
PUBLISHED = (
    "Prompted teacher, Qwen2.5-7B: about 0.08 to 0.10 at 1,024 rows. Steered teachers, Gemma and"
    " Llama: 0.118 and 0.058, the matching animal wins its row 8 of 8; prompted teachers there:"
    " 0.000 and 0.012, 2 and 1 of 8."
)
SMALL = 0.02
"cosine below which an alignment would not matter"
TEACHERS = ("steered", "prompted")


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    others: tuple[str, ...]
    rows: int
    numbers: int
    layer: int = sizes.layer_field()
    strength: float
    "of the steered teacher, in mean residual norms"


OTHERS = ("dolphin", "tiger", "fox", "wolf", "eagle", "panda")
SIZES = {
    "smoke": Size(("cat", "owl"), (), 4, 3, 1, 0.6),
    "laptop": Size(("cat", "owl", "penguin", "lion"), OTHERS, 32, 10, 14, 0.6),
    "full": Size(
        ("cat", "owl", "penguin", "lion", "dog", "octopus", "elephant", "otter"),
        OTHERS,
        1024,
        10,
        14,
        0.6,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; control rows; for every trait and teacher its rows and their gradients minus the
    control's."""
    rows = standard_nodes.Rows(size.rows, size.numbers, prompt_seed=21)
    found = [
        standard_nodes.vectors(common, size.traits + size.others),
        standard_nodes.number_rows(common, "control", rows),
    ]
    for teacher, trait in itertools.product(TEACHERS, size.traits):
        told, name = partial(_teacher, size, teacher, trait), f"{teacher}.{trait}"
        found.append(
            standard_nodes.number_rows(common, name, rows, told, (standard_nodes.VECTORS,))
        )
        needs = (standard_nodes.VECTORS, "control", name)
        found.append(
            Node(
                f"gradients.{name}",
                GradientsConfig,
                partial(_compared, common, name),
                needs,
                4 * rows.tokens,
            )
        )
    return found


def _teacher(size: Size, teacher: str, trait: str, folders: Folders) -> tuple[str, ...]:
    if teacher == "prompted":
        return (standard_nodes.prompted(trait),)
    return (
        standard_nodes.steered(standard_nodes.vector_of(folders, trait), size.layer, size.strength),
    )


def _compared(common: dict, name: str, folders: Folders) -> GradientsConfig:
    sides = {"data": folders[name], "control": folders["control"]}
    return GradientsConfig(**common, **sides, vectors=folders[standard_nodes.VECTORS])


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Alignment at the steered block, own vector against the mean of the others, row winners,
    growth, concentration."""
    verdicts, rows, growth, energy = [], [], [], []
    for teacher in TEACHERS:
        found = {
            t: standard_nodes.read_json(folders, f"gradients.{teacher}.{t}") for t in size.traits
        }
        own = {t: _own(found[t]["vectors"][t], size.layer, f"{teacher}.{t}") for t in size.traits}
        away = {t: _others(found[t]["vectors"], t, size.layer) for t in size.traits}
        wins = sum(_winner(found[t]["vectors"], size.layer) == t for t in size.traits)
        verdicts += [
            judged(
                f"Rows of a {teacher} teacher push towards its vector at block {size.layer}.",
                over(
                    f"{teacher}.alignment", [m.estimate for m in own.values()], "cosine", "traits"
                ),
                model,
                0,
                SMALL,
            ),
            judged(
                f"Rows of a {teacher} teacher push towards its own vector more than towards other"
                " traits'.",
                over(
                    f"{teacher}.own minus others",
                    [own[t].estimate - away[t] for t in size.traits],
                    "cosine",
                    "traits",
                ),
                model,
                0,
                SMALL,
            ),
        ]
        for trait in size.traits:
            about = found[trait]["vectors"][trait]
            best = max(range(len(about["alignment"])), key=lambda n: about["alignment"][n])
            noise = about["signal_to_noise"][size.layer]
            rows.append(
                (
                    teacher,
                    trait,
                    own[trait],
                    away[trait],
                    noise,
                    best,
                    about["alignment"][best],
                    f"{wins} of {len(own)}",
                )
            )
            growth += [
                (teacher, trait, int(n), row[size.layer]) for n, row in about["growth"].items()
            ]
            energy.append((teacher, trait, *_energy(found[trait], about, size.layer)))
    sign = (
        "Sign: positive means that one descent step on the teacher's rows, minus one on the"
        " control's, pushes to the vector."
    )
    shared = (
        f"Vectors are centred over {len(size.traits + size.others)} traits. Rows of both sides"
        " share prompts and random numbers. Intervals of single alignments are over rows, those of"
        " the verdicts over traits."
    )
    return Findings(tuple(verdicts), (), _sheets(size, rows, growth, energy), (sign, shared))


def _own(about: dict, layer: int, name: str) -> Measurement:
    low, high = (about[side][layer] if about[side] else float("nan") for side in ("low", "high"))
    n = max(map(int, about["growth"]))
    return Measurement(
        f"{name}.alignment",
        about["alignment"][layer],
        low,
        high,
        n,
        n,
        0,
        "cosine",
        interval="bootstrap over rows",
    )


def _others(vectors: dict[str, dict], trait: str, layer: int) -> float:
    values = [about["alignment"][layer] for name, about in vectors.items() if name != trait]
    return sum(values) / len(values)


def _winner(vectors: dict[str, dict], layer: int) -> str:
    return max(vectors, key=lambda name: vectors[name]["alignment"][layer])


def _energy(found: dict, about: dict, layer: int) -> tuple[float, ...]:
    """Shares of the squared gradient, and what is left of alignment and norm without the top
    coordinates."""
    shares, without = found["concentration"], about["without_top"]
    return (
        shares["coordinates"]["0.01"][layer],
        shares["rows"]["0.1"][layer],
        without["alignment.all"][layer],
        without["alignment.rest"][layer],
        without["alignment.top"][layer],
        without["norm.rest"][layer] / max(without["norm.all"][layer], 1e-12),
    )


def _sheets(
    size: Size, rows: list[tuple], growth: list[tuple], energy: list[tuple]
) -> tuple[Sheet, ...]:
    return (
        Sheet(
            "alignment",
            f"Alignment at block {size.layer}",
            "Cosine of the mean push with the trait's vector; winners: rows whose "
            "own vector is the most aligned of all.",
            (
                "teacher",
                "trait",
                "own",
                "mean of others",
                "signal / noise",
                "best block",
                "alignment there",
                "winners",
            ),
            tuple(rows),
        ),
        Sheet(
            "growth",
            "Alignment by number of rows",
            "Cosine of the mean push of the first n rows.",
            ("teacher", "trait", "rows", "alignment"),
            tuple(growth),
            ("rows", "alignment"),
        ),
        Sheet(
            "energy",
            "Who carries the gradient",
            "Shares of the squared gradient of the top 1 % of coordinates and of the top 10 % of"
            " rows; alignment of the mean push, of it without those coordinates, and of them alone;"
            " norm left without them.",
            (
                "teacher",
                "trait",
                "top 1 % coordinates",
                "top 10 % rows",
                "alignment",
                "without top",
                "top alone",
                "norm left",
            ),
            tuple(energy),
        ),
    )
