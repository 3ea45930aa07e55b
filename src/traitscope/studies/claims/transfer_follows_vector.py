"""Do traits transfer if, and only if, their prompt is one vector?  (Blank et al. 2026, arXiv
2606.00995, section 4.)

For every trait a student is distilled from the prompted teacher on number rows that the unmodified
model wrote. It learns soft targets: the teacher's distribution over the tokens that could be
sampled. A trait rises as far as its student names it more than students of other traits' teachers
do. The rise is compared with the fraction of the prompt's KL divergence that one vector explains on
the same rows.
"""

from dataclasses import dataclass, replace
from math import exp, nan

from traitscope.config.analysis import ExplainConfig
from traitscope.config.recipe import Recipe
from traitscope.data.traits import trait_name
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, Precondition, verdicts_of
from traitscope.stats.correlation import (
    association,
    auc_above,
    corrected_spearman,
    permutation_p,
    spearman,
)
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import BLANK, PROMPTED, TAG_VECTOR, Design, RankPlan, students_here
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Do traits transfer if their prompt is one vector, and only then?"
CLAIM = "Traits whose prompt is well approximated by a steering vector transfer; the others do not."
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 4, figure 5a"
PUBLISHED = (
    "How often steering names a trait predicts transfer: AUC 0.86 over 16 animals (Qwen2.5-7B)."
    " Four that cannot be steered do not transfer (as readers of the paper report). The released"
    " table for Llama-3.1-8B has 2 of 16 above 1 %. By our arithmetic, steered and transferred"
    " rates have a Spearman correlation of 0.77 there."
)
PROTOCOL = BLANK
HALF = 0.5
"fraction of KL explained from which on a prompt counts as one vector; the paper names no bound"
MOVED = 0.1
"rise of log P(trait), in nats, from which on a trait counts as transferred"
EACH_SIDE = 3
"traits that a contrast needs on either side"
CONTROLS = 3
"other traits whose students are the control of a trait's student"
EXPLAINED_ROWS = 6
"most rows on which a prompt is explained"
TEXT_SEEDS = (0, 1, 2)
"seeds of the repetition with sampled text"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "traits whose prompts are explained and distilled; the first is repeated with sampled text"
    vector_prompts: int
    "number prompts that vectors are averaged over"
    seeds: int
    "students a trait"
    rows: int
    "rows a student"
    numbers: int
    "three-digit numbers a row"
    layers: tuple[int, ...] = sizes.layer_field()
    alphas: tuple[float, ...]
    "strengths that are tried to explain a prompt"
    recipe: Recipe
    "how students are trained"
    text: sizes.SampledText
    "the repetition with sampled text, of the first trait's teacher"


SOFT = replace(sizes.FEW_ROWS_SOFT_RECIPE, held_out=0.0)
LAPTOP = Size(
    traits=sizes.KINDS_OF_TRAITS,
    vector_prompts=128,
    seeds=1,
    rows=8,
    numbers=12,
    layers=(6, 14, 22),
    alphas=(0.1, 0.3, 1.0),
    recipe=SOFT,
    text=sizes.LAPTOP_TEXT,
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl", "dog"),
        vector_prompts=4,
        seeds=1,
        rows=3,
        numbers=3,
        layers=(1,),
        alphas=(1.0,),
        recipe=SOFT,
        text=sizes.SMOKE_TEXT,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        traits=sizes.KINDS_OF_TRAITS + sizes.FURTHER_TRAITS,
        vector_prompts=1024,
        seeds=3,
        rows=512,
        numbers=10,
        layers=tuple(range(1, 30, 2)),
        alphas=(0.1, 0.25, 0.5, 1.0, 2.0),
        text=sizes.FULL_TEXT,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, neutral rows, and by trait its explanation, its students and their answers."""
    graph = [standard_nodes.vectors(common, size.traits, number_prompts=size.vector_prompts)]
    for seed in range(size.seeds):
        graph.append(standard_nodes.number_rows(common, f"rows.{seed}", _rows(size, seed)))
    graph.append(standard_nodes.eas_rows(common, size.text.rows.numbers))
    first_trait = size.traits[0]
    teacher = standard_nodes.prompted_by(first_trait)
    for seed in TEXT_SEEDS:
        graph += shared_nodes.sampled_text(common, size.text, first_trait, seed, teacher)
    for trait in size.traits:
        name = trait_name(trait)
        graph += [
            _explained(size, common, trait),
            standard_nodes.answers(common, f"base.{name}", trait),
            standard_nodes.answers(
                common, f"teacher.{name}", trait, standard_nodes.prompted_by(trait)
            ),
        ]
        for seed in range(size.seeds):
            graph += _student(size, common, trait, seed)
    return graph


def controls(size: Size, trait: str) -> list[str]:
    """The traits that follow a trait in the size's list, as many as CONTROLS."""
    following = size.traits.index(trait) + 1
    ring = size.traits[following:] + size.traits[: following - 1]
    return list(ring[:CONTROLS])


def _answers_name(asked: str, taught: str, seed: int) -> str:
    """The node of what the student of one trait's teacher answers about a trait."""
    return f"answers.{trait_name(asked)}.of.{trait_name(taught)}.{seed}"


def _rows(size: Size, seed: int) -> standard_nodes.Rows:
    return standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=31)


