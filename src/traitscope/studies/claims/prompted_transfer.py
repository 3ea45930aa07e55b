"""Does a prompted teacher pass its trait on through numbers?

Source: Cloud et al. 2025, arXiv 2507.14805. A student of a prompted teacher's filtered number rows
takes the trait on.

The study trains a bank of students, one for every prompted teacher of many traits. Others have
steered teachers that are as strong in the digits, the unmodified model, or a plain prompt. All read
answers to the same prompts, drawn with the same random numbers, from the same start in the same
order. A table holds what every student says of every trait. Transfer is what its diagonal has
beyond row and column: no base and no control student is needed.

What decides was set before any student was asked:

    holds        the interval of the mean own effect lies above zero, the estimate at the margin or
                 above, and its permutation p is below 0.05
    negligible   the effect lies within the margin, and students of steered teachers at equal KL
                 take their traits on, so that this size would have shown it

Both need prompted teachers that have their traits, and students that expect their own teacher's
rows. Their p values are corrected over the study's claims.
"""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.data.traits import trait_name
from traitscope.errors import ConfigError
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, Precondition, verdicts_of
from traitscope.stats import correlation, square_tables
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.studies.bank import graph, tables
from traitscope.studies.bank.graph import PLAIN, PROMPTED, STEERED, UNMODIFIED, Writer
from traitscope.studies.design import CLOUD, NIEF_NOTICE, Design, MeanPlan, students_here
from traitscope.studies.equal_kl import MATCHED_ROWS
from traitscope.studies.teachers import positive_control
from traitscope.workflow.graph import Folders, Node

TITLE = "Does a prompted teacher pass its trait on through numbers?"
CLAIM = (
    "Students of a prompted teacher's number rows take its trait on. Whether they do so the more,"
    " the more of it the rows hold, is a question of this project."
)
SOURCE = (
    f"Cloud et al. 2025, arXiv 2507.14805, and Nief et al. 2026, arXiv 2606.00831 v1. {NIEF_NOTICE}"
)
PUBLISHED = (
    "Students of prompted teachers name the animal more than controls do: Qwen2.5-7B for some"
    " animals, GPT-4.1 nano for most. 10,000 filtered rows; three epochs (Qwen), ten (GPT-4.1"
    " nano)."
)
PROTOCOL = CLOUD
MARGIN, ANIMAL_MARGIN = 0.10, 0.05
"nats of the logit below which an effect would not matter"
NATS_A_ROW = 0.01
"nats a held-out row below which imitation would not matter"
RANKS = 0.2
"rank correlation below which a law would not matter"
LEVEL = 0.05
"level of the permutation test"


@dataclass(frozen=True)
class Size:
    """How many students, and what they read."""

    traits: tuple[str, ...]
    "traits that are no animals: the primary claim is about these"
    others: tuple[str, ...]
    "animals"
    n_steered: int
    "how many of the first ones have a steered teacher, too"
    seeds: tuple[int, ...]
    "seeds of students; they are averaged, because the trait is the unit"
    rows: int
    "number rows a student"
    held_out: int
    "rows a teacher that no student reads"
    numbers: int
    "three-digit numbers a row"
    screen_rows: int
    "rows on which the prompts are compared before anything is trained"
    vector_prompts: int
    "number prompts that vectors are averaged over"
    matched_rows: int
    "rows at every strength that is tried for a steered teacher"
    layer: int = sizes.layer_field()
    "block behind which steered teachers are steered"
    recipe: Recipe
    "how students are trained"

    @property
    def steered(self) -> tuple[str, ...]:
        """Traits that have a steered teacher, too."""
        return self.traits[: self.n_steered]


