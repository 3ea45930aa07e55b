"""The runner of a calibration, in pieces: it does the next set that has no line, and stops in time.

Several processes may run side by side, on one machine. Each has its own folder of audits, and holds
a kernel lock on the set that it works on. A killed process loses its set and nothing else. The
files of the code must not change while it runs.
"""

import fcntl
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from traitscope.errors import TraitscopeError
from traitscope.runs.manifests import RUN_NAME
from traitscope.studies.calibration.results import (
    Line,
    Version,
    add_result,
    check_version,
    read_results,
)
from traitscope.studies.calibration.sets.menu import SetName
from traitscope.studies.calibration.sets.place import Workplace

MOST_PROCESSES = 64
"processes side by side"
MADE_BY_DATA = "parts-*.json"
"files beside an audit's runs that belong to its data"


@dataclass(frozen=True)
class Work:
    """What is done for each set."""

    line_of: Callable[[SetName], Line]
    "makes the line of a set"
    version: Version
    "the version of the lines, as it was when the process began"
    clean: Callable[[SetName], None] = lambda name: None
    "deletes what a set needs no more when its line is written"


def run(
    names: Sequence[SetName],
    work: Work,
    file: Path,
    root: Path,
    seconds: float = float("inf"),
    same_as: Sequence[str] = (),
) -> int:
    """Add a line for every set that has none, in order, until the time is up; returns how many.

    No set is begun after `seconds`. A set that fails is named on stderr and left for the next call.
    Raises ConfigError where the file has lines of another version.
    """
    end = time.monotonic() + seconds
    check_version(file, read_results(file), work.version, same_as)
    added = 0
    for name in names:
        if time.monotonic() >= end:
            break
        with claimed(root / "claims" / f"{file.stem} {name.file_name}") as is_ours:
            if not is_ours or str(name) in done(file):
                continue
            try:
                line = work.line_of(name)
            except TraitscopeError as error:
                print(f"set {name} failed: {error}", file=sys.stderr, flush=True)
                continue
            add_result(file, {**line, **work.version.fields}, work.version, same_as)
            work.clean(name)
            added += 1
            print(f"{added} {name}: {json.dumps(_shown(line))}", flush=True)
    return added


def missing(file: Path, names: Sequence[SetName]) -> list[SetName]:
    """The sets that have no line, in their order."""
    there = done(file)
    return [name for name in names if str(name) not in there]


def done(file: Path) -> set[str]:
    """The sets that have a line."""
    return {line["set"] for line in read_results(file)}


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Whether this process has a file's kernel lock, which dies with it; does not wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def own_folder(place: Workplace) -> Iterator[str]:
    """The name of a folder of audits that no other process has."""
    for number in range(MOST_PROCESSES):
        name = f"audits-{number}"
        with claimed(place.root / "claims" / name) as is_ours:
            if is_ours:
                yield name
                return
    raise RuntimeError(f"{MOST_PROCESSES} processes side by side below {place.root}")


def forget(folder: Path, data: Path) -> None:
    """Delete the runs of a folder that were made from the data, and keep those of the model alone.

    An audit's vectors serve the next audit; its scores of these rows do not.
    """
    parts = list(folder.glob(MADE_BY_DATA))
    gone = {data.resolve(), *(file.resolve() for file in parts)}
    inputs = _inputs(folder)
    grows = True
    while grows:
        grows = False
        for run_folder, paths in inputs.items():
            if run_folder not in gone and any(_lies_in(path, gone) for path in paths):
                gone.add(run_folder)
                grows = True
    for path in gone & inputs.keys():
        shutil.rmtree(path)
    for file in parts:
        file.unlink()


def _inputs(folder: Path) -> dict[Path, list[Path]]:
    """The inputs of every sealed run in a folder, as paths."""
    inputs = {}
    for manifest in folder.glob("*/manifest.json"):
        if RUN_NAME.fullmatch(manifest.parent.name):
            recorded = json.loads(manifest.read_bytes())["inputs"].values()
            paths = [(manifest.parent / item["path"]).resolve() for item in recorded]
            inputs[manifest.parent.resolve()] = paths
    return inputs


def _lies_in(path: Path, places: set[Path]) -> bool:
    return path in places or not places.isdisjoint(path.parents)


def _shown(line: Line) -> Line:
    """What is printed of a line."""
    shown: Line = {}
    for name in ("status", "predictions", "best", "trait", "rise", "seconds_audit", "seconds"):
        if name in line:
            shown[name] = line[name]
    return shown
