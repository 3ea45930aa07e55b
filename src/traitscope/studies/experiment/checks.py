"""Checks of a teacher of an experiment, before anything is computed."""

from traitscope.errors import VectorError
from traitscope.interventions.checks.files import check_intervention_files
from traitscope.interventions.checks.vectors import check_direction
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.short_form import parse_all, student_folder
from traitscope.interventions.vector import Vector, load_vector
from traitscope.models.identity import finding
from traitscope.studies.experiment.file import Teacher


def check_teacher(teacher: Teacher, model: str, where: str) -> None:
    """Raise what is wrong with the files, the layer or the model of a teacher."""
    if teacher.layer is not None:
        finding.check_layers([teacher.layer], model, where)
    if teacher.vector is not None:
        layers = () if teacher.layer is None else (teacher.layer,)
        vector = load_vector(teacher.vector)
        check_direction(vector, f"{where}: {teacher.vector}", layers)
        _check_norms(vector, teacher, where)
    interventions = parse_all(teacher.interventions or ())
    if teacher.adapter is not None:
        interventions.append(Adapter(str(student_folder(teacher.adapter))))
    check_intervention_files(interventions)
    if teacher.model is not None:
        finding.find_model(teacher.model)


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