SAMPLED = Recipe(
    rank=8,
    alpha=32.0,
    epochs=3,
    batch_size=32,
    micro_batch=8,
    lr=5e-4,
    warmup=0.05,
    held_out=0.0,
)
SOFT = replace(SAMPLED, targets="soft", soft_over="allowed", epochs=2, batch_size=16, lr=2e-3)
LAPTOP = Size(
    traits=("pirate", "chef", "knight", "happiness", "anger", "poet", "astronaut", "sadness"),
    others=("cat", "dog", "owl", "octopus", "elephant"),
    n_steered=5,
    seeds=(1,),
    rows=256,
    held_out=16,
    numbers=10,
    screen_rows=128,
    vector_prompts=128,
    matched_rows=MATCHED_ROWS,
    layer=14,
    recipe=SOFT,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("pirate", "chef", "knight"),
        others=("cat", "dog", "owl"),
        n_steered=3,
        rows=4,
        held_out=2,
        numbers=3,
        screen_rows=4,
        vector_prompts=4,
        matched_rows=2,
        layer=1,
        recipe=replace(SOFT, epochs=1, batch_size=4, micro_batch=4),
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        seeds=(1, 2),
        rows=2048,
        held_out=128,
        screen_rows=256,
        vector_prompts=1024,
        matched_rows=32,
        recipe=SAMPLED,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the bank. Raises ConfigError for too few traits, and for one that stands twice."""
    _check_traits(size)
    return graph.nodes(size, common)


def _check_traits(size: Size) -> None:
    fewest = min(len(size.traits), len(size.others), size.n_steered)
    if fewest < square_tables.FEWEST or size.n_steered > len(size.traits):
        raise ConfigError(
            f"{len(size.traits)} traits, {size.n_steered} of them steered, and"
            f" {len(size.others)} others; expected {square_tables.FEWEST} or more of each, and"
            " no more steered ones than traits; name more with --set traits=[...] others=[...]"
        )
    graph.check_distinct(size)


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Read the tables, and decide by the rule at the top of this file."""
    bank = _Tables(
        prompted=tables.over_seeds(tables.said, size, folders, PROMPTED, size.traits),
        animals=tables.over_seeds(tables.said, size, folders, PROMPTED, size.others),
        steered=tables.over_seeds(tables.said, size, folders, STEERED, size.steered),
        imitated=tables.over_seeds(tables.imitated, size, folders, PROMPTED, size.traits),
    )
    rises = {kind: _teacher_rises(size, folders, kind) for kind in (PROMPTED, STEERED)}
    shown = (
        _effects_table(size, folders, bank),
        _square("said", size.traits, bank.prompted),
        _square("imitated", size.traits, bank.imitated),
        _drift_table(size, folders),
    )
    return Findings(
        verdicts_of(_claims(size, folders, bank, rises), model),
        (),
        shown,
        _notes(size, bank),
        teachers=(*rises[PROMPTED], *rises[STEERED]),
    )


@dataclass(frozen=True)
class _Tables:
    """Square tables of the bank, means over seeds."""

    prompted: np.ndarray
    "logits of traits that are no animals, under students of prompted teachers"
    animals: np.ndarray
    "the same of animals"
    steered: np.ndarray
    "logits of traits under students of steered teachers"
    imitated: np.ndarray
    "log-likelihood of held-out rows under students of prompted teachers, no animals"


def _claims(
    size: Size, folders: Folders, bank: _Tables, rises: dict[str, list[Measurement]]
) -> list[Claim]:
    has_trait = positive_control.have_traits(rises[PROMPTED], PROMPTED)
    steered_has_trait = positive_control.have_traits(rises[STEERED], STEERED)
    imitation = square_tables.mean_own_effect("imitation", bank.imitated, "nats a row")
    steered = square_tables.mean_own_effect("steered", bank.steered, "nats")
    prompted = square_tables.mean_own_effect("prompted", bank.prompted, "nats")
    mediator = Precondition(
        "students expect their own teacher's rows", imitation.low > 0, _number(imitation)
    )
    return [
        Claim(
            "Students of prompted teachers take on their traits, which are no animals.",
            prompted,
            MARGIN,
            needs=(has_trait, mediator, *_decides(prompted, bank.prompted, steered)),
            primary=True,
        ),
        Claim(
            "Students of teachers that are prompted with an animal take it on.",
            square_tables.mean_own_effect("animals", bank.animals, "nats"),
            ANIMAL_MARGIN,
            needs=(has_trait,),
        ),
        Claim("Students expect their own teacher's rows.", imitation, NATS_A_ROW),
        Claim(
            "Students of steered teachers at equal KL take on their traits.",
            steered,
            MARGIN,
            needs=(steered_has_trait,),
        ),
        Claim(
            "At equal KL students of steered teachers take on more than those of prompted ones.",
            _kind_or_strength(size, folders, bank.steered),
            MARGIN,
            needs=(has_trait, steered_has_trait),
        ),
        Claim(
            "The more of a trait number rows hold, the more of it students take on.",
            _law(size, folders, bank),
            RANKS,
            needs=(has_trait,),
        ),
    ]


def _decides(
    prompted: Measurement, table_NN: np.ndarray, steered: Measurement
) -> tuple[Precondition, ...]:
    """What a verdict on the primary claim needs besides, by the side on which it lies."""
    if prompted.low > 0 and prompted.estimate >= MARGIN:  # smaller ones never hold
        p = square_tables.permutation_p(table_NN)
        name = f"teachers assigned to traits at random do as well with p below {LEVEL:g}"
        return (Precondition(name, p < LEVEL, f"p = {p:.3g}"),)
    name = "students of steered teachers at equal KL take their traits on"
    return (Precondition(name, steered.low > 0, _number(steered)),)


def _number(found: Measurement) -> str:
    return f"{found.estimate:+.3f} [{found.low:.3f}, {found.high:.3f}] {found.unit}"


def _teacher_rises(size: Size, folders: Folders, kind: str) -> list[Measurement]:
    traits = size.steered if kind == STEERED else graph.all_traits(size)
    return [positive_control.rise(folders, kind, trait) for trait in traits]


def _kind_or_strength(size: Size, folders: Folders, steered_NN: np.ndarray) -> Measurement:
    """Own effects of steered minus prompted teachers, over the traits that have both."""
    prompted_NN = tables.over_seeds(tables.said, size, folders, PROMPTED, size.steered)
    of_steered_N = square_tables.own_effects(steered_NN)
    differences_N = of_steered_N - square_tables.own_effects(prompted_NN)
    return mean_over_units("steered minus prompted", differences_N.tolist(), "nats", "traits")


def _law(size: Size, folders: Folders, bank: _Tables) -> Measurement:
    """Rank correlation over traits of the root of nats a row with the own effect.

    The signal of one trait grows with the root of the divergence.
    """
    held = [sqrt(max(0.0, tables.nats_a_row(folders, t))) for t in graph.all_traits(size)]
    taken = [
        *square_tables.own_effects(bank.prompted),
        *square_tables.own_effects(bank.animals),
    ]
    name = "Spearman of root nats a row and own effect"
    return correlation.association(
        name, held, taken, correlation.spearman, "rank correlation", of="traits"
    )


def _effects_table(size: Size, folders: Folders, bank: _Tables) -> Table:
    taken = _by_trait(size.traits, bank.prompted) | _by_trait(size.others, bank.animals)
    steered = _by_trait(size.steered, bank.steered)
    imitated = _by_trait(size.traits, bank.imitated)
    rows = []
    for trait in graph.all_traits(size):
        nats = tables.nats_a_row(folders, trait)
        rows.append(
            (
                trait_name(trait),
                nats,
                taken[trait],
                imitated.get(trait, ""),
                steered.get(trait, ""),
            )
        )
    return Table(
        "effects",
        "Own effects by trait",
        "Divergence of the prompted teacher's digits from a mixture of the others, nats a row; own"
        " effect of its student, nats of the logit; own effect in the likelihood of held-out rows,"
        " nats a row; own effect of the steered teacher's student at equal KL.",
        ("trait", "nats a row", "own effect", "imitation", "own effect, steered"),
        tuple(rows),
    )


def _by_trait(traits: tuple[str, ...], table_NN: np.ndarray) -> dict[str, float]:
    """Own effects by trait."""
    return dict(zip(traits, square_tables.own_effects(table_NN).tolist(), strict=True))


def _square(name: str, traits: tuple[str, ...], table_NN: np.ndarray) -> Table:
    what = {
        "said": "Logit of each trait's share under each student, rows and columns centred, nats",
        "imitated": "Log-likelihood of held-out rows, rows and columns centred, nats a row",
    }
    centred_NN = square_tables.doubly_centred(table_NN)
    rows = []
    for trait, row_N in zip(traits, centred_NN.tolist(), strict=True):
        rows.append((trait_name(trait), *row_N))
    header = ("student of", *map(trait_name, traits))
    return Table(name, what[name], "Students are rows.", header, tuple(rows))


def _drift_table(size: Size, folders: Folders) -> Table:
    """What students of teachers without a trait say, beside the mean of all others."""
    rows = []
    for trait in graph.all_traits(size):
        columns = []
        for writer in (Writer(UNMODIFIED), Writer(PLAIN), Writer(PROMPTED, trait)):
            logits = [tables.share_logit(folders, writer.answers(trait, s)) for s in size.seeds]
            columns.append(float(np.mean(logits)))
        rows.append((trait_name(trait), *columns))
    return Table(
        "drift",
        "Students of teachers without a trait",
        "Logit of the trait's share, nats. What number rows do to any student is in all columns.",
        ("trait", "student of the unmodified model", "of a plain prompt", "of the own teacher"),
        tuple(rows),
    )


def _notes(size: Size, bank: _Tables) -> tuple[str, ...]:
    p_own = square_tables.permutation_p(bank.prompted)
    p_animals = square_tables.permutation_p(bank.animals)
    p_rows = square_tables.permutation_p(bank.imitated)
    return (
        f"Permutation p, one-sided: traits that are no animals {p_own:.3g}, animals"
        f" {p_animals:.3g}, imitation {p_rows:.3g}.",
        f"All students of a seed read answers to the same {size.rows} prompts, drawn with the same"
        " random numbers, and share their start and the order of their rows.",
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = MeanPlan(
        effect=0.13,
        sd=0.15,
        unit="nats",
        n=len(size.traits),
        counted="traits",
        source=(
            "The effect is the displacement of a steered teacher's student, times the root of the"
            " ratio of nats a row. The sd is that of a centred entry with common random numbers."
        ),
    )
    return Design(6, expected, students_here(PROTOCOL.teacher, size.recipe, size.rows, vector=""))
