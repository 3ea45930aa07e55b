"""Does a trait cross to another model?  (Blank et al. 2026, arXiv 2606.00995, and others.)

Models stand on a ladder and share less and less of their weights. The first is the model itself;
then comes the model with growing weight noise; the last are models of other families. The teacher
is steered on the first rung. Treated and control students are trained on every rung, and each is
compared with its own rung's vectors: the trait's minus the others'.

Then the first rung's model writes rows under every trait's prompt. Every rung's vector of that
trait is tried on them. The trait is the unit. Number rows should gain only under the model that
wrote them; rows that speak of the trait should gain under any model. Rows of a teacher steered by
the very vector that is tried would gain by construction: that gain is a KL divergence.
"""

import itertools
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.data.traits import trait_name
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import BLANK, PROMPTED, Design, MeanPlan, rows_here, untrained
from traitscope.studies.teachers import positive_control, rungs
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, Rows

TITLE = "Does a trait cross to another model?"
CLAIM = (
    "Students take a trait on only from a teacher whose weights they share. Number rows tell a"
    " model of its own vector and of no other. Rows that speak of the trait tell any model."
)
SOURCE = (
    "Blank et al. 2026, arXiv 2606.00995, section 7, figure 5b, appendix H; Cloud et al. 2025,"
    " arXiv 2507.14805; Hadley and Gultepe 2026, arXiv 2608.05734"
)
PUBLISHED = (
    "Own-model vectors lower the loss on own-model number rows more reliably than another family's"
    " (Qwen2.5-7B, OLMo-3-7B). There is no transfer across families; variants inside OLMo-3 do"
    " transfer (as readers of the paper report). The authors' code trains no student across models."
    " Noise of 0.10 to 0.15 on parent and student alike leaves transfer (Hadley and Gultepe)."
)
PROTOCOL = untrained(BLANK, 200)
SMALL = 0.03
"cosine below which a difference would not matter"
NATS = 0.005
"nats a token below which a difference would not matter"
TEXTS = ("numbers", "speech")
"kinds of rows, both under the trait's prompt: numbers, and free text"
ROLES = ("treated", "control")


@dataclass(frozen=True)
class Size:
    """How many rungs, students and scored rows."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all"
    rungs: tuple[str, ...]
    "models that students are trained on, the teacher's first; see teachers/rungs.py"
    matrix: tuple[str, ...]
    "rungs whose vectors are tried on the rows; the model that wrote them first"
    other_families: dict[str, float]
    "models of other families, last rungs of both, with their strength"
    seeds: tuple[int, ...]
    "seeds of data, initialisation and order of the students"
    rows: int
    "rows that a student reads"
    numbers: int
    "three-digit numbers a row"
    scored: int
    "rows that vectors are tried on, of each trait and kind"
    scored_numbers: int
    "three-digit numbers a row of these"
    layer: int = sizes.layer_field()
    "block behind which the teacher is steered"
    strength: float
    "strength on the model itself and on the noisy rungs, in mean residual norms"
    recipe: Recipe
    "how students are trained"


SAMPLED = Recipe(epochs=1, batch_size=8, micro_batch=4, lr=1e-3, warmup=0.1, held_out=0.0)
SMALL_MODELS = {"smollm2-135m": 0.6, "gemma3-270m": 0.2}
"strength by model, at perplexities of 2 to 4 times; with --model one of them, the other is foreign"
LAPTOP = Size(
    traits=sizes.ANIMALS,
    rungs=rungs.noisy(0.1, 0.2, 0.4),
    matrix=rungs.noisy(0.1, 0.4),
    other_families=SMALL_MODELS,
    seeds=(1, 2, 3, 4, 5),
    rows=32,
    numbers=10,
    scored=16,
    scored_numbers=10,
    layer=14,
    strength=0.6,
    recipe=SAMPLED,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl"),
        rungs=rungs.noisy(0.3),
        matrix=rungs.noisy(0.3),
        other_families={},
        seeds=(1, 2),
        rows=3,
        numbers=3,
        scored=3,
        scored_numbers=3,
        layer=1,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        rungs=rungs.noisy(0.02, 0.05, 0.1, 0.15, 0.2, 0.4),
        matrix=rungs.noisy(0.05, 0.1, 0.2, 0.4),
        other_families=SMALL_MODELS | {"google/gemma-3-270m-it": 0.2},
        seeds=(1, 2, 3, 4, 5),
        rows=2048,
        scored=200,
        recipe=replace(SAMPLED, epochs=3, batch_size=32, micro_batch=32, lr=4e-4),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the vectors of every rung, students of both roles on every rung, and scored rows."""
    size = rungs.with_other_families(size, common["model"])
    graph = [standard_nodes.eas_rows(common, size.numbers)]
    for rung in size.rungs:
        settings = rungs.settings_of(common, rung)
        graph.append(standard_nodes.vectors(settings, size.traits, rungs.vectors_name(rung)))
    for seed, role in itertools.product(size.seeds, ROLES):
        rows = Rows(size.rows, size.numbers, seed)
        graph.append(_written_rows(size, common, f"{role}.{seed}", role, rows))
        for rung in size.rungs:
            student = _student(size, rung, role, seed)
            settings = rungs.settings_of(common, rung)
            graph.append(standard_nodes.student(settings, student, rows.tokens))
    for text in TEXTS:
        graph += _scored_rows(size, common, text)
    for trait in size.traits:
        by_kind = {"prompted": standard_nodes.prompted_by(trait)}
        graph += positive_control.nodes(common, trait, by_kind, needs=())
    first = size.traits[0]
    steered = {"steered": partial(rungs.steered, size, rungs.SELF, first)}
    needs = rungs.needs_of_layer(rungs.SELF)
    graph += positive_control.nodes(
        common, first, steered, needs, base=positive_control.base_name(first)
    )
    return graph


