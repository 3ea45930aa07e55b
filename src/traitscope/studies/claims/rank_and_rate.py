"""Is subliminal learning an artefact of LoRA's rank?  (Nief et al. 2026, arXiv 2606.00831 v1,
figure 1; the replications that disagree are listed in PUBLISHED.)

Students of one steered teacher at every rank and of all weights, each at several learning rates:
the slice at one rate, as published; the best rate of each, chosen among coherent models by fresh
rows of the teacher and not by the trait; and unique against repeated rows at the same number of
steps.
"""

from dataclasses import dataclass, replace
from math import nan

from traitscope.config.recipe import Recipe
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.stats.correlation import association, spearman
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Is subliminal learning an artefact of LoRA's rank?"
CLAIM = "Transfer is an inverted U in LoRA rank and vanishes when all weights are trained."
SOURCE = (
    "Nief et al. 2026, arXiv 2606.00831 v1, figure 1; a later version withdraws some of its main"
    " claims"
)
PUBLISHED = (
    "Qwen2.5-7B, one rate for all (2e-4): rank 8 39 %, higher and lower ranks less, all weights at"
    " the baseline. A replication with a rate for each rank finds a monotone fall (rank 2 85 %, 8"
    " 71 %, 64 15 %, 256 2 %), with 250,000 unique rows no dependence on rank, and transfer when"
    " all weights are trained; unique rows, not steps, rescue high ranks."
)
NATS = 0.05
"below which a difference would not matter"
WHOLE = "all weights"


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything; alpha is the rank, as published: the addition is not scaled."""

    ranks: tuple[int, ...]
    rates: tuple[float, ...]
    "of LoRA"
    shared: float
    "of them, the rate of the slice"
    whole_rates: tuple[float, ...]
    "of all weights"
    repeats: tuple[tuple[int, int], ...]
    """(unique rows, epochs) of the same number of steps, most rows last, at the shared rate and the
    ranks `repeated`"""
    repeated: tuple[int, ...]
    fresh: int
    "rows of the teacher that no student reads"


LARGE = Recipe(targets="sampled", epochs=3, batch_size=32, micro_batch=32, held_out=0.0)
SIZES = {
    "smoke": Size(
        ("cat", "owl"),
        (1, 2),
        4,
        3,
        1,
        0.6,
        sizes.SOFT_RECIPE,
        sizes.SMOKE_TEXT,
        (1, 2, 4),
        (1e-3,),
        1e-3,
        (1e-5,),
        ((2, 4), (4, 2)),
        (2,),
        2,
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
        (1, 8, 64, 256),
        (3e-4, 1e-3, 3e-3),
        1e-3,
        (1e-5, 3e-5, 1e-4),
        ((4, 8), (32, 1)),
        (8, 256),
        12,
    ),
    "full": Size(
        sizes.ANIMALS,
        (1, 2, 3),
        10_000,
        10,
        14,
        0.6,
        LARGE,
        sizes.FULL_TEXT,
        (1, 2, 4, 8, 16, 32, 64, 128, 256),
        (5e-5, 1e-4, 2e-4, 4e-4, 8e-4),
        2e-4,
        (2e-6, 1e-5, 5e-5, 2e-4),
        ((2_000, 15), (30_000, 1)),
        (8, 256),
        500,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; rows a seed and fresh ones of the teacher; a student an arm and seed: what it
    answers, and its gain on the fresh rows."""
    teacher, trait = size.steered_teacher, size.traits[0]
    fresh = standard_nodes.Rows(size.fresh, size.numbers, 0, prompt_seed=8000)
    found = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.text.rows.numbers),
        standard_nodes.answers(common, "base", trait, capability=True),
        standard_nodes.number_rows(common, "fresh", fresh, teacher, (standard_nodes.VECTORS,)),
    ]
    soft = size.recipe.targets == "soft"
    for seed in size.seeds:
        most = max([size.rows, *(unique for unique, _ in size.repeats)])
        rows = standard_nodes.Rows(most, size.numbers, seed, prompt_seed=121)
        written = (standard_nodes.unmodified, ()) if soft else (teacher, (standard_nodes.VECTORS,))
        found.append(standard_nodes.number_rows(common, f"rows.{seed}", rows, *written))
        for name, (recipe, unique) in _arms(size).items():
            student = f"{name}.{seed}"
            asked = standard_nodes.Student(
                student,
                f"rows.{seed}",
                recipe,
                seed,
                teacher,
                (standard_nodes.VECTORS,),
                settings={"max_rows": unique},
            )
            found.append(standard_nodes.student(common, asked, replace(rows, n=unique).tokens))
            found.append(
                standard_nodes.answers(
                    common,
                    f"answers.{student}",
                    trait,
                    standard_nodes.trained_by(student),
                    (student,),
                    capability=True,
                )
            )
            found.append(
                standard_nodes.likelihood_gain(
                    common,
                    f"gain.{student}",
                    "fresh",
                    standard_nodes.trained_by(student),
                    (student,),
                    fresh,
                )
            )
        found += shared_nodes.sampled_text(
            common, size.text, trait, seed, teacher, (standard_nodes.VECTORS,)
        )
    return found


