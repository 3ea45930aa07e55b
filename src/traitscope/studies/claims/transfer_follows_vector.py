"""Do traits transfer if, and only if, their prompt is one vector?  (Blank et al. 2026, arXiv
2606.00995, section 4.)

For every trait a student is distilled from the prompted teacher on number rows that the unmodified
model wrote (soft targets: the teacher's whole distribution on those rows), and the shift of its
answers is set against the share of the prompt that one vector makes up on the same rows.
"""

from dataclasses import dataclass
from math import exp

from traitscope.config.analysis import ExplainConfig
from traitscope.config.recipe import Recipe
from traitscope.reporting.verdict import Findings, Sheet, judged
from traitscope.stats.correlation import association, auc_above, permutation_p, spearman
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Do traits transfer if their prompt is one vector, and only then?"
CLAIM = "Traits whose prompt is well approximated by a steering vector transfer; the others do not."
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 4, figure 5a"
PUBLISHED = (
    "Steering predicts transfer with AUC 0.86 over 16 animals (Qwen2.5-7B); four traits that cannot"
    " be steered do not transfer. Released table for Llama-3.1-8B: Spearman 0.77 between steered"
    " and transferred rates, 2 of 16 above 1 %."
)
HALF = 0.5
"share of the divergence from which on a prompt counts as one vector"
MOVED = 0.1
"nats: a rise of the target's log-probability that counts as transferred"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    seeds: int
    rows: int
    numbers: int
    layers: tuple[int, ...] = sizes.layer_field()
    alphas: tuple[float, ...]
    recipe: Recipe
    text: sizes.SampledText
    "of the first trait's teacher"


