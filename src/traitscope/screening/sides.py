"""The two sides that are compared: the teacher and the model."""

from dataclasses import dataclass

from traitscope.config.common import check_needed
from traitscope.config.screen import ScreenConfig
from traitscope.interventions.intervention import Intervention, context_of
from traitscope.models.model import Model
from traitscope.runs import given_teacher, model_cache
from traitscope.runs.given_teacher import GivenTeacher


@dataclass(frozen=True)
class Side:
    """A model under interventions, with the context that it reads."""

    model: Model
    """The model."""
    interventions: tuple[Intervention, ...]
    """What is changed in it."""
    context: str | None
    """Its system turn."""


@dataclass(frozen=True)
class Sides:
    """The teacher and the model."""

    teacher: Side
    """The teacher."""
    model: Side
    """The model without a change."""

    @property
    def same_shape(self) -> bool:
        """Whether residuals of the two can be subtracted."""
        return given_teacher.same_shape(self.teacher.model, self.model.model)

    @property
    def vectors_left_out(self) -> str:
        """Why no vectors are taken; empty where they are."""
        if self.same_shape:
            return ""
        teacher, model = self.teacher.model, self.model.model
        return (
            f"vectors were left out: the teacher has {teacher.n_layers} blocks of"
            f" {teacher.d_model}, the model has {model.n_layers} of {model.d_model}, so their"
            " residuals cannot be subtracted"
        )


def given(config: ScreenConfig) -> GivenTeacher:
    """The teacher of a config. Raises ConfigError for one that reads other tokens."""
    check_needed(config)
    teacher = given_teacher.given_teacher(str(config.teacher), config.model)
    given_teacher.check_readable(teacher, config.model, config.template)
    return teacher


def sides_of(config: ScreenConfig, teacher: GivenTeacher) -> Sides:
    """Both sides, loaded."""
    taught = teacher.loaded(config)
    context = context_of(teacher.interventions, config.context)
    model = model_cache.model_of(config)
    return Sides(Side(taught, teacher.interventions, context), Side(model, (), config.context))
