"""What the models of a comparison are, in words: students, teachers or the unmodified model."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from traitscope.interventions.intervention import Adapter, ReplaceBase, Steer, SystemPrompt

STUDENT, TEACHER, BASE, UNKNOWN = "student", "teacher", "base", ""
"roles of a model; unknown are scores in memory, adapters that no run trained, and other changes"
TEACHERS = (SystemPrompt.__name__, Steer.__name__, ReplaceBase.__name__)
"kinds of intervention that make a teacher"
ONE = {STUDENT: "the student", TEACHER: "the teacher", BASE: "the unmodified model"}
SEVERAL = {STUDENT: "the students", TEACHER: "the teachers", BASE: "the unmodified models"}
"how a sentence calls one model of a role, and more"


class HasRole(Protocol):
    """A model that knows its role."""

    @property
    def role(self) -> str:
        """One of the roles above."""


def role_of_settings(settings: Mapping[str, Any]) -> str:
    """Return the role of a model that no training run is behind, from the settings of its run."""
    if "interventions" not in settings:
        return UNKNOWN
    kinds = [item["kind"] for item in settings["interventions"]]
    if not kinds:
        return BASE
    if Adapter.__name__ not in kinds and any(kind in TEACHERS for kind in kinds):
        return TEACHER
    return UNKNOWN


def prompt_of_settings(settings: Mapping[str, Any]) -> str | None:
    """Return the system prompt among the interventions of a run; None without any."""
    text = None
    for item in settings.get("interventions", ()):
        if item["kind"] == SystemPrompt.__name__:
            text = item["text"]
    return text


def role_of(models: Sequence[HasRole]) -> str:
    """Return the role that all models of a side have; unknown where they differ."""
    roles = {model.role for model in models}
    return roles.pop() if len(roles) == 1 else UNKNOWN


def called(models: Sequence[HasRole], otherwise: str) -> str:
    """Return how a sentence calls a side, such as `the teacher`.

    `otherwise` is said of a side whose role is not known, such as `the treated model`.
    """
    if len(models) > 1:
        return SEVERAL.get(role_of(models), f"{otherwise}s")
    return ONE.get(role_of(models), otherwise)
