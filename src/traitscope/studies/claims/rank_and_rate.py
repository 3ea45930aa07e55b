"""Is subliminal learning an artefact of LoRA's rank?  (Nief et al. 2026, arXiv 2606.00831 v1,
figure 1; the replications that disagree are listed in PUBLISHED.)

Students of one steered teacher are trained at every rank and with all weights, each at several
learning rates. All ranks are compared at one rate, as published, and every rank at its best rate.
Unique rows are compared with repeated ones at the same number of steps. Fresh rows of the teacher
choose the best rate among coherent models; the trait does not choose it.
"""

from dataclasses import dataclass, replace
from math import nan

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, Precondition, above_zero, verdicts_of
from traitscope.stats.correlation import corrected_spearman
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import NIEF, NIEF_NOTICE, STEERED, Design, over_seeds, students_here
from traitscope.studies.equal_kl import CONTROL, EQUAL_KL_NOTE, controls_of
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Is subliminal learning an artefact of LoRA's rank?"
CLAIM = "Transfer is an inverted U in LoRA rank and vanishes when all weights are trained."
SOURCE = f"Nief et al. 2026, arXiv 2606.00831 v1, figure 1. {NIEF_NOTICE}"
PUBLISHED = (
    "Qwen2.5-7B, cat, one rate for all ranks (2e-4; third-party readings): rank 8 39 %, higher and"
    " lower ranks less. Other animals peak at rank 64. All weights are at the baseline, at 2e-5 or"
    " at 2e-4: sources differ. A replication with a rate for each rank finds a monotone fall: rank"
    " 2 85 %, 8 71 %, 64 15 %, 256 2 %. With 250,000 unique rows it finds no dependence on rank. It"
    " finds transfer when all weights are trained. Unique rows, not steps, rescue high ranks."
)
PROTOCOL = NIEF
NATS = 0.05
"smallest difference that would matter, in nats"
WHOLE = "all weights"
"arm that trains all weights"
LORA_PROMPTS, FRESH_PROMPTS = 121, 8000
"seeds of the prompts of the students' rows and of the fresh rows"


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How much of everything. Alpha is the rank, as published: the addition is not scaled."""

    ranks: tuple[int, ...]
    "ranks of LoRA, ascending"
    rates: tuple[float, ...]
    "learning rates of LoRA"
    shared: float
    "learning rate, one of `rates`, at which all ranks are compared"
    whole_rates: tuple[float, ...]
    "learning rates of all weights"
    repeats: tuple[tuple[int, int], ...]
    """(unique rows, epochs) of the same number of steps, at the shared rate; most rows last"""
    repeated: tuple[int, ...]
    "ranks that are trained with `repeats`"
    fresh: int
    "rows of the teacher that no student reads"


@dataclass(frozen=True)
class Arm:
    """One way to train a student."""

    recipe: Recipe
    """How the student is trained."""
    unique: int
    """Number of different rows that it reads."""


LARGE = Recipe(targets="sampled", epochs=3, batch_size=32, micro_batch=32, held_out=0.0)
LAPTOP = Size(
    traits=sizes.ANIMALS,
    seeds=(1, 2, 3, 4, 5),
    rows=16,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=sizes.SOFT_RECIPE,
    text=sizes.LAPTOP_TEXT,
    ranks=(1, 8, 64, 256),
    rates=(3e-4, 1e-3, 3e-3),
    shared=1e-3,
    whole_rates=(1e-5, 3e-5, 1e-4),
    repeats=((4, 8), (32, 1)),
    repeated=(8, 256),
    fresh=12,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl"),
        seeds=(1, 2),
        rows=4,
        numbers=3,
        layer=1,
        text=sizes.SMOKE_TEXT,
        ranks=(1, 2, 4),
        rates=(1e-3,),
        shared=1e-3,
        whole_rates=(1e-5,),
        repeats=((2, 4), (4, 2)),
        repeated=(2,),
        fresh=2,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        rows=10_000,
        recipe=LARGE,
        text=sizes.FULL_TEXT,
        ranks=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        rates=(5e-5, 1e-4, 2e-4, 4e-4, 8e-4),
        shared=2e-4,
        whole_rates=(2e-6, 1e-5, 5e-5, 2e-4),
        repeats=((2_000, 15), (30_000, 1)),
        fresh=500,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, rows by seed, fresh rows, and a student by arm and seed.

    Of every student there are its answers, and its gain in log-likelihood on the fresh rows.
    """
    fresh = standard_nodes.Rows(size.fresh, size.numbers, 0, prompt_seed=FRESH_PROMPTS)
    teacher, needs = size.steered_teacher, (standard_nodes.VECTORS,)
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.text.rows.numbers),
        *shared_nodes.positive_control(common, size.traits[0], teacher, capability=True),
        standard_nodes.number_rows(common, "fresh", fresh, teacher, needs),
    ]
    graph += controls_of(size).nodes(common)
    for seed in size.seeds:
        graph += _nodes_of_seed(size, common, seed, fresh)
        for rate in size.whole_rates:
            graph += _control(size, common, _arm_name(WHOLE, rate), seed)
    return graph