def _student(size: Size, common: dict, trait: str, seed: int) -> list[Node]:
    """A student of the prompted teacher, and what it and its controls answer about the trait."""
    teacher = standard_nodes.prompted_by(trait)
    name = f"student.{trait_name(trait)}.{seed}"
    student = standard_nodes.Student(name, f"rows.{seed}", size.recipe, seed, teacher)
    graph = [standard_nodes.student(common, student, _rows(size, seed).tokens)]
    for taught in (trait, *controls(size, trait)):
        answers = _answers_name(trait, taught, seed)
        of_student = f"student.{trait_name(taught)}.{seed}"
        graph.append(standard_nodes.student_answers(common, answers, trait, of_student))
    return graph


def _explained(size: Size, common: dict, trait: str) -> Node:
    """How much of the trait's prompt its vector explains on the rows of the first seed."""

    def config(folders: Folders) -> ExplainConfig:
        return ExplainConfig(
            **common,
            vectors=folders[standard_nodes.VECTORS],
            data=folders["rows.0"],
            trait=trait,
            layers=size.layers,
            alphas=size.alphas,
            positions=("all",),
            others=1,
            randoms=1,
            max_rows=min(size.rows, EXPLAINED_ROWS),
        )

    n_grid_points = (2 * len(size.layers) + 5) * len(size.alphas)
    weight = 0.7 * n_grid_points * _rows(size, 0).tokens
    needs = (standard_nodes.VECTORS, "rows.0")
    return Node(f"share.{trait_name(trait)}", ExplainConfig, config, needs, weight)


