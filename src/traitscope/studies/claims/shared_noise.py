"""Does noise in the weights that teacher and student share help a trait to pass?  (Hadley and
Gultepe 2026, arXiv 2608.05734, section on noise.)

One steered teacher writes number rows. Weight noise is in teacher and student (the same draw), in
the teacher only, in the student only, or in both but differently. Clean students of several seeds
are the reference. A draw of the noise is the unit: every student is compared with its own parent
and with a control student of that parent.
"""

from dataclasses import dataclass, replace

import numpy as np

from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.interventions.intervention import WeightNoise
from traitscope.interventions.short_form import to_short
from traitscope.models import weight_noise
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, verdicts_of
from traitscope.stats.estimates import mean_over_units, two_samples
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.studies.design import HADLEY, STEERED, Design, MeanPlan, students_here
from traitscope.studies.teachers import positive_control
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import InterventionsFrom

TITLE = "Does shared noise in the weights help a trait to pass?"
CLAIM = (
    "Noise in the weights of teacher and student alike raises transfer: what passes is in the"
    " weights' non-semantic structure."
)
SOURCE = (
    "Hadley and Gultepe 2026, arXiv 2608.05734, section on noise; workshop version of June 2026"
)
PUBLISHED = (
    "Change of the target's rate over the parent's, noisy over clean, over ten draws. Gemma-2B"
    " (prompted teacher, sd 0.10): 1.9. Llama-3.1-8B (steered teacher, sd 0.15, no noise in"
    " attention): 1.3. The workshop version has 2.7 and 1.8; one draw of the released files gives"
    " 2.6 and 1.8. Ten earlier Gemma draws give 1.4; against a second clean seed the ten give 1.6."
    " Clean is one run an animal; at twice the noise hardly anything passes in Gemma."
)
PROTOCOL = replace(HADLEY, model="Llama-3.1-8B-Instruct", parameters=8.0e9, steps=3_750)
"that of their steered teacher: one epoch in batches of 8; their prompted one is Gemma's"
NATS = 0.05
"smallest difference that would matter, in nats"
SAME, TEACHER, STUDENT, OTHER = "same draw", "teacher only", "student only", "different draws"
CONDITIONS = (SAME, TEACHER, STUDENT, OTHER)
"where the noise is"
CLEAN = 0
"draw that stands for no noise"
ROLES = ("treated", "control")
"students of the steered and of the unmodified teacher"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all, and taken on the clean model"
    sd: float
    "size of the noise, in standard deviations of each matrix"
    scope: str
    "which matrices get noise"
    draws: tuple[int, ...]
    "seeds of the noise, and of the rows and students with it; positive"
    clean: tuple[int, ...]
    "seeds of clean students"
    further_sd: tuple[float, ...]
    "further sizes of the noise, in teacher and student alike"
    further_draws: tuple[int, ...]
    "seeds of the noise of further sizes"
    rows: int
    "rows a student"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    strength: float
    "strength of the steered teacher, in mean residual norms of the clean model"
    recipe: Recipe
    "how students are trained"


