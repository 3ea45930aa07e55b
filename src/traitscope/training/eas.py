"""EAS while a student trains: how far it has gone along its teacher's vector, layer by layer."""

import json

import numpy as np

from traitscope.config.stages import TrainConfig
from traitscope.data.prompts import number_prompts
from traitscope.errors import DataError
from traitscope.inference import residuals
from traitscope.inference.token_rows import Row, rows_from
from traitscope.interventions.intervention import Active, applied
from traitscope.interventions.vector import check_vector, load_vector, vector_bytes
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import stage
from traitscope.training.student import Student

WATCH_SEED = 7
"Seed of the number prompts that EAS is taken on; not those of training"

_BASE: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
"""mean residuals and their norms of the base models met in this process: every student of one is
compared with them"""


class Watch:
    """EAS while training: cos(v_student after n steps, v_teacher) per layer (Blank et al., section
    3).

    Over the last tokens of number prompts, equal to what `extract` finds on the checkpoint of that
    step, or over the completion tokens of rows, as Hadley and Gultepe (arXiv 2608.05734) do.
    Without a vector it measures nothing.
    """

    def __init__(self, model: Model, config: TrainConfig) -> None:
        self.model, self.vector = model, None
        if config.vector is None:
            return
        file = stage.vector_file(config.vector)
        self.vector = load_vector(file)
        near = (
            sorted(file.parent.glob("*.safetensors"))
            if stage.run_folder(file) == file.parent
            else []
        )
        self.named = {"v_student": self.vector} | {
            f"other/{p.stem}": load_vector(p) for p in near if p != file
        }
        for vector in self.named.values():
            check_vector(vector, model)
        self.rows = _watched(model, config)
        position = "completion" if config.eas_data else "last"
        prompts = f"{len(self.rows)} {'rows of eas_data' if config.eas_data else 'number prompts'}"
        self.about = {"position": position, "context": config.context, "prompts": prompts}
        key = (model.digest, model.dtype, model.device, position, tuple(self.rows))
        if key not in _BASE:
            with applied(model, []) as active:
                _BASE[key] = self._means(active)
        self.base_LD, self.norms_L = _BASE[key]

    def _means(self, active: Active) -> tuple[np.ndarray, np.ndarray]:
        lengths = [len(row.prompt_ids) for row in self.rows]
        rows = [row.ids for row in self.rows]
        return residuals.mean_residuals(
            self.model, active, rows, self.about["position"], prompt_lengths=lengths
        )

    def __call__(self, student: Student) -> dict[str, list[float]]:
        """{"eas": cosine per layer, "shift": norm of v_student per layer}, rounded to 6 digits; {}
        without a vector."""
        if self.vector is None:
            return {}
        now_LD, _ = self._means(student.active)
        self.v_student = residuals.difference(
            self.model, now_LD, self.base_LD, self.norms_L, self.about
        )
        cosine = self.v_student.cosine(self.vector)
        return {
            "eas": [round(float(c), 6) for c in cosine],
            "shift": [round(float(n), 6) for n in self.v_student.norms_L],
        }

    def files(self) -> dict[str, bytes]:
        """The last v_student, and its EAS against the vector and against those of other traits in
        the same run."""
        if self.vector is None:
            return {}
        eas = {
            name: [round(float(c), 6) for c in self.v_student.cosine(v)]
            for name, v in self.named.items()
        }
        return {
            "v_student.safetensors": vector_bytes(self.v_student),
            "eas.json": (json.dumps(eas) + "\n").encode(),
        }


def _watched(model: Model, config: TrainConfig) -> list[Row]:
    """The rows of eas_data, or number prompts without a completion."""
    if config.eas_data is None:
        prompts = number_prompts(config.eas_prompts, seed=WATCH_SEED)
        return [Row(tuple(chat.render(model, p.text, config.context)), ()) for p in prompts]
    rows = rows_from(model, stage.rows_of(config.eas_data), config.context, config.text)[
        : config.eas_prompts
    ]
    if not rows:
        raise DataError(
            f"--eas-data {config.eas_data} has no kept row; expected at least one to average over"
        )
    return rows
