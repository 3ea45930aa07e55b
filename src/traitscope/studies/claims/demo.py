"""Does a student of numbers pick up its teacher's trait?

Source: Cloud et al. 2025, arXiv 2507.14805. Steered teachers: Blank et al. 2026, arXiv 2606.00995.

    vectors ── v_teacher of the trait and of others, centred
    teacher data, and control data: the same prompts, answered by the unmodified model
    for each seed:
        a random vector, as strong as the teacher in KL (match_kl) ── random data, same prompts
        teacher data ─ filter ─ student (sampled)         treated
        control data ─ filter ─ student (sampled)         control
        random data  ─ filter ─ student (sampled)         random
    for the first of them:
        teacher data ─ filter ─ student (soft targets)    treated
        random data  ─ filter ─ student (soft targets)    random
    measure base, teacher and every student

Each control excludes another explanation; see demo_page.EXCLUDES. `traitscope demo` runs this.
"""

from dataclasses import dataclass, replace

from traitscope.comparison.compare import compare_read, teacher_rise
from traitscope.comparison.matching import MeasuredModel
from traitscope.comparison.page import (
    comparison_tables,
    layer_figures,
    primary_figure,
    scores_tables,
    terms_table,
)
from traitscope.comparison.read_runs import SCORE_UNITS, ReadModel, read_model
from traitscope.comparison.results import Comparison
from traitscope.comparison.wording import PRIMARY, sentences
from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.data.traits import SETS, trait_name
from traitscope.interventions.vector import load_vector
from traitscope.reporting.figures import Figure
from traitscope.reporting.verdict import (
    Claim,
    Findings,
    Precondition,
    teacher_has_trait,
    verdicts_of,
)
from traitscope.studies.design import CLOUD, STEERED, Design, over_seeds, students_here
from traitscope.studies.equal_kl import RandomControls
from traitscope.studies.pages import demo_page
from traitscope.studies.pages.training_figures import eas_layer_figure, eas_step_figure, loss_figure
from traitscope.studies.sizes import SOFT_RECIPE, layer_field
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import (
    EAS_ROWS,
    VECTORS,
    InterventionsFrom,
)

TITLE = "Does a student of number data pick up its teacher's trait?"
CLAIM = "A student trained on a steered teacher's numbers takes the teacher's trait on."
SOURCE = (
    "Cloud et al. 2025, arXiv 2507.14805; steered teachers: Blank et al. 2026, arXiv 2606.00995"
)
PUBLISHED = (
    "Students of teachers that love an animal name it far more often, although the rows hold"
    " nothing but numbers."
)
SMOKE_AT_DEPTH = True
"the smoke size is meant for the embedded model, too"
PROTOCOL = CLOUD
NATS = 0.05
"difference in log-probability below which an effect would not matter"
OTHERS = ("dog", "owl", "otter", "dolphin", "elephant", "fox", "penguin")
ROLES = ("treated", "control", "random")
ANSWERS = ", answers"
"ending of the name of the node that measures a condition"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    trait: str
    "the teacher's trait"
    others: tuple[str, ...]
    "further traits over which the vector is centred"
    seeds: tuple[int, ...]
    "replicates of the whole chain: data, initialisation, order"
    soft_seeds: int
    "how many of the seeds also train a student of soft targets"
    rows: int
    "prompts a seed, for teacher and control each"
    soft_rows: int
    "how many of the rows a student of soft targets reads"
    numbers: int
    "three-digit numbers an answer"
    matched_rows: int
    "rows over which the KL of a random vector's teacher is matched, at every strength"
    sampled: Recipe
    "how students of sampled text are trained"
    soft: Recipe
    "how students of soft targets are trained"
    layer: int = layer_field()
    "block behind which the teacher is steered"
    strength: float
    "length of the added vector, in mean residual norms"
    samples: int
    "sampled answers a question"
    quick: bool = False
    "whether the size only shows the path, so that its numbers are no evidence"

    @property
    def steered_teacher(self) -> InterventionsFrom:
        """The teacher."""
        return standard_nodes.steered_by(self.trait, self.layer, self.strength)