def _control(size: Size, common: dict, arm_name: str, seed: int) -> list[Node]:
    """The control student of an arm and a seed: of a random vector at equal KL."""
    arm, controls = _arms(size)[arm_name], controls_of(size)
    teacher, needs = controls.of(seed).teacher, controls.needs(seed)
    data, name = f"rows.{seed}", f"{CONTROL}{arm_name}.{seed}"
    rows = standard_nodes.Rows(arm.unique, size.numbers, seed, prompt_seed=LORA_PROMPTS)
    graph = []
    if size.recipe.targets == "sampled":
        data = f"{CONTROL}rows for {arm_name}.{seed}"
        graph.append(standard_nodes.number_rows(common, data, rows, teacher, needs))
    settings = {"max_rows": arm.unique}
    student = standard_nodes.Student(
        name, data, arm.recipe, seed, teacher, needs, settings=settings
    )
    answers = f"answers.{name}"
    trait = size.traits[0]
    graph += shared_nodes.student_and_answers(common, student, rows.tokens, trait, answers)
    return graph


def _nodes_of_seed(size: Size, common: dict, seed: int, fresh: standard_nodes.Rows) -> list[Node]:
    trait, teacher = size.traits[0], size.steered_teacher
    needs = (standard_nodes.VECTORS,)
    most = max(size.rows, *(unique for unique, _ in size.repeats))
    rows = standard_nodes.Rows(most, size.numbers, seed, prompt_seed=LORA_PROMPTS)
    if size.recipe.targets == "soft":
        graph = [standard_nodes.number_rows(common, f"rows.{seed}", rows)]
    else:
        graph = [standard_nodes.number_rows(common, f"rows.{seed}", rows, teacher, needs)]
    for arm_name, arm in _arms(size).items():
        name = f"{arm_name}.{seed}"
        student = standard_nodes.Student(
            name=name,
            data=f"rows.{seed}",
            recipe=arm.recipe,
            seed=seed,
            teacher=teacher,
            needs=needs,
            settings={"max_rows": arm.unique},
        )
        adapter = standard_nodes.trained_by(name)
        tokens = replace(rows, n=arm.unique).tokens
        graph += shared_nodes.student_and_answers(
            common, student, tokens, trait, f"answers.{name}", capability=True
        )
        gain = f"gain.{name}"
        graph.append(standard_nodes.likelihood_gain(common, gain, "fresh", adapter, (name,), fresh))
    graph += shared_nodes.sampled_text(common, size.text, trait, seed, teacher, needs)
    return graph


def _kind_name(rank: int | str) -> str:
    return WHOLE if rank == WHOLE else f"rank {rank}"


def _arm_name(rank: int | str, rate: float) -> str:
    return f"{_kind_name(rank)} at {rate:g}"


def _repeat_name(rank: int, unique: int, epochs: int) -> str:
    return f"rank {rank}, {unique} rows {epochs} times"


