"""Checks of the teachers and traits of an experiment, before anything is computed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from traitscope.config.commands import ExperimentConfig
from traitscope.data.own_traits import needs
from traitscope.errors import TraitscopeError, VectorError
from traitscope.interventions.adapters import origin, settings
from traitscope.interventions.checks.files import check_intervention_files
from traitscope.interventions.checks.vectors import check_direction, of_another_model
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    Intervention,
    ReplaceBase,
    Steer,
)
from traitscope.interventions.short_form import parse_all, student_folder
from traitscope.interventions.vector import Vector, load_vector
from traitscope.models.identity import finding
from traitscope.models.templates.variables import check_template
from traitscope.runs.model_cache import model_digests
from traitscope.studies.experiment import nodes
from traitscope.studies.experiment.file import Experiment, Teacher, judge_of

FLAG = re.compile(r"--template (\w+)=(\.\.\.|[^\s;,:)]+)")
"a variable of a template in a message, as a flag sets it"


def check_teacher(
    teacher: Teacher,
    model: str,
    where: str,
    same_as: str | None = None,
    template: tuple[str, ...] = (),
) -> None:
    """Raise what is wrong with the files, the layer or the model of a teacher.

    template: Variables of the experiment's templates.
    """
    if teacher.layer is not None:
        finding.check_layers([teacher.layer], model, where)
    if teacher.vector is not None:
        layers = () if teacher.layer is None else (teacher.layer,)
        vector = load_vector(teacher.vector)
        check_direction(vector, f"{where}: {teacher.vector}", layers)
        _check_norms(vector, teacher, where)
        _check_model(vector, model, same_as, f"{where}: {teacher.vector}")
    interventions = parse_all(teacher.interventions or ())
    if teacher.adapter is not None:
        interventions.append(Adapter(str(student_folder(teacher.adapter))))
    check_intervention_files(interventions)
    for item in interventions:
        _check_models(item, model, same_as, where)
    if teacher.model is not None:
        with _named(where):
            finding.find_model(teacher.model)
            check_template(teacher.model, _template_of(teacher, template))


def check_models(experiment: Experiment, config: ExperimentConfig) -> None:
    """Raise what a model would be refused for once its stages load it; weights are not read.

    These are the model of the students, and the teachers' own ones. The message names the teacher.
    """
    from traitscope.models.loading import check_loadable

    check_loadable(config.model, config.template, config.control_tokens)
    for name, teacher in experiment.teachers.items():
        if teacher.model is not None:
            template = _template_of(teacher, config.template)
            with _named(f"{config.file}: teachers.{name}"):
                check_loadable(teacher.model, template, config.control_tokens)


def _template_of(teacher: Teacher, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Return the variables of the template of a teacher's own model."""
    return usual if teacher.template is None else teacher.template


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Raise errors behind the place of a teacher, with keys of its own in the place of flags."""
    try:
        yield
    except TraitscopeError as error:
        text = FLAG.sub(_key, str(error))
        raise type(error)(f"{where}: {text}") from None


def _key(flag: re.Match[str]) -> str:
    """Return the key of a teacher that stands for a flag."""
    return f"template {flag[1]}" if flag[2] == "..." else f"template: {{{flag[1]}: {flag[2]}}}"


def _check_models(item: Intervention, model: str, same_as: str | None, where: str) -> None:
    """Raise VectorError for the vector or the peft folder of an intervention on another model."""
    if isinstance(item, Steer | Ablate | ReplaceBase):
        vector = load_vector(Path(str(item.vector)))
        _check_model(vector, model, same_as, f"{where}: {item.vector}")
    elif isinstance(item, Adapter) and (Path(item.folder) / settings.CONFIG).is_file():
        origin.notes_on(Path(item.folder), model, model_digests(model, same_as))


def _check_model(vector: Vector, model: str, same_as: str | None, where: str) -> None:
    digests = model_digests(model, same_as)
    if vector.model not in digests:
        raise VectorError(f"{where}: {of_another_model(vector, model, digests[0])}")


def _check_norms(vector: Vector, teacher: Teacher, where: str) -> None:
    """Raise VectorError where `steer` counts in residual norms that the vector does not record."""
    if "residual_norms" not in vector.about:
        layer = "L" if teacher.layer is None else teacher.layer
        raise VectorError(
            f"{where}: {teacher.vector} records no residual norms, in which steer counts; expected"
            " norms, which files of other tools lack; give interventions:"
            f" ['steer:{teacher.vector},layers={layer},alpha=A,scale=raw'] in the place of steer,"
            " vector and layer"
        )


def said_of_traits(experiment: Experiment) -> list[str]:
    """Return what traits in files lack, and what the company lacks over which they are centred."""
    named = nodes.vector_traits(experiment)
    company = [trait for trait in named if trait not in experiment.traits]
    use: needs.Use = "teachers" if judge_of(experiment.traits[0]) else "differences"
    said = [*needs.advice(experiment.traits, use), *needs.advice(company, "vectors")]
    said += needs.same_prompts(named)
    if len(named) > 1:  # of one trait alone the design says so
        said += needs.company_advice(named)
    return said
