"""The small files of many runs, each read once; large ones are looked at from their ends."""

import json
import os
from pathlib import Path
from typing import Any

from traitscope.data.traits import TRAIT_FILES, trait_name
from traitscope.errors import DataError
from traitscope.runs import store
from traitscope.runs.manifests import MANIFEST_KEYS, read_described

LARGEST = 4 * 2**20
"bytes of a file that is read whole for a list"
TAIL = 2**16
"bytes at the end of a file that hold its last row"


class RunFiles:
    """What the runs of a list say, with every settings file and manifest read once."""

    def __init__(self) -> None:
        self._settings: dict[Path, dict[str, Any]] = {}
        self._manifests: dict[Path, dict[str, Any]] = {}
        self._places: dict[Path, str] = {}
        self._trait_names: dict[str, str] = {}

    def settings(self, folder: Path) -> dict[str, Any]:
        """The settings that a run was made with, as JSON values."""
        if folder not in self._settings:
            self._settings[folder] = json.loads((folder / "config.json").read_bytes())["config"]
        return self._settings[folder]

    def manifest(self, folder: Path) -> dict[str, Any]:
        """The manifest of a sealed run.  Raises StoreError for a damaged one."""
        if folder not in self._manifests:
            self._manifests[folder] = read_described(folder / "manifest.json", MANIFEST_KEYS)
        return self._manifests[folder]

    def numbers(self, folder: Path, name: str) -> dict[str, Any]:
        """The content of a JSON file of a run; empty where it has none.

        Raises DataError for a file that is too large to be read for a list.
        """
        try:
            _check_small(folder / name)
            return json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            return {}

    def last_row(self, folder: Path, name: str) -> dict[str, Any]:
        """The last row of a JSONL file; empty where it has none."""
        with open(folder / name, "rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - TAIL))
            lines = stream.read().splitlines()
        return json.loads(lines[-1]) if lines else {}

    def counted(self, folder: Path, name: str) -> str:
        """How many rows a file has; of a large one, its size."""
        size = (folder / name).stat().st_size
        if size > LARGEST:
            return f"{size / 2**20:.0f} MiB of rows"
        return f"{(folder / name).read_bytes().count(bytes([10]))} rows"

    def place(self, folder: Path, name: str) -> str | None:
        """Where an input of a run lies; None for an input that it has not."""
        item = self.manifest(folder)["inputs"].get(name)
        if item is None:
            return None
        if folder not in self._places:
            self._places[folder] = os.path.realpath(folder)
        return os.path.normpath(os.path.join(self._places[folder], item["path"]))

    def input_folder(self, folder: Path, name: str) -> Path | None:
        """The run that an input of a run lies in; None where it lies in none, or is not there."""
        place = self.place(folder, name)
        return None if place is None else store.run_folder(Path(place))

    def trait_name(self, folder: Path, number: int, trait: str) -> str:
        """The name of a run's trait; of a file that is gone, the name of the file."""
        if not trait.endswith(TRAIT_FILES):
            return trait
        place = self.place(folder, f"trait{number}")
        if place is None or not os.path.isfile(place):
            return Path(trait).stem
        if place not in self._trait_names:
            self._trait_names[place] = trait_name(place)
        return self._trait_names[place]

    def teacher_of(self, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
        """The interventions of the teacher of a student, and the run that names them.

        The teacher of sampled text is that of the run of `generate` behind the rows, through runs
        of `filter`. That of selected pairs is the one that chose them.
        """
        settings = self.settings(folder)
        if settings["recipe"]["targets"] == "soft":
            return folder, settings.get("teacher") or []
        rows = self.input_folder(folder, "data")
        while rows is not None and self.manifest(rows)["stage"] == "filter":
            rows = self.input_folder(rows, "data")
        if rows is None or self.manifest(rows)["stage"] not in ("generate", "select"):
            return folder, []
        return rows, self.settings(rows)["interventions"]


def _check_small(file: Path) -> None:
    size = file.stat().st_size
    if size > LARGEST:
        raise DataError(
            f"{file} has {size} bytes; expected {LARGEST} or fewer; look at the run alone"
        )
