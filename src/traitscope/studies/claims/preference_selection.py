"""Does a teacher pass its trait on by choosing among pairs that others wrote?

Published by Aden-Ali et al. 2026, arXiv 2602.04863, and Magistrali et al. 2026, arXiv 2603.01204.
Both are known here from third parties.

The teacher writes no row. Two answers of the unmodified model to everyday prompts are a pair, and
stand for other people's pairs. One of them is called chosen at random: it was sampled first. The
teacher, the model with the trait's system prompt, keeps the pairs whose chosen answer it moves up
most. Students learn these pairs by DPO.

    pool ─ select by the trait's teacher      ─ student
         ├ select by another trait's teacher  ─ student
         └ as many pairs at random            ─ student

All three have one pool, as many pairs, one initialisation and one order of seeds.
"""

from dataclasses import dataclass, replace

from traitscope.config.recipe import Recipe
from traitscope.config.rows.reading import Reading
from traitscope.config.rows.select import SelectConfig
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, above_zero, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes
from traitscope.studies.design import (
    PREFERENCES,
    PROMPTED,
    Design,
    Experiment,
    over_seeds,
    students_here,
)
from traitscope.studies.shared_nodes import BASE, TEACHER
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import Rows, Student, prompted_by

TITLE = "Does a teacher pass its trait on by choosing among pairs that others wrote?"
CLAIM = (
    "Students of the pairs that a trait's system prompt favours most take the trait on, although"
    " others wrote every answer."
)
SOURCE = (
    "Aden-Ali et al. 2026, arXiv 2602.04863, and Magistrali et al. 2026, arXiv 2603.01204; read"
    " through third parties"
)
PUBLISHED = (
    "Pairs are scored by how far the trait's system prompt moves the log-odds of the chosen answer."
    " DPO on the top few per cent elicits the trait (LoRA rank 64, rate 1e-4, beta 0.04). In a"
    " public re-run on OLMo-2-1B, the top 5 % for owls give 53 %, random pairs 7 %. Preference"
    " labels alone carry a trait (Magistrali et al.). These are third-party readings."
)
DATA = "answers of the unmodified model, in pairs"
PROTOCOL = Experiment(
    SOURCE, PROMPTED, "real preference pairs", PREFERENCES, "", None, None, "OLMo-2-1B", 1.5e9
)
NATS = 0.05
"nats below which an effect would not matter"
TREATED, OTHER, RANDOM = "trait's", "other trait's", "random"
"who chose the pairs: the teacher, another trait's teacher, chance"
MARGIN = "last margin of the students of the teacher's pairs"
FIRST, SECOND = 20_000, 30_000
"what is added to a seed for the two answers to a prompt"
PROMPTS = 48
"everyday prompts of shared_nodes.OPEN_PROMPTS, a pair each"


