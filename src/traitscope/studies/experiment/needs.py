"""What must be so for a claim of an experiment to be about transfer, and what a plan lacks."""

from collections.abc import Sequence

from traitscope.config.recipe import FEW_STEPS
from traitscope.data.traits import trait_name
from traitscope.plurals import counted
from traitscope.reporting import verdict
from traitscope.reporting.verdict import Precondition
from traitscope.stats.decision import MIN_UNITS
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings
from traitscope.studies.behaviours import outcomes_of, rate_difference
from traitscope.studies.experiment import arms as arms_of
from traitscope.studies.experiment import nodes as stages
from traitscope.studies.experiment.arms import BASE, Arm, Contrast
from traitscope.studies.experiment.file import UNMODIFIED, Experiment
from traitscope.workflow.graph import Folders
from traitscope.workflow.standard_nodes import read_json_lines

MOVED = 0.01
"total variation from the base below which students are taken not to have moved"
SAME_STEPS = 0.1
"largest difference of the optimizer steps of both sides, as a share"
RISE, RISE_NATS = 0.1, 0.05
"rise of a training loss that is taken for a failed training: this share of it and so many nats"


def needs_of(experiment: Experiment, folders: Folders, contrast: Contrast) -> list[Precondition]:
    """Return the preconditions of one contrast, each with what was found."""
    needs = []
    if experiment.teachers[contrast.treated].maker:
        needs.append(_teacher_has_trait(experiment, folders, contrast))
    needs.append(_moved(experiment, folders, contrast))
    needs.append(_has_control(contrast))
    if contrast.control != BASE:
        needs.append(_trained_alike(experiment, folders, contrast))
    return needs


def _teacher_has_trait(
    experiment: Experiment, folders: Folders, contrast: Contrast
) -> Precondition:
    """Return whether the teacher has what its students are asked for."""
    rise = teacher_rise(experiment, folders, contrast)
    if experiment.primary.score == "judged":
        return verdict.above_zero(rise, verdict.SHOWS_BEHAVIOUR)
    return verdict.teacher_has_trait(rise)


def teacher_rise(experiment: Experiment, folders: Folders, contrast: Contrast) -> Measurement:
    """Return the teacher of a contrast minus the base, in what its students are asked for."""
    name = stages.teacher_name(experiment.writer_of(contrast.treated))
    judge = experiment.measures.judge
    if experiment.primary.score == "judged" and judge is not None:
        left = outcomes_of(folders, name, judge.judges[0])[None]
        right = outcomes_of(folders, BASE, judge.judges[0])[None]
        return rate_difference(f"{contrast.treated} teacher minus base", left, right, (0,))
    pair = (0, stages.answers_name(name, contrast.trait), stages.answers_name(BASE, contrast.trait))
    title = f"{contrast.treated} teacher of {trait_name(contrast.trait)} minus base"
    return readings.rise(folders, title, [pair], experiment.judge or "target_logprob")


def teacher_rises(
    experiment: Experiment, folders: Folders, contrasts: Sequence[Contrast]
) -> tuple[Measurement, ...]:
    """Return every teacher minus the base, once, where it is known what made it."""
    rises: dict[tuple[str, str], Measurement] = {}
    for contrast in contrasts:
        key = contrast.treated, contrast.trait
        if key not in rises and experiment.teachers[contrast.treated].maker:
            rises[key] = teacher_rise(experiment, folders, contrast)
    return tuple(rises.values())


def _moved(experiment: Experiment, folders: Folders, contrast: Contrast) -> Precondition:
    """Return whether the treated students answer otherwise than the base."""
    if experiment.judge_about(contrast.trait):
        return _moved_in_text(experiment, folders, contrast)
    distances = []
    for seed in arms_of.arm_of(experiment, contrast.treated).seeds:
        student = stages.student_name(contrast.treated, seed)
        node = stages.answers_name(student, contrast.trait)
        for value in readings.positive_scores(folders, node, "total_variation").values():
            distances.append(value)
    mean = sum(distances) / len(distances)
    name = f"the treated students answer otherwise than the base, by {MOVED:g} or more"
    found = f"mean total variation of the next token {mean:.3f}"
    return Precondition(name, mean >= MOVED, found)


def _moved_in_text(experiment: Experiment, folders: Folders, contrast: Contrast) -> Precondition:
    """Return whether the treated students answer otherwise than the base, by the same draws."""
    of_base = readings.positive_answers(folders, stages.answers_name(BASE, contrast.trait))
    others = count = 0
    for seed in arms_of.arm_of(experiment, contrast.treated).seeds:
        student = stages.student_name(contrast.treated, seed)
        node = stages.answers_name(student, contrast.trait)
        for question, answers in readings.positive_answers(folders, node).items():
            for own, base in zip(answers, of_base[question], strict=True):
                others += own != base
                count += 1
    name = f"the treated students answer otherwise than the base, by {MOVED:g} or more"
    found = f"{others} of {count} sampled answers differ from the base's, drawn alike"
    return Precondition(name, others >= MOVED * count, found)


def _has_control(contrast: Contrast) -> Precondition:
    """Return whether there are control students at all."""
    name = "there are control students"
    if contrast.control != BASE:
        return Precondition(name, True, contrast.control)
    return Precondition(
        name,
        False,
        "none; students of any rows differ from the model before training",
    )


