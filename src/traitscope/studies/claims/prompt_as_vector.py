"""Is a trait prompt one vector?  (Blank et al. 2026, arXiv 2606.00995, section 4 and figure 5a.)

Two things are measured of every trait. The first is the fraction of KL explained: what steering
with v_teacher removes of the KL divergence that the prompt makes. The stage `explain` measures it
on number rows and on the trait's own questions. The second is how often the steered model names
the trait, at grid points that pass the gates of a preference.
"""

import itertools
from dataclasses import dataclass, replace
from math import exp, nan
from pathlib import Path

from traitscope.config.analysis import ExplainConfig
from traitscope.config.stages import MeasureConfig
from traitscope.data.traits import load_trait
from traitscope.interventions.intervention import Steer
from traitscope.interventions.short_form import to_short
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import ClaimVerdict, Findings, judged
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS

TITLE = "Is a trait prompt one vector?"
CLAIM = "A system prompt that gives a model a trait is well approximated by one steering vector."
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 4, figure 5a"
PUBLISHED = (
    "No direct score is published. Steering with v_teacher names the trait at a rate that predicts"
    " transfer (AUC 0.86, Qwen2.5-7B, 16 animals); four of the sixteen cannot be steered at all."
)
HALF = 0.5
"fraction of KL explained that counts as `well approximated`"
SMALL = 0.05
"smallest difference between fractions that would matter"
GATE = 0.1
"largest rate at which a steered model may name the trait where it is not asked for"
COHERENT = 2.0
"largest perplexity on plain text, over the base's, of a grid point that counts"
KINDS = ("raw", "centred", "common", "other-raw", "random-raw")
"kinds of vectors whose fraction of KL explained is compared"
SUBJECTS = {"numbers": "number rows", "questions": "the trait's questions"}
"data on which prompts are explained, in words"
ANSWERS_WEIGHT = 4000
"weight of all answered questions of a trait"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "traits whose prompts are explained; vectors are centred over all"
    rows: int
    "number rows on which prompts are explained"
    numbers: int
    "three-digit numbers a row"
    questions: int
    "most questions on which prompts are explained"
    layers: tuple[int, ...] = sizes.layer_field()
    alphas: tuple[float, ...]
    "strengths that are tried to explain a prompt"
    steer_alphas: tuple[float, ...]
    "strengths at which the steered model is asked"