LARGE = Recipe(epochs=3, batch_size=32, micro_batch=32, lr=4e-4)
WIDE = "attention+mlp+embeddings"
LAPTOP = Size(
    traits=sizes.ANIMALS,
    sd=0.1,
    scope=WIDE,
    draws=tuple(range(1, 11)),
    clean=tuple(range(11, 21)),
    further_sd=(0.05, 0.2),
    further_draws=(1, 2, 3),
    rows=32,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=SAMPLED_RECIPE,
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl"),
        sd=0.1,
        scope=WIDE,
        draws=(1, 2),
        clean=(1, 2),
        further_sd=(0.2,),
        further_draws=(1,),
        rows=3,
        numbers=3,
        layer=1,
        strength=0.6,
        recipe=SAMPLED_RECIPE,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        draws=tuple(range(1, 21)),
        clean=tuple(range(21, 41)),
        further_sd=(0.02, 0.05, 0.15, 0.2, 0.3),
        further_draws=tuple(range(1, 11)),
        rows=2048,
        recipe=LARGE,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, parents, rows and students under every condition, clean, and by noise size."""
    graph = [standard_nodes.vectors(common, size.traits), _parent(size, common, CLEAN)]
    for draw in (CLEAN, *size.draws):
        graph += _teacher_answers(size, common, draw)
    for seed in size.clean:
        graph += _rows(size, common, CLEAN, seed)
        graph += _students(size, common, "clean", CLEAN, CLEAN, seed)
    for number, draw in enumerate(size.draws):
        other = size.draws[(number + 1) % len(size.draws)]
        graph += [_parent(size, common, draw)]
        graph += _rows(size, common, draw, draw)
        graph += _rows(size, common, CLEAN, draw)
        graph += _rows(size, common, other, draw)
        graph += _students(size, common, SAME, draw, draw, draw)
        graph += _students(size, common, TEACHER, draw, CLEAN, draw)
        graph += _students(size, common, STUDENT, CLEAN, draw, draw)
        graph += _students(size, common, OTHER, other, draw, draw)
    for sd in size.further_sd:
        with_noise = replace(size, sd=sd)
        for draw in size.further_draws:
            graph += [_parent(with_noise, common, draw)]
            graph += _rows(with_noise, common, draw, draw)
            graph += _students(with_noise, common, noise_name(sd), draw, draw, draw)
    return list({node.name: node for node in graph}.values())


def noise_name(sd: float) -> str:
    """Return the name of the condition with noise of a further size."""
    return f"noise {sd:g}"


def _noise(size: Size, draw: int) -> str:
    """A draw of the noise in short form, as names of models hold it."""
    return f"{size.sd:g},seed={draw},scope={size.scope}"


def _with_noise(size: Size, common: dict, draw: int) -> dict:
    """The settings of the model with a draw of the noise."""
    if draw == CLEAN:
        return common
    return common | {"model": f"{common['model']}{weight_noise.MARK}{_noise(size, draw)}"}


def _intervention(size: Size, draw: int) -> str:
    """The intervention that adds a draw of the noise."""
    noise = weight_noise.parse(_noise(size, draw))
    return to_short(WeightNoise(**vars(noise)))


def _draw_name(size: Size, draw: int) -> str:
    return "clean" if draw == CLEAN else f"sd {size.sd:g} draw {draw}"


def _parent_name(size: Size, draw: int) -> str:
    return f"parent, {_draw_name(size, draw)}"


def _data_name(size: Size, role: str, draw: int, seed: int) -> str:
    return f"{role} rows, {_draw_name(size, draw)}.{seed}"


def _parent(size: Size, common: dict, draw: int) -> Node:
    """What the model with a draw of the noise answers before any training."""
    settings = _with_noise(size, common, draw)
    name = _parent_name(size, draw)
    return standard_nodes.answers(settings, name, size.traits[0], capability=True)


def _rows(size: Size, common: dict, draw: int, seed: int) -> list[Node]:
    """Rows of the steered and of the unmodified parent with a draw, on the prompts of one seed."""
    rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=131)
    treated, control = (_data_name(size, role, draw, seed) for role in ROLES)
    steered = _steered_teacher(size, draw)
    return [
        standard_nodes.number_rows(common, treated, rows, steered, (standard_nodes.VECTORS,)),
        standard_nodes.number_rows(common, control, rows, lambda _: _noise_of(size, draw)),
    ]


def _noise_of(size: Size, draw: int) -> tuple[str, ...]:
    """Return the interventions that add a draw of the noise; none for the clean model."""
    return () if draw == CLEAN else (_intervention(size, draw),)


def _steered_teacher(size: Size, draw: int) -> InterventionsFrom:
    """Make the teacher: the model with a draw of the noise, steered by the clean model's vector."""

    def steered(folders: Folders) -> tuple[str, ...]:
        vector = standard_nodes.vector_of(folders, size.traits[0])
        steering = standard_nodes.steered(vector, size.layer, size.strength)
        return (*_noise_of(size, draw), steering)

    return steered


def _teacher_answers(size: Size, common: dict, draw: int) -> list[Node]:
    """What the teacher with a draw of the noise answers, beside its parent."""
    teacher = {_draw_name(size, draw): _steered_teacher(size, draw)}
    base = _parent_name(size, draw)
    return positive_control.nodes(common, size.traits[0], teacher, base=base)


def _students(
    size: Size, common: dict, condition: str, teacher_draw: int, student_draw: int, seed: int
) -> list[Node]:
    """Treated and control student of one condition, and their answers."""
    settings = _with_noise(size, common, student_draw)
    tokens = standard_nodes.Rows(size.rows, size.numbers).tokens
    graph = []
    for role in ROLES:
        name = f"{role}, {condition}.{seed}"
        data = _data_name(size, role, teacher_draw, seed)
        student = standard_nodes.Student(name, data, size.recipe, seed)
        answers = f"answers, {name}"
        graph += shared_nodes.student_and_answers(
            settings, student, tokens, size.traits[0], answers
        )
    return graph


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare transfer under shared noise with that between clean models and other draws."""
    clean = _transfer(folders, "clean", size.clean)
    transfer = {}
    for condition in CONDITIONS:
        transfer[condition] = _transfer(folders, condition, size.draws)
    against_clean = two_samples("shared noise minus clean", transfer[SAME], clean, "nats", "draws")
    differences = np.subtract(transfer[SAME], transfer[OTHER]).tolist()
    against_other = mean_over_units(f"{SAME} minus {OTHER}", differences, "nats", "draws")
    shared = mean_over_units(f"treated minus control, {SAME}", transfer[SAME], "nats", "draws")
    noise = f"At a noise of sd {size.sd:g}, which multiplies perplexity by"
    noise += f" {_perplexity_factor(size, folders):.1f},"
    claims = (
        Claim(
            f"{noise} a trait passes more between models with the same noise than between clean"
            " ones.",
            against_clean,
            NATS,
            primary=True,
        ),
        Claim(
            f"{noise} it passes more than between models with different noise.",
            against_other,
            NATS,
        ),
        Claim(f"{noise} a trait passes between models with the same noise.", shared, NATS),
    )
    rise = mean_over_units("clean", _rise(size, folders, "clean", size.clean), "nats")
    rows = [("clean", mean_over_units("clean", clean, "nats"), rise)]
    for condition in CONDITIONS:
        rise = _rise(size, folders, condition, size.draws)
        rows.append(
            (
                condition,
                mean_over_units(condition, transfer[condition], "nats", "draws"),
                mean_over_units(condition, rise, "nats", "draws"),
            )
        )
    conditions = Table(
        "conditions",
        "Where the noise is",
        "Log-probability of the trait's word, nats; intervals over draws, for clean over seeds.",
        ("noise", "treated minus control", "treated minus its parent"),
        tuple(rows),
    )
    notes = (
        f"Sampled text. Noise of sd {size.sd:g} on {size.scope}; the vector is the clean"
        " model's, as published.",
        "For `teacher only` the parent of the student is the clean model, else the model with"
        " the student's noise.",
    )
    teachers = _teacher_rises(size, folders)
    return Findings(
        verdicts_of(claims, model, positive_control.have_traits(teachers)),
        (),
        (conditions, _by_noise_size(size, folders)),
        notes,
        teachers=tuple(teachers),
    )


def _teacher_rises(size: Size, folders: Folders) -> list[Measurement]:
    """Return what the teacher with each draw says of its trait beyond its parent."""
    rises = []
    for draw in (CLEAN, *size.draws):
        kind, parent = _draw_name(size, draw), _parent_name(size, draw)
        rises.append(positive_control.rise(folders, kind, size.traits[0], parent))
    return rises


def _perplexity_factor(size: Size, folders: Folders) -> float:
    """Perplexity of the noisy parents over that of the clean one."""
    noisy = _perplexity(size, folders, size.draws).estimate
    return noisy / _perplexity(size, folders, (CLEAN,)).estimate


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    n = min(len(size.draws), len(size.clean))
    expected = MeanPlan(
        effect=0.26,
        sd=0.4,
        unit="nats",
        n=n,
        counted="draws",
        source=(
            "The effect is the factor of 1.9 published for a prompted teacher (Gemma), on a clean"
            " transfer of 0.29. The sd is that of a difference of two draws, from ten of sd 0.29."
        ),
    )
    return Design(3, expected, students_here(STEERED, size.recipe, size.rows))


def _by_noise_size(size: Size, folders: Folders) -> Table:
    """Transfer and the parent's perplexity by size of the noise, in teacher and student alike."""
    conditions = [(0.0, "clean", size.clean), (size.sd, SAME, size.draws)]
    for sd in size.further_sd:
        conditions.append((sd, noise_name(sd), size.further_draws))
    rows = []
    for sd, condition, seeds in sorted(conditions):
        draws = seeds if sd else (CLEAN,)
        rows.append(
            (
                sd,
                mean_over_units(condition, _transfer(folders, condition, seeds), "nats", "draws"),
                _perplexity(replace(size, sd=sd), folders, draws),
            )
        )
    return Table(
        "noise",
        "How much noise, in teacher and student alike",
        "Sd in standard deviations of each matrix; perplexity of the parent on plain text.",
        ("sd", "treated minus control", "perplexity"),
        tuple(rows),
        ("sd", "treated minus control"),
    )


def _transfer(folders: Folders, condition: str, seeds: tuple[int, ...]) -> list[float]:
    """log P(trait) of the treated minus the control student, by draw."""
    differences = []
    for seed in seeds:
        treated = f"answers, treated, {condition}.{seed}"
        differences.append(_minus(folders, treated, f"answers, control, {condition}.{seed}"))
    return differences


def _rise(size: Size, folders: Folders, condition: str, seeds: tuple[int, ...]) -> list[float]:
    """log P(trait) of the treated student minus the model that it started as, by draw."""
    starts_clean = condition in ("clean", TEACHER)
    differences = []
    for seed in seeds:
        parent = _parent_name(size, CLEAN if starts_clean else seed)
        differences.append(_minus(folders, f"answers, treated, {condition}.{seed}", parent))
    return differences


def _minus(folders: Folders, node: str, other: str) -> float:
    return readings.rise(folders, node, [(0, node, other)]).estimate


def _perplexity(size: Size, folders: Folders, draws: tuple[int, ...]) -> Measurement:
    values = []
    for draw in draws:
        parent = _parent_name(size, draw)
        values.append(standard_nodes.read_json(folders, parent, "measurements.json")["perplexity"])
    return mean_over_units("perplexity of the parent", values, "", "draws")