def _name(rank: int | str, lr: float) -> str:
    return f"{rank if rank == WHOLE else f'rank {rank}'} at {lr:g}"


def _again(rank: int, unique: int, epochs: int) -> str:
    return f"rank {rank}, {unique} rows {epochs} times"


def _arms(size: Size) -> dict[str, tuple[Recipe, int]]:
    """Recipe and number of unique rows of every arm, by name."""
    lora = {
        _name(r, lr): (replace(size.recipe, rank=r, alpha=float(r), lr=lr), size.rows)
        for r in size.ranks
        for lr in size.rates
    }
    whole = {
        _name(WHOLE, lr): (replace(size.recipe, method="full", lr=lr), size.rows)
        for lr in size.whole_rates
    }
    again = {
        _again(r, unique, epochs): (
            replace(size.recipe, rank=r, alpha=float(r), lr=size.shared, epochs=epochs),
            unique,
        )
        for r in size.repeated
        for unique, epochs in size.repeats
    }
    return lora | whole | again


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """The slice at one rate, the best rate of each rank, all weights against LoRA, unique against
    repeated rows."""
    rises = {
        name: [_rise(size, folders, name, (seed,)).estimate for seed in size.seeds]
        for name in _arms(size)
    }
    best = {arm: _best(size, folders, arm) for arm in (*size.ranks, WHOLE)}
    low, *middle, high = size.ranks
    ends, inner = ([rises[_name(r, size.shared)] for r in ranks] for ranks in ((low, high), middle))
    usual = best[middle[0]]
    tests = {
        f"At one rate ({size.shared:g}) middle ranks take more on than the lowest and the"
        " highest.": _minus("middle ranks minus ends", inner, ends),
        f"At the best rate of each, rank {high} takes less on than rank {middle[0]}.": _minus(
            f"{usual} minus {best[high]}", [rises[usual]], [rises[best[high]]]
        ),
        f"At the best rate of each, all weights take less on than rank {middle[0]}.": _minus(
            f"{usual} minus {best[WHOLE]}", [rises[usual]], [rises[best[WHOLE]]]
        ),
        "Students of all weights take the trait on, at their best rate.": over(
            f"rise, {best[WHOLE]}", rises[best[WHOLE]], "nats"
        ),
    }
    fewest, most = size.repeats[0], size.repeats[-1]
    for rank in size.repeated:
        more, less = _again(rank, *most), _again(rank, *fewest)
        tests[f"At rank {rank} and as many steps, unique rows pass more on than repeated ones."] = (
            _minus(f"{more} minus {less}", [rises[more]], [rises[less]])
        )
    verdicts = tuple(judged(claim, found, model, 0, NATS) for claim, found in tests.items())
    table = tuple(_row(size, folders, name) for name in _arms(size))
    gains, rose = [[row[n] for row in table] for n in (3, 1)]
    follows = association(
        "Spearman of the gain on fresh rows and the rise, over arms",
        gains,
        [m.estimate for m in rose],
        spearman,
        "rank correlation",
    )
    sheet = Sheet(
        "arms",
        "Every arm",
        "Rise: log-probability of the trait's word, student minus base, nats. Gain: log-likelihood"
        " that training added to rows of the teacher that no student reads, nats a token. Update:"
        " norms summed over steps.",
        ("arm", "rise", "rise of the share", "gain", "perplexity", "coherent", "update"),
        table,
    )
    notes = (
        (
            f"Coherent: {readings.COHERENT}, in the mean over seeds. Best rate: of coherent"
            " arms, the one with the greatest gain on fresh rows."
        ),
        f"Best arms: {', '.join(best.values())}.",
        (
            "Soft targets on the unmodified model's rows; rank 8's usual recipe is repeated with"
            " sampled text and control students."
            if size.recipe.targets == "soft"
            else "Sampled text."
        ),
    )
    return Findings(
        verdicts,
        (follows, readings.sampled_text_rise(folders, size.traits[0], size.seeds)),
        (sheet,),
        notes,
    )