def _trained_alike(experiment: Experiment, folders: Folders, contrast: Contrast) -> Precondition:
    """Return whether both sides trained for as long, and neither training failed."""
    sides = [
        training_of(experiment, folders, contrast.treated),
        training_of(experiment, folders, contrast.control),
    ]
    steps = [side["steps"].estimate for side in sides]
    is_alike = max(steps) <= (1 + SAME_STEPS) * min(steps)
    texts = []
    for role, side in zip(("treated", "control"), sides, strict=True):
        first, last = side["first loss"].estimate, side["last loss"].estimate
        is_alike &= last <= (1 + RISE) * first + RISE_NATS
        count = f"{side['steps'].estimate:g}"
        texts.append(f"{role} {count} steps, loss {first:.3f} to {last:.3f} nats a token")
    name = (
        "both sides trained for as many steps, and no loss rose by more than"
        f" {RISE:.0%} and {RISE_NATS:g} nats"
    )
    return Precondition(name, is_alike, "; ".join(texts))


def training_of(experiment: Experiment, folders: Folders, arm: str) -> dict[str, Measurement]:
    """Return steps and losses of the students of an arm, in means over seeds."""
    values: dict[str, list[float]] = {}
    trained = arms_of.arm_of(experiment, arm).seeds
    for seed in trained:
        metrics = read_json_lines(folders[stages.student_name(arm, seed)], "metrics.jsonl")
        held_out = [row["held_out_loss"] for row in metrics if row.get("held_out_loss") is not None]
        values.setdefault("steps", []).append(metrics[-1]["step"])
        values.setdefault("first loss", []).append(metrics[0]["loss"])
        values.setdefault("last loss", []).append(metrics[-1]["loss"])
        if held_out:
            values.setdefault("held-out loss", []).append(held_out[-1])
    means = {}
    for name, by_seed in values.items():
        unit = "steps" if name == "steps" else "nats"
        if len(by_seed) == len(trained):
            means[name] = measure(f"{arm}, {name}", by_seed, list(trained), unit=unit)
    return means


def lacks(experiment: Experiment) -> list[str]:
    """Return what the design lacks, in sentences, before anything is computed."""
    sentences = []
    if not experiment.all_controls:
        sentences.append("There is no control, so no claim can have a verdict: add controls.")
    for arm in arms_of.treated_arms(experiment):
        sentences += _lacks_of_students(experiment, arm)
    sentences = list(dict.fromkeys(sentences))
    is_judged = bool(experiment.judge_about(experiment.traits[0]))
    if is_judged and not experiment.data.about_numbers:
        sentences.append(
            "No filter looks for the behaviour in the rows: where they show it, students learn it"
            " from what they read, which is no subliminal transfer."
        )
    if experiment.data.shared:
        sentences.append("All seeds read the same rows, so intervals leave out how rows differ.")
    if len(stages.vector_traits(experiment)) == 1:
        sentences.append(
            "The vector of one trait alone is mostly the form of its prompt: name company."
        )
    sentences += _lacks_of_files(experiment)
    for name, teacher in experiment.teachers.items():
        if not teacher.maker:
            sentences.append(
                f"What wrote the rows of {name} is not named, so the page cannot say whether it has"
                " the trait."
            )
    return sentences


def _lacks_of_files(experiment: Experiment) -> list[str]:
    """Return what lacks where rows come from files: prompts in common, and rows that differ."""
    files = {}
    for arm in arms_of.all_arms(experiment):
        if arm.rows:
            files[arm.name] = arm.rows
    if not files:
        return []
    sentences = _short_files(experiment)
    if not experiment.data.shared:
        sentences.append(
            f"All seeds read the same rows of {', '.join(path.name for path in files.values())}, so"
            " intervals leave out how these rows differ."
        )
    for contrast in arms_of.contrasts(experiment):
        sides = files.get(contrast.treated), files.get(contrast.control)
        if contrast.control != BASE and sides[0] != sides[1]:
            sentences.append(
                f"Prompts of {contrast.treated} and of {contrast.control} may differ, so a"
                " difference of their students may come from the prompts."
            )
    return sentences


def _short_files(experiment: Experiment) -> list[str]:
    """Return which files hold fewer rows than students should read."""
    sentences = []
    for arm in arms_of.all_arms(experiment):
        if arm.rows and arm.n_rows < arm.asked_rows:
            sentences.append(
                f"{arm.rows.name} holds {counted(arm.n_rows, 'row')} for students, of the"
                f" {arm.asked_rows} that are asked for."
            )
    return list(dict.fromkeys(sentences))


def _lacks_of_students(experiment: Experiment, arm: Arm) -> list[str]:
    """Return what the students of a teacher lack: seeds, steps, a control that can move."""
    sentences, whose = [], ""
    if experiment.teachers[arm.name].students is not None:
        whose = f" of {arm.name}"
    if len(arm.seeds) < MIN_UNITS:
        seeds = f"There are {len(arm.seeds)} of the {MIN_UNITS} seeds that a verdict needs"
        sentences.append(f"{seeds}{' for students' if whose else ''}{whose}.")
    steps = steps_of(arm)
    if steps < FEW_STEPS:
        sentences.append(
            f"A student{whose} takes {steps} optimizer steps; with fewer than {FEW_STEPS} it hardly"
            " learns its rows."
        )
    controls = experiment.students_of(arm.name).controls or ()
    if arm.recipe.targets == "soft" and UNMODIFIED in controls:
        sentences.append(
            "Students of the unmodified model's own distributions hardly move, so they are a weak"
            " control of soft targets."
        )
    return sentences


def steps_of(arm: Arm) -> int:
    """Return the optimizer steps of a student of an arm, if no row is dropped."""
    recipe, rows = arm.recipe, arm.n_rows
    return recipe.epochs * recipe.steps_an_epoch(rows - recipe.held_out_rows(rows))
