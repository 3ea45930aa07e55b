"""Is a trait prompt one vector?  (Blank et al. 2026, arXiv 2606.00995, section 4 and figure 5a.)

For every trait: the share of the divergence between the prompted and the neutral model that
steering with v_teacher removes (explain.py), on number rows and on the trait's own questions; then
how often the steered model names the trait, with the gates that a preference has to pass.
"""

import itertools
from dataclasses import dataclass
from math import exp, nan

from traitscope.config.analysis import ExplainConfig
from traitscope.config.stages import MeasureConfig
from traitscope.data.traits import load_trait
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.studies import sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Is a trait prompt one vector?"
CLAIM = "A system prompt that gives a model a trait is well approximated by one steering vector."
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 4, figure 5a"
PUBLISHED = (
    "No direct score is published. Steering with v_teacher names the trait at a rate that predicts"
    " transfer (AUC 0.86, Qwen2.5-7B, 16 animals); four of the sixteen cannot be steered at all."
)
HALF = 0.5
"share of the divergence that counts as `well approximated`"
GATE = 0.1
"largest rate at which a steered model may name the trait where it is not asked for"
COHERENT = 2.0
"largest perplexity on plain text, over the base's, of a cell that counts"
KINDS = ("raw", "centred", "common", "other-raw", "random-raw")


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    rows: int
    numbers: int
    questions: int
    layers: tuple[int, ...] = sizes.layer_field()
    alphas: tuple[float, ...]
    steer_alphas: tuple[float, ...]