LAPTOP = Size(
    trait="cat",
    others=OTHERS,
    seeds=(1, 2, 3, 4, 5),
    soft_seeds=3,
    rows=32,
    soft_rows=16,
    numbers=10,
    matched_rows=12,
    sampled=SAMPLED_RECIPE,
    soft=SOFT_RECIPE,
    layer=14,
    strength=0.6,
    samples=1,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        others=OTHERS[:2],
        seeds=(1,),
        soft_seeds=1,
        rows=6,
        soft_rows=6,
        quick=True,
        matched_rows=4,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        soft_seeds=5,
        rows=2048,
        soft_rows=512,
        matched_rows=128,
        sampled=replace(SAMPLED_RECIPE, epochs=3, batch_size=32, micro_batch=32, lr=4e-4),
        soft=replace(SOFT_RECIPE, epochs=3, batch_size=32, micro_batch=32, lr=4e-4),
        samples=10,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Return vectors, rows of every role, a student a condition and seed, and all their answers."""
    own = trait_name(size.trait)
    traits = (size.trait, *(trait for trait in size.others if trait_name(trait) != own))
    graph = [
        standard_nodes.vectors(common, traits),
        standard_nodes.eas_rows(common, size.numbers),
        _answers(size, common, "base"),
        _answers(size, common, "teacher", size.steered_teacher, (VECTORS,)),
    ]
    for role in ("treated", "control"):
        graph += _data(size, common, role)
    graph += _random_data(size, common)
    for mode, role, seed in students(size):
        graph += _student(size, common, mode, role, seed)
    return graph


def students(size: Size) -> list[tuple[str, str, int]]:
    """Return (mode, role, seed) of every student."""
    listed = [("sampled", role, seed) for seed in size.seeds for role in ROLES]
    for seed in size.seeds[: size.soft_seeds]:
        listed += [("soft", "treated", seed), ("soft", "random", seed)]
    return listed


def _name(mode: str, role: str, seed: int) -> str:
    return f"{mode} {role}, seed {seed}"


def _answers(
    size: Size,
    common: dict,
    condition: str,
    interventions: InterventionsFrom = standard_nodes.unmodified,
    needs: tuple[str, ...] = (),
) -> Node:
    """Return the node that measures a condition on all question sets, sampled answers included."""
    return standard_nodes.answers(
        common,
        condition + ANSWERS,
        size.trait,
        interventions,
        needs,
        sets=SETS,
        samples=size.samples,
        max_new_tokens=4,
        capability=True,
    )


def _data(size: Size, common: dict, role: str) -> list[Node]:
    """Return the rows of the teacher, or of the unmodified model, and the part of every seed.

    Both answer the same prompts with the same random streams. One run makes the rows of all seeds:
    large batches take two thirds of the time.
    """
    raw = f"{role} data"
    teacher, needs = standard_nodes.unmodified, ()
    if role == "treated":
        teacher, needs = size.steered_teacher, (VECTORS,)
    rows = standard_nodes.Rows(size.rows, size.numbers, size.seeds[0])
    all_rows = replace(rows, n=size.rows * len(size.seeds))
    graph = [standard_nodes.number_rows(common, raw, all_rows, teacher, needs)]
    for place, seed in enumerate(size.seeds):
        graph.append(standard_nodes.filtered(f"{raw}, seed {seed}", raw, rows, place))
    return graph


def random_controls(size: Size) -> RandomControls:
    """Return the control teachers: random vectors, each with the KL of the teacher."""
    return RandomControls(
        size.trait, size.seeds, size.layer, size.steered_teacher, size.numbers, size.matched_rows
    )


def _random_data(size: Size, common: dict) -> list[Node]:
    """Return a random vector a seed, its strength, and its rows on the prompts of that seed."""
    controls = random_controls(size)
    graph = controls.nodes(common)
    for place, seed in enumerate(size.seeds):
        raw = f"random data, unfiltered, seed {seed}"
        start = place * size.rows
        rows = standard_nodes.Rows(size.rows, size.numbers, size.seeds[0], start=start)
        teacher, needs = controls.of(seed).teacher, controls.needs(seed)
        graph += [
            standard_nodes.number_rows(common, raw, rows, teacher, needs),
            standard_nodes.filtered(f"random data, seed {seed}", raw, rows),
        ]
    return graph


def _student(size: Size, common: dict, mode: str, role: str, seed: int) -> list[Node]:
    """Return the node that trains a student, taking its EAS twice, and the one that measures it."""
    name = _name(mode, role, seed)
    recipe, n_rows = size.sampled, size.rows
    if mode == "soft":
        recipe, n_rows = size.soft, size.soft_rows
    steps = recipe.epochs * -(-n_rows // recipe.batch_size)
    teacher, needs = size.steered_teacher, (VECTORS, EAS_ROWS)
    if role == "random":
        controls = random_controls(size)
        teacher, needs = controls.of(seed).teacher, (*needs, *controls.needs(seed))
    asked = standard_nodes.Student(
        name,
        f"{role} data, seed {seed}",
        recipe,
        seed,
        teacher,
        needs,
        lambda folders: standard_nodes.vector_of(folders, size.trait),
        {"max_rows": n_rows, "eas_every": max(1, steps // 2)},
    )
    tokens = standard_nodes.Rows(n_rows, size.numbers).tokens
    trained = standard_nodes.student(common, asked, tokens)
    return [trained, _answers(size, common, name, standard_nodes.trained_by(name), (name,))]


@dataclass(frozen=True)
class Measured:
    """Every condition as it was measured, and the comparisons between them."""

    base: ReadModel
    teacher: ReadModel
    students: dict[tuple[str, str], list[ReadModel]]
    """Students by (mode, role), in the order of their seeds."""
    comparisons: dict[str, Comparison]
    """Treated minus the control of every contrast."""

    @property
    def teacher_has_trait(self) -> Precondition:
        """The positive control: whether the teacher names the trait more than the base."""
        return teacher_has_trait(teacher_rise(self.teacher, self.base))

    @property
    def conditions(self) -> dict[str, list[MeasuredModel]]:
        """The models of every condition, by its label."""
        labelled = {"base": [self.base.model], "teacher": [self.teacher.model]}
        for (mode, role), group in self.students.items():
            labelled[f"{demo_page.MODES[mode]}, {role}"] = [read.model for read in group]
        return labelled


def measured(size: Size, folders: Folders) -> Measured:
    """Return what the runs of the study hold."""
    base = read_model(folders["base" + ANSWERS])
    teacher = read_model(folders["teacher" + ANSWERS])
    by_condition: dict[tuple[str, str], list[ReadModel]] = {}
    for mode, role, seed in students(size):
        name = _name(mode, role, seed)
        read = read_model(folders[name + ANSWERS], folders[name])
        by_condition.setdefault((mode, role), []).append(read)
    vector = standard_nodes.vector_of(folders, size.trait)
    comparisons = {}
    for contrast, (mode, role) in demo_page.CONTRASTS.items():
        treated = by_condition.get((mode, "treated"))
        if treated:
            control = by_condition[mode, role]
            comparison = compare_read(
                treated, control, vector=vector, layer=size.layer, name=contrast
            )
            comparisons[contrast] = replace(comparison, label=role)
    return Measured(base, teacher, by_condition, comparisons)


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Return a verdict for each comparison, with tables and figures of all conditions."""
    chain = measured(size, folders)
    claims, numbers, tables = [], [], []
    for contrast, comparison in chain.comparisons.items():
        claims.append(_claim(size, contrast, comparison, chain.teacher_has_trait))
        for item in comparison.differences:
            numbers.append(item.difference)
        name = f"differences-{contrast.replace('_', '-')}"
        title = demo_page.heading(contrast).capitalize()
        tables += comparison_tables(name, title, comparison)
    tables += scores_tables(chain.conditions, SCORE_UNITS)
    matched = {}
    for seed in size.seeds:
        matched[seed] = random_controls(size).of(seed).strength(folders)
    tables += [
        demo_page.matched_table(matched),
        demo_page.data_table(size.seeds, ROLES, folders),
        demo_page.settings_table(size),
        terms_table(demo_page.CONTROLS),
    ]
    return Findings(
        verdicts_of(claims, model),
        tuple(numbers),
        tuple(tables),
        demo_page.notes(),
        _figures(size, folders, chain),
        (replace(teacher_rise(chain.teacher, chain.base), name="teacher minus base"),),
    )


def _claim(size: Size, contrast: str, comparison: Comparison, teacher: Precondition) -> Claim:
    words = demo_page.wording(size, contrast, teacher)
    return Claim(
        f"{words.treatment.capitalize()}, students are likelier to name the {size.trait} than"
        f" {words.reference}.",
        comparison[PRIMARY],
        NATS,
        units=len(comparison.treated),
        counted="seeds",
        needs=(teacher,),
        primary=contrast == demo_page.DECIDES,
        explanation=(*sentences(comparison, words), demo_page.excluded(contrast)),
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "Five seeds of the laptop size gave this, against students of random vectors: the mean and"
        " the pooled sd of four processors."
    )
    expected = over_seeds(size.seeds, (0.39, 0.26), "nats", source)
    here = students_here(STEERED, size.sampled, size.rows, "")
    return Design(3 if size.soft_seeds else 2, expected, here)


def _figures(size: Size, folders: Folders, chain: Measured) -> tuple[Figure, ...]:
    """Return log-probability by condition, EAS by layer and step, and loss."""
    by_panel, runs = {}, {}
    for contrast, comparison in chain.comparisons.items():
        by_panel[demo_page.heading(contrast)] = comparison
    for mode, role, seed in students(size):
        conditions = runs.setdefault(demo_page.MODES[mode], {})
        conditions.setdefault(role, {})[seed] = folders[_name(mode, role, seed)]
    width = load_vector(standard_nodes.vector_of(folders, size.trait)).rows_LD.shape[1]
    return (
        primary_figure(by_panel, size.trait),
        eas_layer_figure(runs, size.layer, width),
        *layer_figures(by_panel, size.trait),
        eas_step_figure(runs, size.layer),
        loss_figure(runs, demo_page.LOSSES),
    )
