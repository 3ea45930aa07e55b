"""Does a student of numbers pick up its teacher's trait?

Source: Cloud et al. 2025, arXiv 2507.14805. Steered teachers: Blank et al. 2026, arXiv 2606.00995.

The arms, the settings and the primary claim stand in the bundled experiment demo.yaml. The stages
are those of `traitscope experiment` on that file:

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
from traitscope.comparison.read_runs import SCORE_UNITS, ReadModel
from traitscope.comparison.results import PRIMARY, Comparison
from traitscope.comparison.wording import sentences
from traitscope.config.recipe import SAMPLED_RECIPE, Recipe
from traitscope.data.package_files import bundled_file
from traitscope.data.traits import trait_name
from traitscope.interventions.vector import load_vector
from traitscope.plain_values import from_yaml
from traitscope.reporting.figures import Figure
from traitscope.reporting.verdict import (
    HAS_TRAIT,
    Claim,
    Findings,
    Precondition,
    teacher_has_trait,
    verdicts_of,
)
from traitscope.studies.design import CLOUD, STEERED, Design, over_seeds, students_here
from traitscope.studies.experiment import arms, conclusion, page
from traitscope.studies.experiment import nodes as stages
from traitscope.studies.experiment.file import (
    UNMODIFIED,
    USUAL_LAYER,
    Experiment,
    Students,
    Teacher,
)
from traitscope.studies.experiment.needs import needs_of
from traitscope.studies.experiment.reading import read_experiment
from traitscope.studies.pages import demo_page
from traitscope.studies.pages.training_figures import eas_layer_figure, eas_step_figure, loss_figure
from traitscope.studies.sizes import SOFT_RECIPE, layer_field
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

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
FILE = "demo.yaml"
"bundled experiment that the demo is"
SHOWN = read_experiment(from_yaml(bundled_file(FILE).read_text(encoding="utf-8")), FILE)
"that experiment at the size laptop"
OTHERS = SHOWN.company or ()
ROLES = ("treated", "control", "random")


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


def _laptop() -> Size:
    """Return the size of the file."""
    teacher, soft = SHOWN.teachers["sampled"], SHOWN.students_of("soft")
    assert soft.recipe and soft.rows and soft.seeds and teacher.steer
    return Size(
        trait=SHOWN.traits[0],
        others=OTHERS,
        seeds=SHOWN.all_seeds,
        soft_seeds=soft.seeds,
        rows=SHOWN.data.rows,
        soft_rows=soft.rows,
        numbers=SHOWN.data.numbers,
        matched_rows=SHOWN.data.matched_rows,
        sampled=SHOWN.recipe,
        soft=soft.recipe,
        layer=USUAL_LAYER,
        strength=teacher.steer,
        samples=SHOWN.measures.samples,
    )


LAPTOP = _laptop()
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


def experiment_of(size: Size) -> Experiment:
    """Return the bundled experiment at a size."""
    named = trait_name(size.trait)
    teacher = Teacher(trait=size.trait, steer=size.strength)
    teachers = {"sampled": teacher}
    if size.soft_seeds:
        soft = SHOWN.teachers["soft"].students or Students()
        soft = replace(soft, recipe=size.soft, rows=size.soft_rows, seeds=size.soft_seeds)
        teachers["soft"] = replace(teacher, students=soft)
    return replace(
        SHOWN,
        traits=(size.trait,),
        company=tuple(trait for trait in size.others if trait_name(trait) != named),
        teachers=teachers,
        seeds=size.seeds,
        layer=size.layer,
        data=replace(
            SHOWN.data, rows=size.rows, numbers=size.numbers, matched_rows=size.matched_rows
        ),
        recipe=size.sampled,
        measures=replace(SHOWN.measures, samples=size.samples),
    )


def nodes(size: Size, common: dict) -> list[Node]:
    """Return vectors, rows of every role, a student a condition and seed, and all their answers."""
    return stages.nodes(experiment_of(size), common)


def arm_of(mode: str, role: str) -> str:
    """Return the arm of the experiment whose students are trained so, on rows of that role."""
    words = {"treated": mode, "control": UNMODIFIED, "random": f"random like {mode}"}
    return words[role]


def students(size: Size) -> list[tuple[str, str, int]]:
    """Return (mode, role, seed) of every student."""
    listed = [("sampled", role, seed) for seed in size.seeds for role in ROLES]
    for seed in size.seeds[: size.soft_seeds]:
        listed += [("soft", "treated", seed), ("soft", "random", seed)]
    return listed


def _name(mode: str, role: str, seed: int) -> str:
    return stages.student_name(arm_of(mode, role), seed)


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
    experiment, named = experiment_of(size), trait_name(size.trait)
    read = conclusion.measured(experiment, folders)
    by_condition: dict[tuple[str, str], list[ReadModel]] = {}
    for mode, role, _ in students(size):
        by_condition[mode, role] = list(read.students[arm_of(mode, role), named])
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
    return Measured(read.base[named], read.teachers["sampled"], by_condition, comparisons)


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Return a verdict for each comparison, with tables and figures of all conditions."""
    chain = measured(size, folders)
    claims, numbers, tables = [], [], []
    for contrast, comparison in chain.comparisons.items():
        claims.append(_claim(size, folders, contrast, comparison))
        for item in comparison.differences:
            numbers.append(item.difference)
        name = f"differences-{contrast.replace('_', '-')}"
        title = demo_page.heading(contrast).capitalize()
        tables += comparison_tables(name, title, comparison)
    tables += scores_tables(chain.conditions, SCORE_UNITS)
    tables += [
        demo_page.matched_table(page.strengths(experiment_of(size), "sampled", folders)),
        demo_page.data_table(_rows(size), folders),
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


def _rows(size: Size) -> dict[tuple[str, int], str]:
    """Return the nodes of the kept rows by role and seed."""
    experiment, by_role = experiment_of(size), {}
    for seed in size.seeds:
        for role in ROLES:
            arm = arms.arm_of(experiment, arm_of("sampled", role))
            by_role[role, seed] = stages.rows_name(experiment, arm, seed)
    return by_role


def _claim(size: Size, folders: Folders, contrast: str, comparison: Comparison) -> Claim:
    """Return the claim of the experiment about a contrast, in the words of the demo."""
    experiment = experiment_of(size)
    mode, role = demo_page.CONTRASTS[contrast]
    asked = arms.Contrast(arm_of(mode, "treated"), arm_of(mode, role), size.trait)
    needs = tuple(needs_of(experiment, folders, asked))
    teacher = next(need for need in needs if need.name == HAS_TRAIT)
    words = demo_page.wording(size, contrast, teacher)
    return Claim(
        f"{words.treatment.capitalize()}, students are likelier to name the {size.trait} than"
        f" {words.reference}.",
        comparison[PRIMARY],
        conclusion.margin_of(experiment),
        units=len(comparison.treated),
        counted="seeds",
        needs=needs,
        primary=asked == conclusion.primary_contrast(experiment),
        explanation=(*sentences(comparison, words), demo_page.excluded(contrast)),
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    source = (
        "After the fact: the mean and the pooled sd are from these seeds on four processors,"
        " against students of random vectors."
    )
    asked = SHOWN.primary
    assert asked.expected and asked.spread
    expected = over_seeds(size.seeds, (asked.expected, asked.spread), "nats", source)
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
