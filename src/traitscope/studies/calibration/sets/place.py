"""Where a calibration computes: its folder and its model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.data.records import Record, dump_records


@dataclass(frozen=True)
class Workplace:
    """The folder of all runs, and the model that is calibrated."""

    root: Path
    "folder of everything that is computed; it can be deleted when the results are in"
    model: str = "smollm2-135m"
    "the model"
    device: str = "auto"
    "device to compute on"
    dtype: str = "auto"
    "number type to compute in"
    rows: int = 0
    "most rows of a set; 0 takes the planned ones"

    @property
    def common(self) -> dict[str, Any]:
        """Settings of every stage."""
        return {"model": self.model, "device": self.device, "dtype": self.dtype}

    @property
    def out(self) -> Output:
        """Where the runs of writers and rows lie."""
        return Output(root=self.root, study="calibration")

    def write(self, name: str, text: str) -> Path:
        """Write a file of texts, and return its path."""
        path = self.root / "texts" / name
        atomic_files.write_text(path, text)
        return path

    def write_rows(self, name: str, records: list[Record]) -> Path:
        """Write a file of rows, and return its path."""
        return self.write(f"{name}.jsonl", dump_records(records))