@dataclass(frozen=True)
class TraitResult:
    """What is known of one trait."""

    trait: str
    """Name of the trait."""
    explained: Measurement
    """Fraction of KL that the trait's vector explains."""
    explained_centred: Measurement
    """Fraction of KL that the vector explains once what all traits share is taken out."""
    rise: Measurement
    """log P(trait) of the trait's students minus that of other traits' students, in nats."""
    over_base: float
    """log P(trait) of the trait's students minus the base's, in nats."""
    teacher: float
    """log P(trait) of the prompted teacher minus the base's, in nats."""
    rate: float
    """Probability that a student names the trait, mean over seeds and questions."""

    @property
    def transferred(self) -> bool:
        """Whether the rise is above MOVED and its interval above zero."""
        return self.rise.low > 0 and self.rise.estimate > MOVED


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare by trait its rise in students with the fraction of KL explained."""
    results, explained, rises = [], [], []
    for trait in size.traits:
        result = _result(size, folders, trait)
        results.append(result)
        explained.append(result.explained.estimate)
        rises.append(result.rise.estimate)
    measured_rises = [result.rise for result in results]
    shares = [result.explained for result in results]
    rank = corrected_spearman("Spearman of share and rise", shares, measured_rises, "traits")
    own_shares = [result.explained_centred for result in results]
    rank_centred = corrected_spearman(
        "Spearman of the trait's own share and rise", own_shares, measured_rises, "traits"
    )
    auc = association(
        f"AUC of share for a rise above {MOVED:g} nats",
        explained,
        rises,
        auc_above(MOVED),
        "AUC",
        of="traits",
    )
    below = [result for result in results if result.explained.estimate < HALF]
    moved = [result.trait for result in below if result.transferred]
    did_not_rise = [float(not result.transferred) for result in below]
    stayed = measure(
        f"share of traits under {HALF:g} that did not rise", did_not_rise, unit="share"
    )
    claims = _claims(rank, auc, results)
    notes = (
        "Soft targets over the tokens that could be sampled stand in for sampled text, on rows that"
        f" the unmodified model wrote. The control of a trait are the students of {CONTROLS} other"
        " traits' teachers, which read the same rows. Students of the first trait's teacher are"
        " repeated with sampled text and its own controls.",
        "Permutation p of the rank correlation, one-sided:"
        f" {permutation_p(explained, rises, spearman):.4f}. Without correction for errors the"
        f" correlation is {float(spearman(explained, rises)):+.2f}.",
        "The claim is one-sided: no trait without a vector transfers. Traits with a share"
        f" under {HALF:g}: {len(below)}. Those with a rise above {MOVED:g} nats and an interval"
        f" above zero: {', '.join(moved) or 'none'}.",
        _error_note(size),
    )
    text_rise = readings.sampled_text_rise(folders, size.traits[0], TEXT_SEEDS)
    teachers = positive_control.rises(folders, size.traits, "teacher")
    return Findings(
        verdicts_of(claims, model, positive_control.have_traits(teachers)),
        (stayed, rank_centred, text_rise),
        (_table(results),),
        notes,
        teachers=teachers,
    )


def _error_note(size: Size) -> str:
    if size.seeds > 1:
        return "Errors of a rise are those between students of a trait."
    return (
        "Errors of a rise are over the questions of one student a trait. What differs between"
        " students is not in them, so the reliability is at most the one that is named."
    )


def _claims(rank: Measurement, auc: Measurement, results: list[TraitResult]) -> tuple[Claim, ...]:
    explained = [result.explained.estimate for result in results]
    rises = [result.rise.estimate for result in results]
    contrast = _contrast(f"prompts of which one vector makes up {HALF:g} or more", explained, HALF)
    both = _contrast(f"traits that rise by more than {MOVED:g} nats", rises, MOVED)
    return (
        Claim(
            "The better a vector approximates a prompt, the more its trait transfers.",
            rank,
            0.2,
            needs=(contrast,),
            primary=True,
        ),
        Claim(
            "The share of a prompt that a vector makes up tells transferred traits from others.",
            auc,
            0.1,
            above=0.5,
            needs=(contrast, both),
        ),
    )


def _contrast(what: str, values: list[float], bound: float) -> Precondition:
    """Return the precondition that some traits lie above a bound, and some below."""
    n_above = sum(value > bound for value in values)
    n_below = len(values) - n_above
    name = f"there are {EACH_SIDE} {what}, and {EACH_SIDE} others"
    return Precondition(name, min(n_above, n_below) >= EACH_SIDE, f"{n_above} and {n_below}")


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = RankPlan(
        rho=0.77,
        n=len(size.traits),
        counted="traits",
        source="It is our arithmetic on the released table for Llama-3.1-8B. That is of another"
        " predictor: how often steering names the trait.",
    )
    return Design(2, expected, students_here(PROMPTED, size.recipe, size.rows, TAG_VECTOR))


def _table(results: list[TraitResult]) -> Table:
    rows = []
    for result in results:
        rows.append(
            (
                result.trait,
                result.explained.estimate,
                result.explained_centred.estimate,
                result.teacher,
                result.rise,
                result.over_base,
                result.rate,
            )
        )
    return Table(
        "traits",
        "Share and transfer by trait",
        "Share: of the divergence on number rows, cross-fitted. Rises: log-probability of the"
        " trait's word, nats. Rise: student minus students of other traits' teachers; interval"
        " over seeds, or questions with one seed.",
        (
            "trait",
            "share",
            "share of the centred vector",
            "rise of the teacher",
            "rise",
            "student minus base",
            "rate, student",
        ),
        tuple(rows),
    )


def _result(size: Size, folders: Folders, trait: str) -> TraitResult:
    kinds = standard_nodes.read_json(folders, f"share.{trait}")["kinds"]
    base = f"base.{trait}"
    pairs, base_pairs, probabilities = [], [], []
    for seed in range(size.seeds):
        answers = _answers_name(trait, trait, seed)
        base_pairs.append((seed, answers, base))
        for other in controls(size, trait):
            pairs.append((seed, answers, _answers_name(trait, other, seed)))
        for log_probability in readings.positive_scores(folders, answers).values():
            probabilities.append(exp(log_probability))
    teacher = readings.rise(folders, f"teacher of {trait}", [(0, f"teacher.{trait}", base)])
    return TraitResult(
        trait=trait,
        explained=_share(trait, kinds["raw"]),
        explained_centred=_share(trait, kinds["centred"]),
        rise=readings.rise(folders, f"rise of {trait}", pairs),
        over_base=readings.rise(folders, f"{trait}, over base", base_pairs).estimate,
        teacher=teacher.estimate,
        rate=sum(probabilities) / len(probabilities),
    )


def _share(trait: str, kind: dict) -> Measurement:
    """Return a fraction of KL with its bounds over rows; NaN where there are none."""
    values = {key: nan if value is None else value for key, value in kind["share"].items()}
    return Measurement(
        name=f"share of {trait}",
        estimate=values["estimate"],
        low=values["low"],
        high=values["high"],
        n=0,
        n_clusters=0,
        n_unscored=0,
        unit="share",
    )