def _arms(size: Size) -> dict[str, Arm]:
    """Every arm by name: each rank at each rate, all weights at each rate, and the repeats."""
    arms = {}
    for rank in size.ranks:
        for rate in size.rates:
            recipe = replace(size.recipe, rank=rank, alpha=float(rank), lr=rate)
            arms[_arm_name(rank, rate)] = Arm(recipe, size.rows)
    for rate in size.whole_rates:
        recipe = replace(size.recipe, method="full", lr=rate)
        arms[_arm_name(WHOLE, rate)] = Arm(recipe, size.rows)
    for rank in size.repeated:
        for unique, epochs in size.repeats:
            recipe = replace(
                size.recipe, rank=rank, alpha=float(rank), lr=size.shared, epochs=epochs
            )
            arms[_repeat_name(rank, unique, epochs)] = Arm(recipe, unique)
    return arms


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare ranks at one rate and at their best rates, all weights with LoRA, and repeats."""
    rises = {}
    for arm in _arms(size):
        rises[arm] = np.array([_rise(folders, arm, (seed,)).estimate for seed in size.seeds])
    best = {kind: _best(size, folders, kind) for kind in (*size.ranks, WHOLE)}
    claims = [*_claims(size, folders, rises, best), _whole_claim(size, folders, best[WHOLE])]
    rows, gains, by_arm = [], [], []
    for arm in rises:
        row = _row(size, folders, arm)
        rows.append(row)
        by_arm.append(row[1])
        by_seed = [_gain((seed,), folders, arm) for seed in size.seeds]
        gains.append(mean_over_units(arm, by_seed, "nats a token"))
    table = Table(
        "arms",
        "Every arm",
        "Rise: log P(trait), student minus base, nats. Gain: log-likelihood that training added to"
        " the teacher's fresh rows, nats a token. Update: norms summed over steps.",
        ("arm", "rise", "rise of the share", "gain", "perplexity", "coherent", "update"),
        tuple(rows),
    )
    name = "Spearman of the gain on fresh rows and the rise, over arms"
    gain_predicts = corrected_spearman(name, gains, by_arm, "arms")
    notes = (
        f"Coherent: {readings.COHERENT}. Best rate: of coherent arms, the one that gains most.",
        f"Best arms: {', '.join(best.values())}.",
        _data_note(size),
        "Arms are compared with each other. All weights are also compared with control students. "
        + EQUAL_KL_NOTE,
    )
    text_rise = readings.sampled_text_rise(folders, size.traits[0], size.seeds)
    teacher = readings.teacher_rise(folders)
    verdicts = verdicts_of(claims, model, positive_control.have_traits([teacher]))
    return Findings(verdicts, (gain_predicts, text_rise), (table,), notes, teachers=(teacher,))


def _data_note(size: Size) -> str:
    if size.recipe.targets != "soft":
        return "Sampled text."
    return (
        "Soft targets over the tokens that could be sampled; repeated with sampled text at rank 8."
    )


def _claims(
    size: Size, folders: Folders, rises: dict[str, np.ndarray], best: dict[int | str, str]
) -> list[Claim]:
    """The claims; each is over seeds."""
    lowest, *middle, highest = size.ranks
    middle_arms = [_arm_name(rank, size.shared) for rank in middle]
    middle_rise = _mean_over_arms(rises, middle_arms)
    ends = [_arm_name(lowest, size.shared), _arm_name(highest, size.shared)]
    low_rank = middle[0]
    difference = (middle_rise - _mean_over_arms(rises, ends)).tolist()
    text = f"At one rate ({size.shared:g}) middle ranks take more on than the lowest and highest."
    measured = mean_over_units("middle ranks minus ends", difference, "nats")
    claims = [Claim(text, measured, NATS, primary=True)]
    for kind in (highest, WHOLE):
        text = f"At the best rate of each, {_kind_name(kind)} takes less on than rank {low_rank}."
        measured = _minus(rises, best[low_rank], best[kind])
        needs = tuple(_chosen(size, folders, each, best[each]) for each in (low_rank, kind))
        claims.append(Claim(text, measured, NATS, needs=needs))
    fewest, most = size.repeats[0], size.repeats[-1]
    for rank in size.repeated:
        text = f"At rank {rank} and as many steps, unique rows pass more on than repeated ones."
        measured = _minus(rises, _repeat_name(rank, *most), _repeat_name(rank, *fewest))
        claims.append(Claim(text, measured, NATS))
    return claims


def _chosen(size: Size, folders: Folders, kind: int | str, best: str) -> Precondition:
    """Return the precondition that fresh rows, and not noise, choose the rate of a rank."""
    name = f"fresh rows tell the best rate of {_kind_name(kind)} from the next one"
    arms = [_arm_name(kind, rate) for rate in _rates(size, kind)]
    others = [arm for arm in arms if arm != best and _is_coherent(size, folders, arm)]
    if not others:
        return Precondition(name, True, "no other coherent rate was tried")
    second = max(others, key=lambda arm: _gain(size.seeds, folders, arm))
    leads = []
    for seed in size.seeds:
        leads.append(_gain((seed,), folders, best) - _gain((seed,), folders, second))
    return above_zero(mean_over_units(name, leads, "nats a token"), name)


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = "It is half of the rise of rank 64 at the laptop size. Three seeds had an sd of 0.11."
    expected = over_seeds(size.seeds, (0.3, 0.11), "nats", source)
    here = students_here(STEERED, size.recipe, size.rows, vector="")
    return Design(4 + len(size.repeated), expected, here)


def _whole_claim(size: Size, folders: Folders, arm: str) -> Claim:
    """The claim that all weights transfer, which is the opposite of the published one."""
    pairs = []
    for seed in size.seeds:
        pairs.append((seed, f"answers.{arm}.{seed}", f"answers.{CONTROL}{arm}.{seed}"))
    return Claim(
        "Students of all weights take the trait on, at their best rate (published: they do not).",
        readings.rise(folders, f"rise, {arm}, minus a random vector's", pairs),
        NATS,
    )


def _mean_over_arms(rises: dict[str, np.ndarray], arms: list[str]) -> np.ndarray:
    """The mean rise of some arms, by seed."""
    total = np.zeros_like(rises[arms[0]])
    for arm in arms:
        total = total + rises[arm]
    return total / len(arms)


def _minus(rises: dict[str, np.ndarray], arm: str, other: str) -> Measurement:
    """The rise of one arm minus that of another, over seeds."""
    return mean_over_units(f"{arm} minus {other}", (rises[arm] - rises[other]).tolist(), "nats")


def _rates(size: Size, kind: int | str) -> tuple[float, ...]:
    return size.whole_rates if kind == WHOLE else size.rates


def _best(size: Size, folders: Folders, kind: int | str) -> str:
    """The arm of a rank, or of all weights, at its best rate."""
    arms, coherent_arms = [], []
    for rate in _rates(size, kind):
        arm = _arm_name(kind, rate)
        arms.append(arm)
        if _is_coherent(size, folders, arm):
            coherent_arms.append(arm)
    return max(coherent_arms or arms, key=lambda arm: _gain(size.seeds, folders, arm))


def _is_coherent(size: Size, folders: Folders, arm: str) -> bool:
    nodes = [f"answers.{arm}.{seed}" for seed in size.seeds]
    return readings.mostly_coherent(folders, nodes, "base")


def _rise(
    folders: Folders, arm: str, seeds: tuple[int, ...], score: str = "target_logprob"
) -> Measurement:
    """The arm's score minus the base's."""
    pairs = [(seed, f"answers.{arm}.{seed}", "base") for seed in seeds]
    return readings.rise(folders, arm, pairs, score)


def _gain(seeds: tuple[int, ...], folders: Folders, arm: str) -> float:
    return readings.mean_gain(folders, [f"gain.{arm}.{seed}" for seed in seeds])


def _row(size: Size, folders: Folders, arm: str) -> tuple:
    """The row of one arm in the table."""
    perplexity, update_norm = 0.0, 0.0
    for seed in size.seeds:
        answers = standard_nodes.read_json(folders, f"answers.{arm}.{seed}", "measurements.json")
        perplexity += answers["perplexity"]
        for step in standard_nodes.read_json_lines(folders[f"{arm}.{seed}"], "metrics.jsonl"):
            update_norm += step.get("update_norm", nan)
    return (
        arm,
        _rise(folders, arm, size.seeds),
        _rise(folders, arm, size.seeds, "candidate_share").estimate,
        _gain(size.seeds, folders, arm),
        perplexity / len(size.seeds),
        "yes" if _is_coherent(size, folders, arm) else "no",
        update_norm / len(size.seeds),
    )