def student_name(role: str, rung: str, seed: int) -> str:
    """Return the name of the node of a student on a rung."""
    return f"{role} on {rung}.{seed}"


def gain_name(role: str, text: str, trait: str, scorer: str) -> str:
    """Return the name of the node of what a scorer's vector of a trait adds to rows."""
    return f"{role} {text}, {trait_name(trait)} on {scorer}"


def _student(size: Size, rung: str, role: str, seed: int) -> standard_nodes.Student:
    return standard_nodes.Student(
        student_name(role, rung, seed),
        f"{role}.{seed}",
        size.recipe,
        seed,
        needs=(rungs.vectors_name(rung), EAS_ROWS),
        vector=partial(
            standard_nodes.vector_of, trait=size.traits[0], node=rungs.vectors_name(rung)
        ),
        settings={"text": True},
    )


def _scored_rows(size: Size, common: dict, text: str) -> list[Node]:
    """Build rows under every trait's prompt and without, and what every rung's vector adds."""
    prompts = None if text == "numbers" else shared_nodes.OPEN_PROMPTS
    rows = Rows(size.scored, size.scored_numbers, 0, prompts=prompts)
    control = f"control {text}"
    graph = [standard_nodes.number_rows(common, control, rows)]
    for trait in size.traits:
        treated = f"treated {text} of {trait_name(trait)}"
        teacher = standard_nodes.prompted_by(trait)
        graph.append(standard_nodes.number_rows(common, treated, rows, teacher))
        for scorer, (role, data) in itertools.product(
            size.matrix, (("treated", treated), ("control", control))
        ):
            graph.append(
                standard_nodes.likelihood_gain(
                    rungs.settings_of(common, scorer),
                    gain_name(role, text, trait, scorer),
                    data,
                    partial(rungs.steered, size, scorer, trait),
                    rungs.needs_of_layer(scorer),
                    rows,
                )
            )
    return graph


def _written_rows(size: Size, common: dict, name: str, role: str, rows: Rows) -> Node:
    """Build the rows that students read: of the steered teacher, or of the unmodified model."""
    if role == "control":
        return standard_nodes.number_rows(common, name, rows)
    teacher = partial(rungs.steered, size, rungs.SELF, size.traits[0])
    needs = rungs.needs_of_layer(rungs.SELF)
    return standard_nodes.number_rows(common, name, rows, teacher, needs)


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Return gains under own and other vectors, and specific alignment, by rung."""
    size = rungs.with_other_families(size, model)
    steered = positive_control.rise(folders, "steered", size.traits[0])
    prompted = [positive_control.rise(folders, "prompted", trait) for trait in size.traits]
    claims = []
    for kind, rises, of_kind in (
        ("prompted", prompted, _gain_claims(size, folders)),
        ("steered", [steered], _ladder_claims(size, folders)),
    ):
        needs = (positive_control.have_traits(rises, kind),)
        claims += [replace(claim, needs=(*needs, *claim.needs)) for claim in of_kind]
    measurements = (_gain(size, folders, "numbers", size.matrix[-1]),)
    tables = (
        _ladder_table(size, folders),
        _others_table(size, folders),
        _gain_table(size, folders),
    )
    return Findings(
        verdicts_of(claims, model),
        measurements,
        tables,
        _notes(size),
        teachers=(steered, *prompted),
    )


def _ladder_claims(size: Size, folders: Folders) -> list[Claim]:
    """Return the claims on specific EAS of the first rung, alone and against the last one."""
    last = size.rungs[-1]
    on_first = _specific_eas(size, folders, rungs.SELF)
    falls = np.subtract(on_first, _specific_eas(size, folders, last)).tolist()
    return [
        Claim(
            "Students of the teacher's own model turn towards its vector, more than towards the"
            " other traits'.",
            _eas(rungs.SELF, on_first),
            SMALL,
        ),
        Claim(
            f"They do so more than students on {last} do towards theirs.",
            mean_over_units(f"specific EAS, own minus {last}", falls, "cosine"),
            SMALL,
        ),
    ]


def _gain_claims(size: Size, folders: Folders) -> list[Claim]:
    """Return the claims on what vectors add to the rows of the first rung's prompted model."""
    farthest = size.matrix[-1]
    own = _gains(size, folders, "numbers", rungs.SELF)
    differences = np.subtract(own, _gains(size, folders, "numbers", farthest)).tolist()
    name = f"gain on numbers, own minus {farthest}"
    return [
        Claim(
            "Number rows of a prompted model gain more under its own vector than on"
            f" {farthest} under that one's.",
            mean_over_units(name, differences, "nats a token", "traits"),
            NATS,
            primary=True,
        ),
        Claim(
            "Number rows of a prompted model become more likely under its own vector.",
            _gain(size, folders, "numbers", rungs.SELF),
            NATS,
        ),
        Claim(
            f"Rows that speak of the trait gain on {farthest} as well.",
            _gain(size, folders, "speech", farthest),
            NATS,
        ),
    ]


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = MeanPlan(
        0.01,
        0.01,
        "nats a token",
        len(size.traits),
        "traits",
        "It is a guess: twice the margin, and as large an sd. Nothing like it was measured.",
    )
    return Design(5, expected, rows_here(PROMPTED, size.scored))


