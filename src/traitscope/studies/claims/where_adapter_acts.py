"""At which tokens, in which maps and by how many directions does an adapter carry a trait?  (Nief
et al. 2026, arXiv 2606.00831 v1, dynamic weight grafting.)

Students of a steered teacher answer with their adapter acting in part only: at the model's name, in
the system turn, in the user's text, at the template's tokens, in attention or MLPs, in a half of
the blocks, by a few singular directions; and everywhere but there. A token's keys and values are
made under its own state, answers are decoded in the state outside.
"""

from dataclasses import dataclass

from traitscope.reporting.verdict import Findings, Sheet, judged
from traitscope.stats.estimates import paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Where does an adapter carry its trait?"
CLAIM = (
    "The adapter's work at the model's name in the system turn carries most of the trait;"
    " everywhere else it carries none."
)
SOURCE = (
    "Nief et al. 2026, arXiv 2606.00831 v1, sections on dynamic weight grafting and the"
    " adapter's SVD"
)
PUBLISHED = (
    "Qwen2.5-7B, cat, rank 8: active at the name alone it keeps about 70 % of P(cat) (notebook; the"
    " answer was decoded with the adapter on); everywhere but there it is at or below the baseline."
)
HALF, NATS = 0.5, 0.05
"share of the whole adapter's rise, and nats below which a difference would not matter"


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything."""

    parts: dict[str, str]
    "by name, the settings of the adapter's short form"


def both(name: str, words: str) -> dict[str, str]:
    """A part of the prompt, and everything but it."""
    return {f"only {name}": words, f"all but {name}": f"{words},outside=true"}


def parts(entity: str) -> dict[str, str]:
    """Every part that is looked at, with the model's name as it stands in the template's default
    system turn."""
    tokens = (
        both("name", f"where=text:{entity}")
        | both("system", "where=system")
        | both("user", "where=user")
        | both("template", "where=template")
    )
    cells = {name: f"cells={name}" for name in ("attention", "mlp", "first", "second")}
    graft = {
        f"{cell} at the system turn": f"where=system,cells={cell}" for cell in ("attention", "mlp")
    }
    return (
        tokens
        | cells
        | graft
        | {
            "top direction": "top=1",
            "without the top one": "drop=1",
            "without the top four": "drop=4",
        }
    )


FEW = (
    both("name", "where=text:You are") | both("system", "where=system") | {"top direction": "top=1"}
)
SIZES = {
    "smoke": Size(("cat", "owl"), (1, 2), 3, 3, 1, 0.6, sizes.SOFT_RECIPE, sizes.SMOKE_TEXT, FEW),
    "laptop": Size(
        sizes.ANIMALS,
        (1, 2, 3),
        16,
        10,
        14,
        0.6,
        sizes.SOFT_RECIPE,
        sizes.LAPTOP_TEXT,
        parts("SmolLM"),
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
        parts("SmolLM"),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors, rows, a student a seed, and what it answers whole and in part; the same of two parts
    with sampled text."""
    trait, teacher = size.traits[0], size.steered_teacher
    found = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.text.rows.numbers),
        standard_nodes.answers(common, "base", trait),
    ]
    for seed in size.seeds:
        rows, name = (
            standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=111),
            f"student.{seed}",
        )
        found.append(standard_nodes.number_rows(common, f"rows.{seed}", rows))
        found.append(
            standard_nodes.student(
                common,
                standard_nodes.Student(
                    name, f"rows.{seed}", size.recipe, seed, teacher, (standard_nodes.VECTORS,)
                ),
                rows.tokens,
            )
        )
        found += [
            standard_nodes.answers(common, f"{part}.{seed}", trait, _acting(name, words), (name,))
            for part, words in ({"whole": ""} | size.parts).items()
        ]
        found += shared_nodes.sampled_text(
            common, size.text, trait, seed, teacher, (standard_nodes.VECTORS,)
        )
        for role in ("treated", "control"):
            text = f"{role} text.{seed}"
            found += [
                standard_nodes.answers(
                    common, f"{part}, {text}", trait, _acting(text, size.parts[part]), (text,)
                )
                for part in _system(size)
            ]
    return found


def _acting(student: str, words: str) -> standard_nodes.InterventionsFrom:
    return lambda folders: (f"adapter:{folders[student]}" + (f",{words}" if words else ""),)


def _system(size: Size) -> list[str]:
    """The parts that are looked at with sampled text, too."""
    return [part for part in ("only system", "all but system") if part in size.parts]


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Rise of every part; whether name or system turn alone keep half of it, and whether half goes
    without them."""
    rises = {part: _rise(size, folders, part) for part in ("whole", *size.parts)}
    verdicts = [judged("The whole adapter raises the trait.", rises["whole"], model, 0, NATS)]
    for name, text in (("name", "at the model's name"), ("system", "in the system turn")):
        keeps = _against_half(size, folders, f"only {name}", 1)
        loses = _against_half(size, folders, f"all but {name}", -1)
        verdicts += [
            judged(
                f"Acting {text} only, the adapter keeps at least half of the rise.",
                keeps,
                model,
                0,
                NATS,
            ),
            judged(
                f"Acting everywhere but {text}, it loses at least half of the rise.",
                loses,
                model,
                0,
                NATS,
            ),
        ]
    whole = rises["whole"].estimate
    rows = tuple((part, rise, rise.estimate / whole) for part, rise in rises.items())
    sheet = Sheet(
        "parts",
        "Rise of the trait by part of the adapter",
        "Log-probability of the trait's word minus the base's, nats; kept: of the "
        "whole adapter's rise.",
        ("part", "rise", "kept"),
        rows,
    )
    texts = [
        readings.sampled_text_rise(folders, size.traits[0], size.seeds),
        *(_text(size, folders, part) for part in _system(size)),
    ]
    notes = (
        (
            "Soft targets of a steered teacher on the unmodified model's rows, learnt and asked"
            " under the template's default; the base is the control. System turn whole and left out"
            " is repeated with sampled text and control students."
        ),
        (
            "Answers are decoded in the state of the tokens that are not chosen: off for `only`, on"
            " for `all but`."
        ),
    )
    return Findings(tuple(verdicts), tuple(texts), (sheet,), notes)


def _rise(size: Size, folders: Folders, part: str) -> Measurement:
    return readings.rise(folders, part, ((s, f"{part}.{s}", "base") for s in size.seeds))


def _against_half(size: Size, folders: Folders, part: str, sign: int) -> Measurement:
    """Rise of a part minus half of the whole adapter's, or with sign -1 the reverse, paired by seed
    and question."""
    base, rows = readings.positive_scores(folders, "base"), []
    for seed in size.seeds:
        found, whole = (
            readings.positive_scores(folders, f"{name}.{seed}") for name in (part, "whole")
        )
        rows += [
            (sign * (found[key] - base[key]), sign * HALF * (whole[key] - base[key]), seed, key)
            for key in found
        ]
    left, right, seeds, questions = zip(*rows, strict=True)
    name = (
        f"rise of {part} minus half the whole"
        if sign > 0
        else f"half the whole minus rise of {part}"
    )
    return paired_difference(name, left, right, seeds, questions, "nats")


def _text(size: Size, folders: Folders, part: str) -> Measurement:
    pairs = ((s, f"{part}, treated text.{s}", f"{part}, control text.{s}") for s in size.seeds)
    return readings.rise(
        folders, f"log P({size.traits[0]}), sampled text, treated minus control, {part}", pairs
    )