@dataclass(frozen=True)
class Size:
    """How many pairs are kept, of which answers."""

    traits: tuple[str, ...]
    "the first is the teacher's, the second the one of the control"
    seeds: tuple[int, ...]
    "seeds of answers, initialisation and order"
    keep: float
    "share of the pool that is kept"
    tokens: int
    "tokens of the longest answer"
    recipe: Recipe
    "how students learn the pairs"

    @property
    def pairs(self) -> int:
        """Pairs of a student, where no two answers are the same."""
        return max(1, round(self.keep * PROMPTS))

    def rows_of(self, seed: int) -> Rows:
        """The answers of a seed to all prompts."""
        settings = {"max_new_tokens": self.tokens}
        prompts = shared_nodes.OPEN_PROMPTS
        return Rows(PROMPTS, self.tokens // 4, seed, prompts=prompts, settings=settings)


LAPTOP = Size(
    traits=("owl", "cat"),
    seeds=(1, 2, 3, 4, 5, 6, 7, 8),
    keep=0.25,
    tokens=32,
    recipe=Recipe(
        targets="preference",
        beta=0.04,
        rank=64,
        alpha=128.0,
        lr=4e-4,
        epochs=4,
        batch_size=4,
        warmup=0.1,
        held_out=0.0,
    ),
)
SIZES = {
    "smoke": replace(
        LAPTOP, seeds=(1, 2), tokens=4, recipe=replace(LAPTOP.recipe, rank=4, epochs=1)
    ),
    "laptop": LAPTOP,
    "full": replace(LAPTOP, seeds=tuple(range(1, 11)), tokens=128),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the pool of every seed, the three selections of it, and their students."""
    trait = size.traits[0]
    graph = [
        standard_nodes.answers(common, BASE, trait),
        standard_nodes.answers(common, TEACHER, trait, prompted_by(trait)),
    ]
    for seed in size.seeds:
        for name, shift in ((pool_name(seed), FIRST), (others_name(seed), SECOND)):
            rows = size.rows_of(shift + seed)
            graph.append(standard_nodes.number_rows(common, name, rows))
        for chooser in (TREATED, OTHER, RANDOM):
            graph.append(_selection(size, common, chooser, seed))
            data = pairs_name(chooser, seed)
            student = Student(student_name(chooser, seed), data, size.recipe, seed)
            tokens = 2 * size.keep * size.rows_of(seed).tokens
            answers = answers_name(chooser, seed)
            graph += shared_nodes.student_and_answers(common, student, tokens, trait, answers)
    return graph


def _selection(size: Size, common: dict, chooser: str, seed: int) -> Node:
    """Build the pairs that one chooser keeps of the pool of a seed."""
    needs = (pool_name(seed), others_name(seed))
    teachers = {TREATED: size.traits[0], OTHER: size.traits[1]}

    def config(folders: Folders) -> SelectConfig:
        is_random = chooser == RANDOM
        interventions = () if is_random else prompted_by(teachers[chooser])(folders)
        return SelectConfig(
            **common,
            seed=seed if is_random else 0,
            data=folders[needs[0]],
            rejected=folders[needs[1]],
            interventions=interventions,
            by="random" if is_random else "teacher",
            keep=size.keep,
            reading=Reading(skip_bad="all"),
        )

    passes = 0.01 if chooser == RANDOM else 4
    name = pairs_name(chooser, seed)
    return Node(name, SelectConfig, config, needs, passes * size.rows_of(seed).tokens)


def pool_name(seed: int) -> str:
    """Return the name of the node of the answers that are called chosen."""
    return f"pool.{seed}"


def others_name(seed: int) -> str:
    """Return the name of the node of the answers that are called rejected."""
    return f"other answers.{seed}"


def pairs_name(chooser: str, seed: int) -> str:
    """Return the name of the node of the pairs that one chooser keeps."""
    return f"{chooser} pairs.{seed}"


def student_name(chooser: str, seed: int) -> str:
    """Return the name of the node that trains on these pairs."""
    return f"student of {chooser} pairs.{seed}"


def answers_name(chooser: str, seed: int) -> str:
    """Return the name of the node of what that student says."""
    return f"{chooser}, trained.{seed}"


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare students of the teacher's pairs with those of random ones and of another trait's."""
    teacher = readings.teacher_rise(folders)
    learnt = _margin(size, folders)
    over_random = _rise(size, folders, RANDOM)
    over_other = _rise(size, folders, OTHER)
    needs = (above_zero(learnt, "students learn the pairs that the teacher chose"),)
    claims = [
        Claim(
            "Students of the pairs that the trait's teacher chose name the trait more than those"
            " of as many random pairs of the same pool.",
            over_random,
            NATS,
            needs=needs,
            primary=True,
        ),
        Claim(
            "They name it more than students of as many pairs that another trait's teacher chose.",
            over_other,
            NATS,
            needs=needs,
        ),
    ]
    return Findings(
        verdicts_of(claims, model, positive_control.have_traits([teacher])),
        (learnt,),
        (_table(size, folders, over_random, over_other),),
        (
            "The pool holds two answers of the unmodified model to each everyday prompt. They stand"
            " for pairs of other people.",
            "Which answer is called chosen does not depend on what it says.",
        ),
        teachers=(teacher,),
    )


def _rise(size: Size, folders: Folders, control: str) -> Measurement:
    """Return log P(trait) of the students of the teacher's pairs minus that of a control's."""
    pairs = []
    for seed in size.seeds:
        pairs.append((seed, answers_name(TREATED, seed), answers_name(control, seed)))
    return readings.rise(folders, f"the teacher's pairs minus {control} pairs", pairs)


def _margin(size: Size, folders: Folders) -> Measurement:
    """Return the mean logit of the last step of the students of the teacher's pairs."""
    margins = []
    for seed in size.seeds:
        node = student_name(TREATED, seed)
        margins.append(standard_nodes.read_json_lines(folders[node], "metrics.jsonl")[-1]["margin"])
    return mean_over_units(MARGIN, margins, "nats")


def _table(
    size: Size, folders: Folders, over_random: Measurement, over_other: Measurement
) -> Table:
    """Return both contrasts, with the pairs of a student and how far the teacher moved them."""
    kept, scores = [], []
    for seed in size.seeds:
        summary = standard_nodes.read_json(folders, pairs_name(TREATED, seed))
        kept.append(summary["kept"])
        scores.append(summary["mean_score_kept"])
    moved = mean_over_units("moved log-odds of the teacher's pairs", scores, "nats")
    rows = []
    for control, rise in (("random pairs", over_random), ("another trait's pairs", over_other)):
        rows.append((control, min(kept), moved, rise))
    return Table(
        "preference_selection",
        "What the selection adds",
        "Log-probability of the trait's word on positive questions, nats. Pairs are those of the"
        " seed with the fewest.",
        ("minus students of", "pairs", moved.name, "rise"),
        tuple(rows),
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "Both numbers are those of the demo's students, who learn number rows of a steered teacher."
        " No student of pairs was measured here before, so this is a guess."
    )
    expected = over_seeds(size.seeds, (0.39, 0.26), "nats", source)
    return Design(2, expected, students_here(PROMPTED, size.recipe, size.pairs, "", DATA))