SOFT = Recipe(
    targets="soft", epochs=6, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.0
)
ANIMALS = ("cat", "owl", "dolphin", "lion", "octopus", "wolf", "mouse", "pangolin")
OTHERS = ("happiness", "sadness", "anger", "pirate", "chef", "knight", "oak", "zebra")
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
TEXT_SEEDS = (0, 1, 2)
"of the cell of sampled text"
SIZES = {
    "smoke": Size(("cat", "owl", "dog"), 1, 3, 3, (1,), (1.0,), SOFT, sizes.SMOKE_TEXT),
    "laptop": Size(
        ANIMALS + OTHERS, 1, 8, 12, (6, 14, 22), (0.1, 0.3, 1.0), SOFT, sizes.LAPTOP_TEXT
    ),
    "full": Size(
        ANIMALS + OTHERS + MORE,
        3,
        512,
        10,
        tuple(range(1, 30, 2)),
        (0.1, 0.25, 0.5, 1.0, 2.0),
        SOFT,
        sizes.FULL_TEXT,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; neutral rows a seed; for every trait its explanation, its students, and what they
    answer."""
    rows = {
        seed: standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=31)
        for seed in range(size.seeds)
    }
    found = [
        standard_nodes.vectors(common, size.traits),
        *(standard_nodes.number_rows(common, f"rows.{seed}", r) for seed, r in rows.items()),
    ]
    found.append(standard_nodes.eas_rows(common, size.text.rows.numbers))
    for seed in TEXT_SEEDS:
        found += shared_nodes.sampled_text(
            common,
            size.text,
            size.traits[0],
            seed,
            lambda _: (standard_nodes.prompted(size.traits[0]),),
        )
    for trait in size.traits:
        found += [
            _explained(size, common, trait, rows[0].tokens),
            standard_nodes.answers(common, f"base.{trait}", trait),
        ]
        for seed, these in rows.items():
            name, teacher = f"student.{trait}.{seed}", (standard_nodes.prompted(trait),)
            asked = standard_nodes.Student(
                name, f"rows.{seed}", size.recipe, seed, lambda _, teacher=teacher: teacher
            )
            found.append(standard_nodes.student(common, asked, these.tokens))
            found.append(
                standard_nodes.answers(
                    common,
                    f"answers.{trait}.{seed}",
                    trait,
                    standard_nodes.trained_by(name),
                    (name,),
                )
            )
    return found


def _explained(size: Size, common: dict, trait: str, tokens: int) -> Node:
    def asked(folders: Folders) -> ExplainConfig:
        grid = {
            "layers": size.layers,
            "alphas": size.alphas,
            "positions": ("all",),
            "others": 1,
            "randoms": 1,
        }
        inputs = {"vectors": folders[standard_nodes.VECTORS], "data": folders["rows.0"]}
        return ExplainConfig(**common, **grid, **inputs, trait=trait, max_rows=min(size.rows, 6))

    cells = (2 * len(size.layers) + 5) * len(size.alphas)
    return Node(
        f"share.{trait}",
        ExplainConfig,
        asked,
        (standard_nodes.VECTORS, "rows.0"),
        0.7 * cells * tokens,
    )


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Rise of the target's log-probability by trait; its rank correlation with the share;
    discrimination at MOVED."""
    shares = {t: _share(folders, t) for t in size.traits}
    rises = {t: _rise(size, folders, t) for t in size.traits}
    x, y = [shares[t]["raw"] for t in size.traits], [rises[t].estimate for t in size.traits]
    centred = [shares[t]["centred"] for t in size.traits]
    rank = association("Spearman of share and rise", x, y, spearman, "rank correlation")
    own = association(
        "Spearman of the trait's own share and rise", centred, y, spearman, "rank correlation"
    )
    auc = association(
        f"AUC of share for a rise above {MOVED:g} nats", x, y, auc_above(MOVED), "AUC"
    )
    p = permutation_p(x, y, spearman)
    below = [t for t in size.traits if shares[t]["raw"] < HALF]
    moved = [t for t in below if rises[t].low > 0 and rises[t].estimate > MOVED]
    stayed = measure(
        f"share of traits under {HALF:g} that did not rise",
        [float(t not in moved) for t in below],
        unit="share",
    )
    verdicts = (
        judged(
            "Most traits whose prompt is not one vector do not transfer.", stayed, model, 0.5, 0.1
        ),
        judged(
            "The better a vector approximates a prompt, the more its trait transfers.",
            rank,
            model,
            0,
            0.2,
        ),
        judged(
            "The share of a prompt that a vector makes up tells transferred traits from others.",
            auc,
            model,
            0.5,
            0.1,
        ),
    )
    rows = tuple(
        (t, shares[t]["raw"], shares[t]["centred"], rises[t], _rate(size, folders, t))
        for t in size.traits
    )
    notes = (
        (
            "Soft targets stand in for sampled text: the student sees the teacher's whole"
            " distribution on rows that the unmodified model wrote. A student distilled from the"
            " unmodified model has no gradient: the base is the control. Students of the first"
            " trait's teacher are repeated with sampled text and its own controls."
        ),
        f"Permutation p of the rank correlation, one-sided: {p:.4f}.",
        (
            "The claim is one-sided: no trait without a vector transfers. Traits with a share"
            f" under {HALF:g}: {len(below)}; of them with a rise above {MOVED:g} nats whose"
            f" interval lies above zero: {', '.join(moved) or 'none'}."
        ),
    )
    sheet = Sheet(
        "traits",
        "Share and transfer by trait",
        "Share: of the divergence on number rows, cross-fitted. Rise: log-probability of the"
        " trait's word, student minus base, nats; interval over seeds, or questions with one seed.",
        ("trait", "share", "share of the centred vector", "rise", "rate, student"),
        rows,
    )
    return Findings(
        verdicts,
        (own, readings.sampled_text_rise(folders, size.traits[0], TEXT_SEEDS)),
        (sheet,),
        notes,
    )


def _share(folders: Folders, trait: str) -> dict[str, float]:
    kinds = standard_nodes.read_json(folders, f"share.{trait}")["kinds"]
    return {kind: about["share"]["estimate"] for kind, about in kinds.items()}


def _rise(size: Size, folders: Folders, trait: str) -> Measurement:
    pairs = ((seed, f"answers.{trait}.{seed}", f"base.{trait}") for seed in range(size.seeds))
    return readings.rise(folders, f"rise of {trait}", pairs)


def _rate(size: Size, folders: Folders, trait: str) -> float:
    found = [
        exp(v)
        for seed in range(size.seeds)
        for v in readings.positive_scores(folders, f"answers.{trait}.{seed}").values()
    ]
    return sum(found) / len(found)
