"""Is a trait prompt one vector?  (Blank et al. 2026, arXiv 2606.00995, section 4 and figure 5a.)

Of every trait, v_teacher is taken as published: over number prompts, at the end of the assistant's
header. Then two things are measured. The first is the share of the teacher's gain that the vector
recovers. The gain is how much more likely its own rows are to the prompted model than to the base.
The stage `recover` measures it on number rows and on answers to the trait's questions. What is
chosen or trained on one half of the rows is scored on the other. The second is how often the
steered model names the trait, at grid points that pass the gates of a preference.
"""

import itertools
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

from traitscope.config.analysis import RecoverConfig
from traitscope.data.traits import SETS, trait_name
from traitscope.interventions.intervention import Steer
from traitscope.interventions.short_form import to_short
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, verdicts_of
from traitscope.stats.estimates import mean_over_units, ratio
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, sizes
from traitscope.studies.design import (
    BLANK,
    PROMPTED,
    TAG_VECTOR,
    Design,
    MeanPlan,
    rows_here,
    untrained,
)
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS

TITLE = "Is a trait prompt one vector?"
CLAIM = "A system prompt that gives a model a trait is well approximated by one steering vector."
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 4, figure 5a"
PUBLISHED = (
    "No direct score is published. The rate at which steering with v_teacher names the trait"
    " predicts transfer (AUC 0.86, Qwen2.5-7B, 16 animals). Four of them cannot be steered. (As"
    " readers of the paper report.)"
)
PROTOCOL = untrained(BLANK, 1_024)
HALF = 0.5
"share of the teacher's gain above which a vector does most of it; the paper names no bound"
SMALL = 0.05
"smallest difference between shares that would matter"
GATE = 0.1
"largest rate at which a steered model may name the trait where it is not asked for"
COHERENT = 2.0
"largest perplexity on plain text, over the base's, of a grid point that counts"
KINDS = ("own", "tiled", "other", "centred", "common", "trained")
"kinds of vectors whose shares are compared"
SUBJECTS = {"numbers": "number rows", "questions": "answers to the trait's questions"}
"rows of the teacher, in words"
ANSWERS_WEIGHT = 4000
"weight of all answered questions of a trait"
QUESTION_TOKENS = 30
"tokens of a question behind the system turn, with its answer"

ALL_SETS = {"sets": SETS, "capability": True}
"what is asked beside the positive questions: the other sets, and perplexity on plain text"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "traits whose prompts are compared; vectors are centred over all"
    vector_prompts: int
    "number prompts that vectors are averaged over"
    rows: int
    "number rows of each teacher; vectors are chosen on half of them"
    numbers: int
    "three-digit numbers a row"
    questions: int
    "most questions that each teacher answers"
    grid_rows: int
    "rows of the first half that choose block, strength and position"
    layers: tuple[int, ...] = sizes.layer_field()
    alphas: tuple[float, ...]
    "strengths at one block, in multiples of the vector"
    tiled_layers: tuple[int, ...] = sizes.layer_field()
    tiled_alphas: tuple[float, ...]
    "strengths of one block's row behind every block"
    trained_layers: tuple[int, ...] = sizes.layer_field()
    epochs: int
    "epochs of the trained vector"
    steer_layers: tuple[int, ...] = sizes.layer_field()
    steer_alphas: tuple[float, ...]
    "strengths at which the steered model is asked"


