"""Can any vector be distilled, and does behaviour follow?  (Blank et al. 2026, arXiv 2606.00995,
section 5, figure 6, appendix K.)

Teachers steered with vectors that mean something, with a Gaussian random one and with a principal
component of the model's own activations; students of their number rows; how far each student turned
towards its teacher's vector, and what it says. Then one vector at several strengths, on free-form
rows, with all weights trained, and from sampled text.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from traitscope.config.analysis import ExtractConfig
from traitscope.config.recipe import Recipe
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Can any vector be distilled, and does behaviour follow?"
CLAIM = (
    "Students align with whatever vector their teacher was steered by; only vectors that mean"
    " something change what they say."
)
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 5, figure 6, appendix K"
PUBLISHED = (
    "Qwen2.5-7B: alignment rises for seven semantic vectors, Gaussian random ones and an SAE"
    " direction; a recognisable shift of the output for the semantic ones only; full fine-tuning"
    " aligns above 0.3 with less behaviour. No rates are published."
)
SMALL, NATS = 0.03, 0.05
"cosine, and nats, below which an effect would not matter"
MEANINGLESS = ("random-0", "component-0")
"a Gaussian vector, and the first principal component of the residuals at the end of number prompts"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "vectors that mean something; the first one has the further cells"
    others: tuple[str, ...]
    "further traits that the vectors are centred over"
    doses: tuple[float, ...]
    seeds: tuple[int, ...]
    rows: int
    numbers: int
    text: sizes.SampledText
    layer: int = sizes.layer_field()
    strength: float
    "of the steered teachers, in mean residual norms; one of the doses"
    recipe: Recipe
    full: Recipe
    "all weights trained"


SOFT = Recipe(
    targets="soft", epochs=2, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.0
)
FULL = replace(SOFT, method="full", lr=3e-5)
OTHERS = ("owl", "dolphin", "wolf", "sadness", "chef", "oak")
DOSES = (0.15, 0.3, 0.6, 0.9)
SIZES = {
    "smoke": Size(
        ("cat", "owl"), (), (0.3, 0.6), (1, 2), 3, 3, sizes.SMOKE_TEXT, 1, 0.6, SOFT, FULL
    ),
    "laptop": Size(
        ("cat", "happiness", "pirate"),
        OTHERS,
        DOSES,
        (1, 2, 3),
        12,
        10,
        sizes.LAPTOP_TEXT,
        14,
        0.6,
        SOFT,
        FULL,
    ),
    "full": Size(
        ("cat", "happiness", "pirate"),
        OTHERS,
        DOSES,
        (1, 2, 3, 4, 5),
        512,
        10,
        sizes.FULL_TEXT,
        14,
        0.6,
        replace(SOFT, batch_size=32, micro_batch=32),
        replace(FULL, batch_size=32, micro_batch=8, lr=2e-5),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors of three kinds; rows of the unmodified model; a student a vector and seed, and those
    of the further cells."""
    first = size.traits[0]
    found = [
        standard_nodes.vectors(common, size.traits + size.others),
        standard_nodes.eas_rows(common, size.numbers),
        Node(
            "random-0",
            ExtractConfig,
            lambda folders: ExtractConfig(**common, like=standard_nodes.vector_of(folders, first)),
            (standard_nodes.VECTORS,),
            1,
        ),
        Node(
            "component-0", ExtractConfig, lambda _: ExtractConfig(**common, components=1), (), 3000
        ),
        *(standard_nodes.answers(common, f"base.{trait}", trait) for trait in size.traits),
    ]
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=81)
        free = replace(rows, prompts=shared_nodes.OPEN_PROMPTS)
        found += [
            standard_nodes.number_rows(common, f"rows.{seed}", rows),
            standard_nodes.number_rows(common, f"free.{seed}", free),
        ]
        for vector in (*size.traits, *MEANINGLESS):
            found += _student(size, common, f"{vector}.{seed}", vector, f"rows.{seed}", rows)
        for dose in _doses(size):
            found += _student(
                replace(size, strength=dose),
                common,
                f"dose {dose:g}.{seed}",
                first,
                f"rows.{seed}",
                rows,
            )
        found += _student(size, common, f"free-form.{seed}", first, f"free.{seed}", free)
        found += _student(
            replace(size, recipe=size.full),
            common,
            f"all weights.{seed}",
            first,
            f"rows.{seed}",
            rows,
        )
        found += shared_nodes.sampled_text(
            common,
            size.text,
            first,
            seed,
            partial(_teacher, size, first),
            (standard_nodes.VECTORS,),
        )
    return found


def _doses(size: Size) -> list[float]:
    """Strengths besides the usual one."""
    return [dose for dose in size.doses if dose != size.strength]