ANIMALS = ("cat", "owl", "dolphin", "lion", "octopus", "wolf", "mouse", "pangolin")
OTHERS = ("happiness", "sadness", "anger", "pirate", "chef", "knight", "oak")
MORE = (
    "dog",
    "otter",
    "jellyfish",
    "tiger",
    "elephant",
    "fox",
    "hawk",
    "whale",
    "fear",
    "surprise",
    "astronaut",
    "poet",
    "willow",
)
RULES = ("zebra",)
SIZES = {
    "smoke": Size(("cat", "owl"), 2, 3, 2, (1,), (1.0,), (1.0,)),
    "laptop": Size(ANIMALS + OTHERS + RULES, 4, 8, 8, (6, 14, 22), (0.1, 0.3, 1.0), (1.0, 2.0)),
    "full": Size(
        ANIMALS + OTHERS + RULES + MORE,
        128,
        10,
        50,
        tuple(range(1, 30, 2)),
        (0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
        (0.5, 1.0, 2.0, 4.0),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors, neutral number rows, two explanations a trait, and a grid of steered
    measurements."""
    rows = standard_nodes.Rows(size.rows, size.numbers, prompt_seed=11)
    found = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.number_rows(common, "rows", rows),
    ]
    for trait in size.traits:
        found += _explained(size, common, trait) + _steered(size, common, trait)
    return found


def _explained(size: Size, common: dict, trait: str) -> list[Node]:
    asked = {
        "trait": trait,
        "layers": size.layers,
        "alphas": size.alphas,
        "positions": ("prompt", "all"),
    }
    cells = 2 * 2 * len(size.layers) * len(size.alphas) + 9 * len(size.alphas)

    def on_rows(folders: Folders) -> ExplainConfig:
        return ExplainConfig(
            **common, **asked, vectors=folders["vectors"], data=folders["rows"], max_rows=size.rows
        )

    def on_questions(folders: Folders) -> ExplainConfig:
        return ExplainConfig(**common, **asked, vectors=folders["vectors"], max_rows=size.questions)

    return [
        Node(
            f"numbers.{trait}",
            ExplainConfig,
            on_rows,
            ("vectors", "rows"),
            cells * size.rows * (45 + 4 * size.numbers),
        ),
        Node(
            f"questions.{trait}",
            ExplainConfig,
            on_questions,
            ("vectors",),
            cells * size.questions * 20,
        ),
    ]


def _steered(size: Size, common: dict, trait: str) -> list[Node]:
    """The base, the prompted model, and every (layer, alpha) of the raw vector at the prompt's
    tokens."""
    prompt = standard_nodes.prompted(trait)
    plain = {"trait": trait, "samples": 0, **common}
    found = [
        Node(f"base.{trait}", MeasureConfig, lambda _: MeasureConfig(**plain), (), 4000),
        Node(
            f"prompted.{trait}",
            MeasureConfig,
            lambda _: MeasureConfig(**plain, interventions=(prompt,)),
            (),
            4000,
        ),
    ]
    for layer, alpha in itertools.product(size.layers, size.steer_alphas):

        def steered(folders: Folders, layer: int = layer, alpha: float = alpha) -> MeasureConfig:
            vector = folders["vectors"] / "raw" / f"{load_trait(trait).name}.safetensors"
            edit = f"steer:{vector},layers={layer},alpha={alpha},position=prompt,scale=raw"
            return MeasureConfig(**plain, interventions=(edit,))

        found.append(
            Node(f"steered.{trait}.{layer}.{alpha:g}", MeasureConfig, steered, ("vectors",), 4000)
        )
    return found


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Shares over traits, own against other, common and random vectors; the steerability table."""
    shares = {
        what: {t: _shares(folders, f"{what}.{t}") for t in size.traits}
        for what in ("numbers", "questions")
    }
    verdicts, measured = [], []
    for what, text in (("numbers", "number rows"), ("questions", "the trait's questions")):
        kind = {k: [shares[what][t][k] for t in size.traits] for k in KINDS}
        measured += [
            over(f"{what}.share.{k}", values, "share of KL", "traits") for k, values in kind.items()
        ]
        verdicts += [
            judged(
                f"On {text}, one vector does at least half of what the prompt does.",
                measured[-len(KINDS)],
                model,
                HALF,
            ),
            judged(
                f"On {text}, the trait's own vector does more than another trait's.",
                over(
                    f"{what}.own minus other",
                    _minus(kind["raw"], kind["other-raw"]),
                    "share of KL",
                    "traits",
                ),
                model,
                0,
                0.05,
            ),
        ]
    sheets = (*(_sheet(what, shares[what]) for what in shares), _steerability(size, folders))
    notes = (
        (
            f"{len(size.traits)} traits; the interval is over traits. Other and random vectors"
            " choose their own strength at the block and position that were best for the trait's"
            " vector."
        ),
        (
            f"A steered cell counts only if it names the trait at a rate of at most {GATE:g} on the"
            " negative and the off-topic questions, and its perplexity on plain text is at most"
            f" {COHERENT:g} times the base's."
        ),
    )
    return Findings(tuple(verdicts), tuple(measured), sheets, notes)


def _shares(folders: Folders, node: str) -> dict[str, float]:
    """Cross-fitted share by kind; of several other or random vectors, the best."""
    kinds = standard_nodes.read_json(folders, node)["kinds"]
    found: dict[str, float] = {}
    for name, about in kinds.items():
        kind, value = name.split(":")[0], about["share"]["estimate"]
        found[kind] = max(found.get(kind, -1e9), nan if value is None else value)
    return found


def _minus(left: list[float], right: list[float]) -> list[float]:
    return [a - b for a, b in zip(left, right, strict=True)]


def _sheet(what: str, shares: dict[str, dict[str, float]]) -> Sheet:
    rows = tuple((trait, *(row[k] for k in KINDS)) for trait, row in shares.items())
    caption = (
        "Share of the divergence that the best cell removes, cross-fitted over rows; 1 is all,"
        " below 0 is harm."
    )
    return Sheet(
        f"shares-{what}",
        f"How much of the prompt a vector does: {what}",
        caption,
        ("trait", *KINDS),
        rows,
    )


def _rates(folders: Folders, node: str) -> tuple[dict[str, float], float]:
    """Expected rate of naming the trait first, by question set, and perplexity."""
    scores: dict[str, list[float]] = {}
    for row in standard_nodes.read_json_lines(folders[node], "scores.jsonl"):
        scores.setdefault(row["set"], []).append(exp(row["target_logprob"]))
    rates = {name: sum(values) / len(values) for name, values in scores.items()}
    return rates, standard_nodes.read_json(folders, node, "measurements.json")["perplexity"]


def clean_peak(size: Size, folders: Folders, trait: str) -> tuple[float, str, int]:
    """Highest rate on the positive questions among cells that pass the gates, its cell, and how
    many cells passed."""
    _, usual = _rates(folders, f"base.{trait}")
    best, where, passed = nan, "none", 0
    for layer, alpha in itertools.product(size.layers, size.steer_alphas):
        rates, perplexity = _rates(folders, f"steered.{trait}.{layer}.{alpha:g}")
        if rates["negative"] > GATE or rates["off_topic"] > GATE or perplexity > COHERENT * usual:
            continue
        passed += 1
        if not rates["positive"] <= best:
            best, where = rates["positive"], f"block {layer}, {alpha:g}"
    return best, where, passed


def _steerability(size: Size, folders: Folders) -> Sheet:
    rows = []
    for trait in size.traits:
        base, prompted = (
            _rates(folders, f"{kind}.{trait}")[0]["positive"] for kind in ("base", "prompted")
        )
        rows.append((trait, base, prompted, *clean_peak(size, folders, trait)))
    cells = len(size.layers) * len(size.steer_alphas)
    caption = (
        f"Expected rate of naming the trait right after the stem, positive questions; {cells}"
        " steered cells a trait."
    )
    header = ("trait", "base", "prompted", "best clean cell", "where", "cells that pass")
    return Sheet(
        "steerability", "Can the model be steered to the trait?", caption, header, tuple(rows)
    )