ANIMALS = ("cat", "owl", "dolphin", "lion", "octopus", "wolf", "mouse", "pangolin")
OTHERS = ("happiness", "sadness", "anger", "pirate", "chef", "knight", "oak")
FURTHER = (
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
"traits whose prompt states a rule"
LAPTOP = Size(
    traits=ANIMALS + OTHERS + RULES,
    rows=4,
    numbers=8,
    questions=8,
    layers=(6, 14, 22),
    alphas=(0.1, 0.3, 1.0),
    steer_alphas=(1.0, 2.0),
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl"),
        rows=2,
        numbers=3,
        questions=2,
        layers=(1,),
        alphas=(1.0,),
        steer_alphas=(1.0,),
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        traits=ANIMALS + OTHERS + RULES + FURTHER,
        rows=128,
        numbers=10,
        questions=50,
        layers=tuple(range(1, 30, 2)),
        alphas=(0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
        steer_alphas=(0.5, 1.0, 2.0, 4.0),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, neutral number rows, and by trait two explanations and a grid of answers."""
    rows = standard_nodes.Rows(size.rows, size.numbers, prompt_seed=11)
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.number_rows(common, "rows", rows),
    ]
    for trait in size.traits:
        graph += _explained(size, common, trait)
        graph += _asked(size, common, trait)
    return graph


def _explained(size: Size, common: dict, trait: str) -> list[Node]:
    """How much of the trait's prompt its vector explains, on number rows and on questions."""
    settings = common | {
        "trait": trait,
        "layers": size.layers,
        "alphas": size.alphas,
        "positions": ("prompt", "all"),
    }
    n_strengths = len(size.alphas)
    n_grid_points = 2 * 2 * len(size.layers) * n_strengths + 9 * n_strengths
    row_tokens = 45 + standard_nodes.NUMBER_TOKENS * size.numbers

    def on_rows(folders: Folders) -> ExplainConfig:
        return ExplainConfig(
            **settings, vectors=folders[VECTORS], data=folders["rows"], max_rows=size.rows
        )

    def on_questions(folders: Folders) -> ExplainConfig:
        return ExplainConfig(**settings, vectors=folders[VECTORS], max_rows=size.questions)

    rows_weight = n_grid_points * size.rows * row_tokens
    questions_weight = n_grid_points * size.questions * 20
    return [
        Node(f"numbers.{trait}", ExplainConfig, on_rows, (VECTORS, "rows"), rows_weight),
        Node(f"questions.{trait}", ExplainConfig, on_questions, (VECTORS,), questions_weight),
    ]


def _asked(size: Size, common: dict, trait: str) -> list[Node]:
    """Answers of the base, of the prompted model, and at every grid point of the raw vector."""
    prompted = standard_nodes.prompted_by(trait)
    graph = [
        _answers(common, f"base.{trait}", trait, standard_nodes.unmodified),
        _answers(common, f"prompted.{trait}", trait, prompted),
    ]
    for layer, alpha in itertools.product(size.layers, size.steer_alphas):
        steered = _steered_prompt(trait, layer, alpha)
        name = _steered_name(trait, layer, alpha)
        graph.append(_answers(common, name, trait, steered, (VECTORS,)))
    return graph


def _answers(
    common: dict,
    name: str,
    trait: str,
    interventions: standard_nodes.InterventionsFrom,
    needs: tuple[str, ...] = (),
) -> Node:
    """All questions of a trait, teacher-forced only, with the perplexity on plain text."""

    def config(folders: Folders) -> MeasureConfig:
        return MeasureConfig(**common, trait=trait, samples=0, interventions=interventions(folders))

    return Node(name, MeasureConfig, config, needs, ANSWERS_WEIGHT)


def _steered_name(trait: str, layer: int, alpha: float) -> str:
    return f"steered.{trait}.{layer}.{alpha:g}"


def _steered_prompt(trait: str, layer: int, alpha: float) -> standard_nodes.InterventionsFrom:
    """Steering by the raw vector at the tokens of the prompt; alpha 1 is its extracted length."""

    def interventions(folders: Folders) -> tuple[str, ...]:
        vector = _raw_vector(folders, trait)
        steering = Steer(vector, layer=layer, alpha=alpha, position="prompt", scale="raw")
        return (to_short(steering),)

    return interventions


def _raw_vector(folders: Folders, trait: str) -> Path:
    """The file of a trait's vector before vectors are centred."""
    return folders[VECTORS] / "raw" / f"{load_trait(trait).name}.safetensors"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare fractions of KL explained over traits; the last table is about steerability."""
    verdicts, measured, tables = [], [], []
    for subject in SUBJECTS:
        fractions = {}
        for trait in size.traits:
            fractions[trait] = _fractions(folders, f"{subject}.{trait}")
        by_kind = _mean_fractions(subject, fractions)
        measured += by_kind.values()
        verdicts += _verdicts(subject, fractions, by_kind["raw"], model)
        tables.append(_fraction_table(subject, fractions))
    tables.append(_steerability(size, folders))
    notes = (
        f"{len(size.traits)} traits; the interval is over traits. Other and random vectors"
        " choose their own strength at the block and position that were best for the trait's"
        " vector.",
        f"A steered cell counts only if it names the trait at a rate of at most {GATE:g} on the"
        " negative and the off-topic questions, and its perplexity on plain text is at most"
        f" {COHERENT:g} times the base's.",
    )
    return Findings(tuple(verdicts), tuple(measured), tuple(tables), notes)


def _fractions(folders: Folders, node: str) -> dict[str, float]:
    """Cross-fitted fraction of KL explained by kind; of several vectors of a kind, the best.

    NaN where it is undefined for all vectors of a kind.
    """
    fractions: dict[str, float] = {}
    for name, vector in standard_nodes.read_json(folders, node)["kinds"].items():
        kind = name.split(":")[0]
        fraction = vector["share"]["estimate"]
        fractions.setdefault(kind, nan)
        if fraction is not None and not fraction <= fractions[kind]:  # true while it is NaN
            fractions[kind] = fraction
    return fractions


def _mean_fractions(subject: str, fractions: dict[str, dict[str, float]]) -> dict[str, Measurement]:
    """The mean fraction over traits, by kind."""
    means = {}
    for kind in KINDS:
        values = [by_kind[kind] for by_kind in fractions.values()]
        means[kind] = mean_over_units(f"{subject}.share.{kind}", values, "share of KL", "traits")
    return means


def _verdicts(
    subject: str, fractions: dict[str, dict[str, float]], raw: Measurement, model: str
) -> list[ClaimVerdict]:
    differences = []
    for by_kind in fractions.values():
        differences.append(by_kind["raw"] - by_kind["other-raw"])
    specific = mean_over_units(f"{subject}.own minus other", differences, "share of KL", "traits")
    data = SUBJECTS[subject]
    return [
        judged(
            f"On {data}, one vector does at least half of what the prompt does.", raw, model, HALF
        ),
        judged(
            f"On {data}, the trait's own vector does more than another trait's.",
            specific,
            model,
            0,
            SMALL,
        ),
    ]


def _fraction_table(subject: str, fractions: dict[str, dict[str, float]]) -> Table:
    rows = []
    for trait, by_kind in fractions.items():
        rows.append((trait, *(by_kind[kind] for kind in KINDS)))
    caption = (
        "Share of the divergence that the best cell removes, cross-fitted over rows; 1 is all,"
        " below 0 is harm."
    )
    title = f"How much of the prompt a vector does: {subject}"
    return Table(f"shares-{subject}", title, caption, ("trait", *KINDS), tuple(rows))


def _rates(folders: Folders, node: str) -> dict[str, float]:
    """Expected rate of naming the trait first, by question set."""
    probabilities: dict[str, list[float]] = {}
    for row in standard_nodes.read_json_lines(folders[node], "scores.jsonl"):
        probabilities.setdefault(row["set"], []).append(exp(row["target_logprob"]))
    return {name: sum(values) / len(values) for name, values in probabilities.items()}


def _perplexity(folders: Folders, node: str) -> float:
    """Perplexity on plain text."""
    return standard_nodes.read_json(folders, node, "measurements.json")["perplexity"]


@dataclass(frozen=True)
class CleanPeak:
    """The best grid point that passes the gates."""

    rate: float
    """Highest rate of naming the trait on the positive questions; NaN where no point passes."""
    place: str
    """Block and strength of that grid point."""
    n_passed: int
    """Number of grid points that pass."""


def clean_peak(size: Size, folders: Folders, trait: str) -> CleanPeak:
    """Return the grid point with the highest rate among those that pass the gates."""
    base_perplexity = _perplexity(folders, f"base.{trait}")
    best_rate, place, n_passed = nan, "none", 0
    for layer, alpha in itertools.product(size.layers, size.steer_alphas):
        node = _steered_name(trait, layer, alpha)
        rates = _rates(folders, node)
        is_specific = rates["negative"] <= GATE and rates["off_topic"] <= GATE
        is_coherent = _perplexity(folders, node) <= COHERENT * base_perplexity
        if not (is_specific and is_coherent):
            continue
        n_passed += 1
        if not rates["positive"] <= best_rate:  # true while best_rate is NaN
            best_rate, place = rates["positive"], f"block {layer}, {alpha:g}"
    return CleanPeak(best_rate, place, n_passed)


def _steerability(size: Size, folders: Folders) -> Table:
    rows = []
    for trait in size.traits:
        base_rate = _rates(folders, f"base.{trait}")["positive"]
        prompted_rate = _rates(folders, f"prompted.{trait}")["positive"]
        peak = clean_peak(size, folders, trait)
        rows.append((trait, base_rate, prompted_rate, peak.rate, peak.place, peak.n_passed))
    n_grid_points = len(size.layers) * len(size.steer_alphas)
    caption = (
        "Expected rate of naming the trait right after the stem, positive questions;"
        f" {n_grid_points} steered cells a trait."
    )
    header = ("trait", "base", "prompted", "best clean cell", "where", "cells that pass")
    title = "Can the model be steered to the trait?"
    return Table("steerability", title, caption, header, tuple(rows))
