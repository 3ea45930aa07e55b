"""EAS: how far a student has gone along a teacher's vector, layer by layer.

    v_student[l] = mean h_l(student, x) - mean h_l(base, x)
    EAS_l        = cos(v_student[l], v_teacher[l])

(Blank et al., arXiv 2606.00995, section 3.)

Shapes: L layers, D d_model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from traitscope.config.common import Position
from traitscope.data.prompts import number_prompts
from traitscope.errors import DataError
from traitscope.interventions.vector import Vector
from traitscope.models import chat

if TYPE_CHECKING:
    from traitscope.inference.token_rows import Row
    from traitscope.interventions.applied import Active
    from traitscope.models.model import Model

EAS_SEED = 7
"seed of the number prompts that v_student is taken over; training data are made with another one"

UNMOVED = (
    "the student is its base, no residual has moved, so its EAS is not defined; look for labels"
    " that are all masked (-100), frozen weights, or a learning rate of 0"
)
"what is said of a training that changes nothing"
_OWN, _OTHER = "v_student", "other/"
"keys of eas.json: the own vector, and the beginning of the keys of others"
_BASES_KEPT = 8
_base_means: OrderedDict[tuple, tuple[np.ndarray, np.ndarray]] = OrderedDict()
"""mean residuals [L, D] and norms [L] of the last base models and probes of this process, which all
students of one base are compared with"""


def eas(v_student: Vector, v_teacher: Vector) -> np.ndarray:
    """EAS [L]: the cosine of a student's vector with a teacher's, at each layer.

    Raises VectorError where the two are of different models.
    """
    return v_student.cosine(v_teacher)


def is_unmoved(v_student: Vector) -> bool:
    """Whether a student is its base at every layer, so that its EAS is not defined."""
    return not v_student.norms_L.any()


def rounded(values_L: np.ndarray) -> list[float]:
    """Values by layer with six digits, as files hold them."""
    return [round(float(value), 6) for value in values_L]


@dataclass(frozen=True)
class StudentEas:
    """EAS of one student at each layer, as `eas.json` of a run of `train` holds it."""

    own_L: list[float]
    "EAS along the vector that the student was compared with"
    others: dict[str, list[float]]
    "EAS along other vectors of the same run of `extract`, by name"

    def as_json(self) -> dict[str, list[float]]:
        """The content of the file: the key v_student, and other/NAME for each other vector."""
        content = {_OWN: self.own_L}
        for name, eas_L in self.others.items():
            content[f"{_OTHER}{name}"] = eas_L
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, list[float]]) -> StudentEas:
        """The EAS that a file holds. Raises DataError for the file of another stage."""
        if _OWN not in content:
            raise DataError(
                f"EAS of {', '.join(content) or 'nothing'}; expected {_OWN}; name a run of `train`"
                " with a vector"
            )
        others = {}
        for key, eas_L in content.items():
            if key.startswith(_OTHER):
                others[key.removeprefix(_OTHER)] = eas_L
        return cls(content[_OWN], others)


@dataclass(frozen=True)
class EasProbe:
    """The token rows over which v_student is averaged."""

    rows: tuple[Row, ...]
    "prompts with their completions, or prompts alone"
    position: Position
    "tokens whose residuals are averaged"
    about: dict[str, Any]
    "what a vector remembers of the rows"


def number_probe(model: Model, n_prompts: int, context: str | None) -> EasProbe:
    """The last tokens of number prompts, as the stage `extract` takes them."""
    from traitscope.inference.token_rows import Row

    rows = []
    for prompt in number_prompts(n_prompts, seed=EAS_SEED):
        rows.append(Row(tuple(chat.render(model, prompt.text, context)), ()))
    return _probe(rows, "last", context, f"{n_prompts} number prompts")


def completion_probe(rows: Sequence[Row], context: str | None) -> EasProbe:
    """The completion tokens of rows, as Hadley and Gultepe (arXiv 2608.05734) take them."""
    return _probe(rows, "completion", context, f"{len(rows)} rows of eas_data")


def _probe(rows: Sequence[Row], position: Position, context: str | None, prompts: str) -> EasProbe:
    about = {"position": position, "context": context, "prompts": prompts}
    return EasProbe(tuple(rows), position, about)


class ShiftMeter:
    """Takes v_student of students in training; their base is measured once."""

    def __init__(self, model: Model, probe: EasProbe) -> None:
        self.model = model
        self.probe = probe
        self.base_LD, self.norms_L = self._means_of_base()

    def v_student(self, active: Active) -> Vector:
        """v_student of the student that is on the model now."""
        from traitscope.inference import residuals

        now_LD, _ = self._means(active)
        return residuals.difference(
            self.model, now_LD, self.base_LD, self.norms_L, self.probe.about
        )

    def _means(self, active: Active) -> tuple[np.ndarray, np.ndarray]:
        from traitscope.inference import residuals

        rows = [row.ids for row in self.probe.rows]
        prompt_lengths = [len(row.prompt_ids) for row in self.probe.rows]
        return residuals.mean_residuals(
            self.model, active, rows, self.probe.position, prompt_lengths=prompt_lengths
        )

    def _means_of_base(self) -> tuple[np.ndarray, np.ndarray]:
        from traitscope.interventions.applied import applied

        model = self.model
        key = (model.digest, model.dtype, model.device, self.probe.position, self.probe.rows)
        if key not in _base_means:
            with applied(model, []) as active:
                _base_means[key] = self._means(active)
        _base_means.move_to_end(key)
        if len(_base_means) > _BASES_KEPT:
            _base_means.popitem(last=False)
        return _base_means[key]