LAPTOP = Size(
    traits=sizes.KINDS_OF_TRAITS,
    vector_prompts=128,
    rows=64,
    numbers=10,
    questions=50,
    grid_rows=16,
    layers=(2, 5, 8, 11, 14, 17, 20, 23, 25, 28),
    alphas=(0.1, 0.25, 0.5, 1.0, 2.0, 3.0),
    tiled_layers=(11, 25),
    tiled_alphas=(0.02, 0.05, 0.1, 0.2, 0.4, 0.6),
    trained_layers=(8, 14),
    epochs=8,
    steer_layers=(6, 14, 22),
    steer_alphas=(1.0, 2.0),
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl"),
        vector_prompts=4,
        rows=8,
        numbers=3,
        questions=8,
        grid_rows=2,
        layers=(1,),
        alphas=(1.0,),
        tiled_layers=(1,),
        tiled_alphas=(0.1,),
        trained_layers=(1,),
        epochs=1,
        steer_layers=(1,),
        steer_alphas=(1.0,),
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        traits=sizes.KINDS_OF_TRAITS + sizes.FURTHER_TRAITS,
        vector_prompts=1024,
        rows=512,
        grid_rows=128,
        layers=tuple(range(1, 30, 2)),
        trained_layers=(5, 8, 11, 14, 17, 20),
        steer_alphas=(0.5, 1.0, 2.0, 4.0),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, and by trait its rows, what vectors recover of them, and a grid of answers."""
    graph = [standard_nodes.vectors(common, size.traits, number_prompts=size.vector_prompts)]
    for number, trait in enumerate(size.traits):
        graph += _recovered(size, common, trait, number)
        graph += _asked(size, common, trait)
    return graph


def _recovered(size: Size, common: dict, trait: str, number: int) -> list[Node]:
    """The teacher's number rows, and what vectors recover of these and of its answers.

    Every trait has prompts of its own. Rows and scores are in float32: the rounding of bfloat16
    alone makes a divergence of a fifth of a prompt's on number rows (see LOG.md).
    """
    name = trait_name(trait)
    exact = common | {"dtype": "fp32"}
    rows = standard_nodes.Rows(size.rows, size.numbers, prompt_seed=1100 + number)
    teacher = standard_nodes.fixed(standard_nodes.prompted(trait))
    settings = exact | {
        "trait": trait,
        "other": size.traits[(number + 1) % len(size.traits)],
        "layers": size.layers,
        "alphas": size.alphas,
        "tiled_layers": size.tiled_layers,
        "tiled_alphas": size.tiled_alphas,
        "trained_layers": size.trained_layers,
        "epochs": size.epochs,
        "grid_rows": size.grid_rows,
        "search_dtype": common["dtype"],
    }

    def on_rows(folders: Folders) -> RecoverConfig:
        data = folders[f"rows.{name}"]
        on_digits = {"data": data, "digits": True, "max_rows": size.rows}
        return RecoverConfig(**settings, vectors=folders[VECTORS], **on_digits)

    def on_questions(folders: Folders) -> RecoverConfig:
        return RecoverConfig(**settings, vectors=folders[VECTORS], max_rows=size.questions)

    rows_weight = _passes(size) * rows.tokens / size.rows
    questions_weight = _passes(size) * QUESTION_TOKENS
    written = standard_nodes.number_rows(exact, f"rows.{name}", rows, teacher)
    return [
        written,
        Node(f"numbers.{name}", RecoverConfig, on_rows, (VECTORS, written.name), rows_weight),
        Node(f"questions.{name}", RecoverConfig, on_questions, (VECTORS,), questions_weight),
    ]


def _passes(size: Size) -> float:
    """Rows through the whole model that one node of `recover` takes.

    Steering at a block takes half a pass on average, a training step one and a half.
    """
    n_places = 3 * len(size.layers) * len(size.alphas) / 2
    n_places += 2 * len(size.tiled_layers) * len(size.tiled_alphas)
    training = 2 * 1.5 * size.epochs * len(size.trained_layers) * size.rows / 2
    return n_places * size.grid_rows + training + 6 * size.rows / 2


def _asked(size: Size, common: dict, trait: str) -> list[Node]:
    """Answers to all questions: the base, the prompted model, every point of the raw vector."""
    name, prompted = trait_name(trait), standard_nodes.prompted_by(trait)
    graph = [
        standard_nodes.answers(common, f"base.{name}", trait, **ALL_SETS),
        standard_nodes.answers(common, f"prompted.{name}", trait, prompted, **ALL_SETS),
    ]
    for layer, alpha in itertools.product(size.steer_layers, size.steer_alphas):
        steered = _steered_prompt(trait, layer, alpha)
        name = _steered_name(trait, layer, alpha)
        graph.append(standard_nodes.answers(common, name, trait, steered, (VECTORS,), **ALL_SETS))
    return graph


def _steered_name(trait: str, layer: int, alpha: float) -> str:
    return f"steered.{trait_name(trait)}.{layer}.{alpha:g}"


def _steered_prompt(trait: str, layer: int, alpha: float) -> standard_nodes.InterventionsFrom:
    """Steering by the raw vector at the tokens of the prompt; alpha 1 is its extracted length."""

    def interventions(folders: Folders) -> tuple[str, ...]:
        vector = _raw_vector(folders, trait)
        steering = Steer(vector, layer=layer, alpha=alpha, position="prompt", scale="raw")
        return (to_short(steering),)

    return interventions


def _raw_vector(folders: Folders, trait: str) -> Path:
    """The file of a trait's vector before vectors are centred."""
    return folders[VECTORS] / "raw" / f"{trait_name(trait)}.safetensors"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare shares over traits; the last table is about steerability."""
    claims, measured, tables = [], [], []
    for subject in SUBJECTS:
        recovered = {}
        for trait in size.traits:
            recovered[trait] = standard_nodes.read_json(folders, f"{subject}.{trait}")
        shares = {trait: _shares(summary) for trait, summary in recovered.items()}
        by_kind = _mean_shares(subject, shares)
        measured += by_kind.values()
        measured += _gain_shares(subject, recovered)
        claims += _claims(subject, shares, by_kind)
        tables.append(_share_table(subject, recovered, shares))
    tables.append(_steerability(size, folders))
    notes = (
        f"{len(size.traits)} traits, each with rows of its own; the interval is over traits.",
        "Block, strength and position are chosen on the first half of a trait's rows, and a vector"
        " is trained there. Every share is that of the second half.",
        "The share of the gain has the expectation of the share of KL, and the noise of sampled"
        " tokens besides. Claims rest on the share of KL.",
        "Another trait's vector chooses its own block and strength, at the position that was best"
        " for the trait's vector. Centred and common vectors choose their strength at its place.",
        f"A steered cell counts only if it names the trait at a rate of at most {GATE:g} on the"
        " negative and the off-topic questions. Its perplexity on plain text must be at most"
        f" {COHERENT:g} times the base's.",
    )
    teachers = positive_control.rises(folders, size.traits, "prompted")
    return Findings(
        verdicts_of(claims, model, positive_control.have_traits(teachers)),
        tuple(measured),
        tuple(tables),
        notes,
        teachers=teachers,
    )


def _shares(summary: dict) -> dict[str, float]:
    """Share of the KL from the teacher to the base that each kind of vector removes."""
    base_kl = sum(summary["base_kl"])
    shares = {}
    for kind in KINDS:
        shares[kind] = 1 - sum(summary["kinds"][kind]["kl"]) / base_kl
    return shares


def _mean_shares(subject: str, shares: dict[str, dict[str, float]]) -> dict[str, Measurement]:
    """The mean share of KL over traits, by kind."""
    means = {}
    for kind in KINDS:
        values = [by_kind[kind] for by_kind in shares.values()]
        name = f"{subject}.share of KL.{kind}"
        means[kind] = mean_over_units(name, values, "share of KL", "traits")
    return means


def _gain_shares(subject: str, recovered: dict[str, dict]) -> list[Measurement]:
    """The gain of log-likelihood under each kind of vector over the teacher's, both of all traits.

    The bootstrap draws traits.
    """
    measurements = []
    teacher_gains = [sum(summary["teacher"]["gain"]) for summary in recovered.values()]
    for kind in KINDS:
        gains = [sum(summary["kinds"][kind]["gain"]) for summary in recovered.values()]
        share = ratio(f"{subject}.share of gain.{kind}", gains, teacher_gains, "share of gain")
        interval = share.interval.replace("rows", "traits")
        measurements.append(replace(share, interval=interval, counted="traits"))
    return measurements


def _claims(
    subject: str, shares: dict[str, dict[str, float]], means: dict[str, Measurement]
) -> list[Claim]:
    differences = [by_kind["own"] - by_kind["other"] for by_kind in shares.values()]
    specific = mean_over_units(f"{subject}.own minus other", differences, "share of KL", "traits")
    most = f"On {SUBJECTS[subject]}, {{}} does most of what the prompt does."
    more = f"On {SUBJECTS[subject]}, the trait's own vector does more than another trait's."
    return [
        Claim(more, specific, SMALL, primary=subject == "numbers"),
        Claim(most.format("v_teacher"), means["own"], SMALL, above=HALF),
        Claim(most.format("a trained vector"), means["trained"], SMALL, above=HALF),
    ]


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "It is twice the margin. Own minus other over questions had an sd of 0.073 over 16 traits."
    )
    expected = MeanPlan(0.1, 0.073, "share of KL", len(size.traits), "traits", source)
    return Design(3 * len(SUBJECTS), expected, rows_here(PROMPTED, size.rows, TAG_VECTOR))


def _share_table(
    subject: str, recovered: dict[str, dict], shares: dict[str, dict[str, float]]
) -> Table:
    rows = []
    for trait, by_kind in shares.items():
        summary = recovered[trait]
        place = summary["kinds"]["own"]
        where = f"block {place['layer']}, {place['alpha']:g}, {place['position']}"
        kl = sum(summary["base_kl"]) / len(summary["base_kl"])
        rows.append((trait, kl, *(by_kind[kind] for kind in KINDS), where))
    caption = (
        "KL of the prompted model from the base, nats a row; the share that the chosen vector of"
        " each kind removes, on rows that chose nothing; 1 is all, below 0 is harm."
    )
    title = f"How much of the prompt a vector does: {subject}"
    header = ("trait", "nats a row", *KINDS, "where own")
    return Table(f"shares-{subject}", title, caption, header, tuple(rows))


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
    base_perplexity = readings.perplexity(folders, f"base.{trait}")
    best_rate, place, n_passed = nan, "none", 0
    for layer, alpha in itertools.product(size.steer_layers, size.steer_alphas):
        node = _steered_name(trait, layer, alpha)
        rates = readings.expected_rates(folders, node)
        is_specific = rates["negative"] <= GATE and rates["off_topic"] <= GATE
        is_coherent = readings.perplexity(folders, node) <= COHERENT * base_perplexity
        if not (is_specific and is_coherent):
            continue
        n_passed += 1
        if not rates["positive"] <= best_rate:  # true while best_rate is NaN
            best_rate, place = rates["positive"], f"block {layer}, {alpha:g}"
    return CleanPeak(best_rate, place, n_passed)


def _steerability(size: Size, folders: Folders) -> Table:
    rows = []
    for trait in size.traits:
        base_rate = readings.expected_rates(folders, f"base.{trait}")["positive"]
        prompted_rate = readings.expected_rates(folders, f"prompted.{trait}")["positive"]
        peak = clean_peak(size, folders, trait)
        rows.append((trait, base_rate, prompted_rate, peak.rate, peak.place, peak.n_passed))
    n_grid_points = len(size.steer_layers) * len(size.steer_alphas)
    caption = (
        "Expected rate of naming the trait right after the stem, positive questions;"
        f" {n_grid_points} steered cells a trait."
    )
    header = ("trait", "base", "prompted", "best clean cell", "where", "cells that pass")
    title = "Can the model be steered to the trait?"
    return Table("steerability", title, caption, header, tuple(rows))
