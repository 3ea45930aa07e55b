"""A student that has been trained: kept in memory, saved, or put on its model again."""

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from traitscope import atomic_files
from traitscope.config.common import Position
from traitscope.data.records import Prompt
from traitscope.inference.residuals import intervention_vector
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model
from traitscope.training.step import Metrics


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """What `train` returns.  It stands in any list of interventions, like a teacher.

    with applied(model, [student]) as active: ...
    """

    files: dict[str, bytes]
    "the content of the student's folder, by file name: a peft adapter, full weights or one vector"
    metrics: tuple[Metrics, ...]
    "what each optimizer step measured"

    def save(self, folder: str | Path) -> Path:
        """Write the student's files to a folder, and return the folder.

        Of a LoRA student it is a peft adapter folder. `Adapter(folder)`, and `adapter:FOLDER` on
        the command line, put the student on its model again.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            atomic_files.write_bytes(folder / name, content)
        return folder

    def intervention(self) -> Adapter:
        """The intervention that puts the student on its model.

        Its folder is a temporary one that lasts as long as this object; `save` keeps the student.
        """
        return Adapter(str(self._temporary_folder))

    def vector(
        self,
        model: Model,
        prompts: Sequence[Prompt | str],
        context: str | None = None,
        position: Position = "last",
    ) -> Vector:
        """v_student: mean residual of the student minus that of `model`, over the same prompts.

        The context is the system turn; the residuals are those of the tokens at `position`.
        """
        student = self.intervention()
        return intervention_vector(model, [student], prompts, context=context, position=position)

    @cached_property
    def _temporary_folder(self) -> Path:
        folder = tempfile.mkdtemp(prefix="traitscope-student-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return self.save(folder)