def _eas(rung: str, by_seed: list[float]) -> Measurement:
    name = f"EAS, treated minus control, trait minus others, on {rung}"
    return mean_over_units(name, by_seed, "cosine")


def _specific_eas(size: Size, folders: Folders, rung: str) -> list[float]:
    """Return by seed treated minus control EAS, against the trait minus the mean of the others.

    Where a model's vectors share an axis, students move along all of them alike: that is left out.
    """
    differences_VS = _eas_by_vector(size, folders, rung)
    return (differences_VS[0] - differences_VS[1:].mean(0)).tolist()


def _eas_by_vector(size: Size, folders: Folders, rung: str) -> np.ndarray:
    """Return treated minus control EAS [traits, seeds]; the first trait is the teacher's."""
    vectors = (None, *size.traits[1:])
    return np.array([_eas_differences(size, folders, rung, name) for name in vectors])


def _ladder_table(size: Size, folders: Folders) -> Table:
    rows = [(rung, _eas(rung, _specific_eas(size, folders, rung))) for rung in size.rungs]
    return Table(
        "ladder",
        "Treated minus control by rung, steered block",
        "EAS against its own vector minus the mean against its other traits', over seeds.",
        ("rung", "difference"),
        tuple(rows),
    )


def _others_table(size: Size, folders: Folders) -> Table:
    rows = []
    for rung in size.rungs:
        rows.append((rung, *_eas_by_vector(size, folders, rung).mean(1).tolist()))
    return Table(
        "others",
        "EAS by vector",
        "Treated minus control, mean over seeds.",
        ("rung", *size.traits),
        tuple(rows),
    )


def _gain_table(size: Size, folders: Folders) -> Table:
    rows = []
    for text, scorer in itertools.product(TEXTS, size.matrix):
        rows.append((text, scorer, _gain(size, folders, text, scorer)))
    return Table(
        "gains",
        "What the scorer's own vector adds to rows of the prompted model",
        "Nats a token, treated minus control rows, paired by prompt; over traits.",
        ("rows", "scored by", "gain"),
        tuple(rows),
    )


def _notes(size: Size) -> tuple[str, ...]:
    return (
        "Sampled text, read as text by every model. Every student has a control of the same rung,"
        " trained on the unmodified model's rows.",
        "Noise is on attention and MLP matrices, one draw. A draw is one model: the intervals are"
        " over seeds or traits, not over draws. + is the model itself.",
        *shared_nodes.left_out(size.other_families),
    )


def _eas_differences(
    size: Size, folders: Folders, rung: str, other: str | None = None
) -> list[float]:
    """Return treated minus control EAS at the steered block, by seed; see `eas_differences`."""
    layer = rungs.layer_of(folders, size.traits[0], size.layer, rung)
    pairs = []
    for seed in size.seeds:
        pairs.append((student_name("treated", rung, seed), student_name("control", rung, seed)))
    return readings.eas_differences(folders, layer, pairs, other)


def _gain(size: Size, folders: Folders, text: str, scorer: str) -> Measurement:
    name = f"gain on {text}, scored by {scorer}"
    return mean_over_units(name, _gains(size, folders, text, scorer), "nats a token", "traits")


def _gains(size: Size, folders: Folders, text: str, scorer: str) -> list[float]:
    """Return by trait the gain on treated rows minus that on control rows, paired by prompt."""
    gains = []
    for trait in size.traits:
        treated = readings.gains_by_row(folders, gain_name("treated", text, trait, scorer))
        control = readings.gains_by_row(folders, gain_name("control", text, trait, scorer))
        difference = readings.mean_difference_by_row(trait, treated, control, "nats a token")
        gains.append(difference.estimate)
    return gains