def _vector(vector: str, folders: Folders) -> Path:
    """The file of a vector of any kind."""
    return (
        folders[vector] / f"{vector}.safetensors"
        if vector in MEANINGLESS
        else standard_nodes.vector_of(folders, vector)
    )


def _teacher(size: Size, vector: str, folders: Folders) -> tuple[str, ...]:
    return (standard_nodes.steered(_vector(vector, folders), size.layer, size.strength),)


def _student(
    size: Size, common: dict, name: str, vector: str, data: str, rows: standard_nodes.Rows
) -> list[Node]:
    """A student of the steered teacher, asked for the vector's trait, or for every trait where the
    vector has none."""
    source = vector if vector in MEANINGLESS else standard_nodes.VECTORS
    asked = standard_nodes.Student(
        name,
        data,
        size.recipe,
        rows.seed,
        partial(_teacher, size, vector),
        (source, standard_nodes.EAS_ROWS),
        partial(_vector, vector),
        {"max_rows": rows.n},
    )
    traits = size.traits if vector in MEANINGLESS else (vector,)
    answers = [
        standard_nodes.answers(
            common, f"{t} of {name}", t, standard_nodes.trained_by(name), (name,)
        )
        for t in traits
    ]
    return [standard_nodes.student(common, asked, rows.tokens), *answers]


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Alignment of every vector's student; behaviour of the meaningful ones minus that of the
    meaningless; the cells."""
    vectors, first = (*size.traits, *MEANINGLESS), size.traits[0]
    aligned = {
        v: over(
            f"EAS of {v}", [_eas(size, folders, f"{v}.{seed}") for seed in size.seeds], "cosine"
        )
        for v in vectors
    }
    verdicts = [
        judged(
            f"A student of a teacher steered by {v} turns towards it, block {size.layer}.",
            aligned[v],
            model,
            0,
            SMALL,
        )
        for v in vectors
    ]
    for trait in size.traits:
        pairs = ((s, f"{trait} of {trait}.{s}", f"{trait} of random-0.{s}") for s in size.seeds)
        more = readings.rise(folders, f"log P({trait}), its own vector minus the random one", pairs)
        verdicts.append(
            judged(
                f"Steering by {trait} raises it in students more than steering by a random vector.",
                more,
                model,
                0,
                NATS,
            )
        )
    table = [
        (
            v,
            aligned[v],
            *(_rise(size, folders, t, v) if v in (t, *MEANINGLESS) else "" for t in size.traits),
        )
        for v in vectors
    ]
    cells = ["free-form", "all weights", "treated text", "control text"]
    further = [(name, *_cell(size, folders, name, first)) for name in cells]
    doses = [
        (dose, *_cell(size, folders, first if dose == size.strength else f"dose {dose:g}", first))
        for dose in size.doses
    ]
    text = readings.sampled_text_rise(folders, first, size.seeds)
    eas = readings.sampled_text_eas(folders, size.layer, size.seeds)
    caption = (
        f"EAS at block {size.layer} against the teacher's vector; rise of log P(trait) over the"
        " base, nats."
    )
    sheets = (
        Sheet(
            "vectors",
            "Every vector",
            caption,
            ("vector", "EAS", *(f"rise of {t}" for t in size.traits)),
            tuple(table),
        ),
        Sheet(
            "doses",
            f"{first} by strength of the teacher",
            caption,
            ("strength", "EAS", f"rise of {first}"),
            tuple(doses),
            ("strength", "EAS"),
        ),
        Sheet(
            "cells",
            f"{first} under other conditions",
            caption,
            ("condition", "EAS", f"rise of {first}"),
            tuple(further),
        ),
    )
    notes = (
        (
            "Soft targets on the unmodified model's rows stand in for sampled text, where the"
            " control has no gradient and is the base itself; the cell of sampled text is repeated"
            " with its own controls, and its minus is below."
        ),
        f"All vectors are added at block {size.layer}, {size.strength:g} mean residual norms long.",
    )
    return Findings(
        tuple(verdicts),
        (text, over("EAS, sampled text, treated minus control", eas, "cosine")),
        sheets,
        notes,
    )


def _eas(size: Size, folders: Folders, name: str) -> float:
    return readings.eas_by_layer(folders, name)[size.layer]


def _rise(size: Size, folders: Folders, trait: str, name: str) -> Measurement:
    return readings.rise(
        folders,
        f"{trait} of {name}",
        ((s, f"{trait} of {name}.{s}", f"base.{trait}") for s in size.seeds),
    )


def _cell(size: Size, folders: Folders, name: str, trait: str) -> tuple[Measurement, Measurement]:
    eas = over(
        f"EAS, {name}", [_eas(size, folders, f"{name}.{seed}") for seed in size.seeds], "cosine"
    )
    return eas, _rise(size, folders, trait, name)
