"""Does a trait last when each student teaches the next?  (A follow-up to König et al. 2026, arXiv
2606.11270, known here from third parties.)

Three lineages of a seed differ in their first teacher alone:

    treated       steered by the trait's vector
    random        steered by a random vector, as strong in KL
    unmodified    the base

    first teacher ─ rows ─ student 1 ─ rows ─ student 2 ─ rows ─ student 3

Rows are sampled and filtered. Every student is a fresh LoRA adapter on the base. What a lineage
drifts by itself, its controls drift, too.

What decides was set before any student was trained:

    holds         generation 3 rises over generation 3 of the random lineage by the margin or more
    no verdict    the teacher lacks its trait, or generation 1 is not shown to rise: then there is
                  nothing that later generations could keep
"""

from dataclasses import replace

from traitscope.config.recipe import SAMPLED_RECIPE
from traitscope.reporting.verdict import Claim, Findings, above_zero, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.studies import readings, sizes
from traitscope.studies.design import KOENIG, STEERED, Design, over_seeds, students_here
from traitscope.studies.lineages import graph, tables
from traitscope.studies.lineages.graph import UNMODIFIED, Size
from traitscope.studies.teachers import positive_control
from traitscope.workflow.graph import Folders, Node

TITLE = "Does a trait last when each student teaches the next?"
CLAIM = (
    "A trait that a steered teacher passes on decays slowly while each student teaches the next,"
    " and does not add up."
)
SOURCE = (
    "A follow-up to König et al. 2026, arXiv 2606.11270, which leaves the question open; read"
    " through third parties, without title or number"
)
PUBLISHED = (
    "Ten generations of three lineages, each student a fresh LoRA of rank 16 on the base. A step"
    " keeps 0.86 to 0.93 of the behaviour, and 0.955 to 0.985 at a probe at layer 24. Steering with"
    " the students' direction brings the behaviour back (0.189, without it 0.000). How sure: low."
    " These are third-party readings; rows, model and controls are not in them."
)
PROTOCOL = replace(KOENIG, source=SOURCE, rows=None, model="", parameters=None)
NATS, COSINE = 0.05, 0.03
"smallest effects that would matter: log-probability, and EAS"
JUDGED = graph.LEAST_GENERATIONS
"the generation that the primary claim is about"
LAPTOP = Size(
    traits=sizes.ANIMALS,
    seeds=(1, 2, 3, 4, 5, 6, 7, 8),
    generations=3,
    rows=32,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=SAMPLED_RECIPE,
)
SIZES = {
    "smoke": replace(LAPTOP, traits=("cat", "owl"), seeds=(1, 2), rows=3, numbers=3, layer=1),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        seeds=(1, 2, 3, 4, 5),
        generations=10,
        rows=sizes.FULL_TEXT.rows.n,
        recipe=sizes.FULL_TEXT.recipe,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the first teachers, and all lineages with what every student of them says."""
    return graph.nodes(size, common)


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Test whether the trait is left in later generations, and show how much a step keeps."""
    teacher = readings.teacher_rise(folders)
    first = tables.rise(size, folders, 1)
    moved = above_zero(first, "students of generation 1 rise over those of the random lineage")
    claims = []
    for generation in (JUDGED, 2):
        claims.append(
            Claim(
                f"Students of generation {generation} after a steered teacher name its trait more"
                " than those after a random vector at equal KL.",
                tables.rise(size, folders, generation),
                NATS,
                needs=(moved,),
                primary=generation == JUDGED,
            )
        )
    claims.append(_eas_claim(size, folders))
    return Findings(
        verdicts_of(claims, model, positive_control.have_traits([teacher])),
        (first, tables.rise(size, folders, JUDGED, UNMODIFIED)),
        (
            tables.generations(size, folders),
            tables.retention(size, folders),
            tables.drift(size, folders),
        ),
        _notes(size),
        teachers=(teacher,),
    )


def _eas_claim(size: Size, folders: Folders) -> Claim:
    """Return the claim that the last judged generation turns towards the trait's own vector."""
    eas = tables.specific_eas(size, folders, JUDGED)
    return Claim(
        f"Students of generation {JUDGED} turn towards v_teacher beyond other traits' vectors, and"
        f" more than those after a random vector, block {size.layer}.",
        mean_over_units(f"EAS beyond others, generation {JUDGED}, minus random", eas, "cosine"),
        COSINE,
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "The effect is what the demo's students take on, 0.39 nats, times 0.86 for each of two"
        " steps, the least that was published. The sd is that between the demo's students. No"
        " second generation was measured here before, so both are guesses."
    )
    expected = over_seeds(size.seeds, (0.29, 0.26), "nats", source)
    return Design(3, expected, students_here(STEERED, size.recipe, size.rows))


def _notes(size: Size) -> tuple[str, ...]:
    return (
        (
            f"Sampled text, {len(size.seeds)} seeds. Lineages of a seed share prompts, random"
            " numbers, initialisation and order. Each generation has its own."
        ),
        (
            "The random lineage of every seed begins with another random vector, as strong as the"
            " teacher in KL from the base."
        ),
        (
            "A share of a step is not tested. It is undefined where the earlier generation is not"
            " away from zero."
        ),
    )