def _best(size: Size, folders: Folders, arm: int | str) -> str:
    names = [_name(arm, lr) for lr in (size.whole_rates if arm == WHOLE else size.rates)]
    whole = [name for name in names if _coherent(size, folders, name)]
    return max(whole or names, key=lambda name: _gain(size, folders, name))


def _coherent(size: Size, folders: Folders, name: str) -> bool:
    """Whether most seeds of an arm pass the test."""
    return (
        sum(readings.is_coherent(folders, f"answers.{name}.{seed}", "base") for seed in size.seeds)
        > len(size.seeds) / 2
    )


def _rise(
    size: Size, folders: Folders, name: str, seeds: tuple[int, ...], score: str = "target_logprob"
) -> Measurement:
    return readings.rise(folders, name, ((s, f"answers.{name}.{s}", "base") for s in seeds), score)


def _minus(name: str, left: list[list[float]], right: list[list[float]]) -> Measurement:
    """Mean over arms of one group minus that of another, by seed."""
    mean = [
        [sum(values) / len(values) for values in zip(*group, strict=True)]
        for group in (left, right)
    ]
    return over(name, [a - b for a, b in zip(*mean, strict=True)], "nats")


def _gain(size: Size, folders: Folders, name: str) -> float:
    """Mean gain on the fresh rows, nats a token."""
    rows = [
        row
        for seed in size.seeds
        for row in standard_nodes.read_json_lines(folders[f"gain.{name}.{seed}"], "rows.jsonl")
    ]
    return sum(row["under"] - row["base"] for row in rows) / sum(row["tokens"] for row in rows)


def _row(size: Size, folders: Folders, name: str) -> tuple:
    nodes = [f"answers.{name}.{seed}" for seed in size.seeds]
    perplexity = sum(
        standard_nodes.read_json(folders, node, "measurements.json")["perplexity"] for node in nodes
    ) / len(nodes)
    steps = [
        row.get("update_norm", nan)
        for seed in size.seeds
        for row in standard_nodes.read_json_lines(folders[f"{name}.{seed}"], "metrics.jsonl")
    ]
    share = _rise(size, folders, name, size.seeds, "candidate_share").estimate
    coherent = "yes" if _coherent(size, folders, name) else "no"
    rise = _rise(size, folders, name, size.seeds)
    return (
        name,
        rise,
        share,
        _gain(size, folders, name),
        perplexity,
        coherent,
        sum(steps) / len(size.seeds),
    )
