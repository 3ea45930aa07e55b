"""Run directories: one folder for one computation, named by everything that can change its result.

    <folder>/<stage>-<address>/
      config.json     written first: stage, resolved config, inputs (path, digest), model digest,
                      schema
      ...             outputs, each with its sha256 in the manifest; metrics.jsonl is one, so it
                      must hold no timings
      log.txt         free text, neither hashed nor verified
      label.json      name and note that people gave the run; neither hashed nor verified
      scratch/        checkpoints of a resumable stage, deleted before sealing
      manifest.json   written last: a directory without it is unfinished
    <folder>/.locks/<stage>-<address>.lock      kernel lock of the process that computes; the file
                                                is deleted when the process is done

A sealed run is returned, never recomputed or overwritten. Paths of inputs are stored relative to
the run, so the whole folder can be moved. A file appears under its name complete or not at all:
temporary file, fsync, rename.
"""

import hashlib
import itertools
import json
import math
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from traitscope import __version__
from traitscope.atomic_files import sync, write_json, writing
from traitscope.data.row_files import is_of_run
from traitscope.errors import DataError, StoreError
from traitscope.runs import code_version
from traitscope.runs.locks import locked
from traitscope.runs.manifests import (
    MANIFEST_KEYS,
    RUN_NAME,
    SCHEMA,
    STALE_NAME,
    TEMPORARY,
    check_unchanged,
    file_sha256,
    hash_files,
    is_sealed,
    outputs_digest,
    read_described,
)

PACKAGES = ("torch", "transformers", "numpy")
"""Packages whose versions a manifest records."""


@dataclass(frozen=True)
class Run:
    """One run directory. manifest() and digest read the disk, so they also work after the stage_run
    block."""

    path: Path
    """The directory."""
    stage: str
    """What computed it, such as train."""
    address: str
    """16 hex digits over stage, config, inputs and model."""
    sealed: bool
    """True if it was complete when this object was made: there is nothing to compute."""
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """Values for the manifest that the stage finds while it computes."""

    def file(self, name: str) -> Path:
        """Path of a file in this run.  Raises StoreError for a name that leads out of it."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StoreError(f"{name!r} leads out of the run {self.path}; name a file inside it")
        return self.path / name

    def manifest(self) -> dict:
        """What was sealed. Raises StoreError if unfinished, damaged or written by a newer
        version."""
        if not is_sealed(self.path):
            raise StoreError(
                f"{self.path} is unfinished (no manifest.json): run the same command again to"
                " continue"
            )
        return read_described(self.path / "manifest.json", MANIFEST_KEYS)

    @property
    def digest(self) -> str:
        """sha256 over the sorted (name, sha256) of the outputs: same results, same digest, wherever
        made."""
        return outputs_digest(self.manifest()["outputs"])


def address(stage: str, config: dict, inputs: dict[str, str], model: str | None) -> str:
    """First 16 hex digits of sha256 over canonical JSON of the arguments; the order of keys does
    not matter.

    `inputs` maps names to digests. 1 and 1.0 differ, a tuple and a list do not. Raises StoreError
    for a stage that cannot be part of a folder name. Also for NaN, for infinity, for keys that are
    not strings, and for values that JSON does not have.
    """
    if not RUN_NAME.fullmatch(f"{stage}-{'0' * 16}"):
        raise StoreError(
            f"stage {stage!r} cannot name a folder; use lower-case letters, digits and _"
        )
    body = {"stage": stage, "config": config, "inputs": inputs, "model": model}
    _check_plain(body, "")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_runs(root: Path) -> list[Run]:
    """All runs anywhere under `root`, sealed or not, sorted by path; moved-aside ones are left
    out."""
    return runs_among(folders_below(root))


def runs_among(folders: Iterable[Path]) -> list[Run]:
    """The runs among some folders, sorted by path."""
    runs = []
    for folder in folders:
        match = RUN_NAME.fullmatch(folder.name)
        if match:
            runs.append(Run(folder, match[1], match[2], is_sealed(folder)))
    return sorted(runs, key=lambda run: run.path)


def moved_aside_among(folders: Iterable[Path]) -> list[Path]:
    """What interrupted runs left and a later command moved aside, among some folders; sorted."""
    return sorted(folder for folder in folders if STALE_NAME.fullmatch(folder.name))


def folders_below(root: Path) -> Iterator[Path]:
    """The folder `root` and all below it, but hidden ones and those inside of runs.

    Raises StoreError where there is no such folder.
    """
    if not Path(root).is_dir():
        raise StoreError(
            f"there is no folder {root}; expected the one that holds the runs; name it with --root"
            " FOLDER"
        )
    for name, subfolders, _ in os.walk(root):
        folder = Path(name)
        subfolders[:] = [inner for inner in subfolders if not inner.startswith(".")]
        if RUN_NAME.match(folder.name):
            subfolders.clear()
        yield folder


def load_run(path: Path) -> Run:
    """The sealed run at `path`. Raises StoreError if absent, not a run, unfinished, damaged or
    newer."""
    path = Path(path)
    if path.is_file():
        raise StoreError(f"{path} is a file; expected a run directory; name one")
    if not path.is_dir():
        raise StoreError(f"there is no run directory {path}; check the path, or make the run first")
    if not is_sealed(path) and not _is_begun(path):
        raise StoreError(
            f"{path} is not a run directory: no config.json, no manifest.json of a run; give one"
            " that has them"
        )
    manifest = Run(path, "", "", False).manifest()
    return Run(path, manifest["stage"], manifest["address"], True)


def _is_begun(path: Path) -> bool:
    """Whether a folder holds the config.json of a run."""
    config = path / "config.json"
    return config.is_file() and b'"address"' in config.read_bytes()


@contextmanager
def stage_run(
    folder: Path,
    stage: str,
    config: dict,
    inputs: dict[str, Run | Path] | None = None,
    model: str | None = None,
    resumable: bool = False,
    facts: dict | None = None,
    identity: dict | None = None,
) -> Iterator[Run]:
    """Yield the run that belongs to these arguments, and seal it if the block ends without error.

    A sealed run is yielded at once: `if not run.sealed: compute`. Otherwise this process computes
    alone; another one with the same address waits, then finds it sealed. What is yielded or read
    is checked against its manifest first.

    resumable: Keep an unsealed directory, else move it aside as <name>.stale-<n>. The block then
    rewinds the files that it appends to, such as metrics.jsonl, to its checkpoint.
    inputs: Sealed runs or files, by name.
    model: Digest of the weights.
    facts: Device, threads and other values for the manifest. They are read when the run is sealed,
    so the block may still fill them in.
    identity: What enters the address in the place of config.

    Raises StoreError for a directory that cannot be written or sealed, and for a sealed run, this
    one or an input, whose files were changed.
    """
    sources, digests = {}, {}
    for name, source in (inputs or {}).items():
        sources[name], digests[name] = source_of(name, source)
    key = address(stage, config if identity is None else identity, digests, model)
    path = Path(folder) / f"{stage}-{key}"
    with ExitStack() as stack:
        if not is_sealed(path):
            stack.enter_context(locked(path))
        run = Run(path, stage, key, is_sealed(path))
        if run.sealed:
            stack.close()
            _check_sealed(run)
            yield run
            return
        for source in sources.values():
            if source.is_dir():
                check_unchanged(source, load_run(source).manifest())
        _make_directory(run, resumable)
        recorded = {}
        for name, source in sources.items():
            place = os.path.relpath(source.resolve(), run.path.resolve())
            recorded[name] = {"path": place, "digest": digests[name]}
        try:
            about = _begin(run, config, recorded, model)
        except StoreError:
            discard_if_empty(run)
            raise
        start = time.perf_counter()
        yield run
        about["seconds"] = round(time.perf_counter() - start, 3)
        _seal(run, about, facts or {})


def _check_sealed(run: Run) -> None:
    """Raise StoreError for a sealed run that was renamed or changed."""
    manifest = run.manifest()
    if manifest["address"] != run.address:
        raise StoreError(
            f"{run.path} holds the run {manifest['address']}: it was renamed; move it away, then"
            " run this again"
        )
    check_unchanged(run.path, manifest)


def _make_directory(run: Run, resumable: bool) -> None:
    """Make the directory of a run; what an interrupted one left is kept or moved aside."""
    with writing(run.path):
        if resumable and run.file("config.json").exists():
            read_described(run.file("config.json"), {"schema"})
        elif run.path.exists() and not _holds_config_only(run.path):
            run.path.rename(_stale_path(run.path))
        run.path.mkdir(parents=True, exist_ok=True)


def _holds_config_only(path: Path) -> bool:
    """Whether a run directory was left before the stage wrote anything."""
    names = {file.name for file in path.iterdir() if not TEMPORARY.fullmatch(file.name)}
    return names <= {"config.json"}


def discard_if_empty(run: Run) -> None:
    """Remove the directory of an unsealed run in which the stage has written nothing."""
    if run.path.is_dir() and _holds_config_only(run.path):
        shutil.rmtree(run.path)


def _stale_path(path: Path) -> Path:
    """The first free name to move an unfinished run directory to."""
    for number in itertools.count(1):
        stale = path.with_name(f"{path.name}.stale-{number}")
        if not stale.exists():
            return stale
    raise AssertionError("numbers do not end")


def _begin(run: Run, config: dict, inputs: dict[str, dict], model: str | None) -> dict:
    """Write config.json; return what the manifest says about the start."""
    about = {
        "schema": SCHEMA,
        "stage": run.stage,
        "address": run.address,
        "inputs": inputs,
        "model": model,
    }
    write_json(run.file("config.json"), {**about, "config": config})
    about["config_sha256"] = file_sha256(run.file("config.json"))
    about["seed"] = config.get("seed")
    about["versions"] = {"python": platform.python_version(), "traitscope": __version__}
    for name in PACKAGES:
        about["versions"][name] = version(name)
    about["git"] = code_version.known(Path(__file__).parent)
    return about


def _seal(run: Run, about: dict, facts: dict) -> None:
    """Hash and flush every output, delete scratch/ and left-over temporary files, write
    manifest.json."""
    with writing(run.path):
        for path in list(run.path.rglob(".*.tmp")):
            if TEMPORARY.fullmatch(path.name):
                path.unlink()
        outputs = hash_files(run.path)
        if outputs.pop("config.json", None) != about["config_sha256"]:
            raise StoreError(
                f"{run.file('config.json')} was overwritten by the stage; let it write into a"
                " subfolder"
            )
        _flush(run, outputs)
        if run.file("scratch").is_dir():
            shutil.rmtree(run.file("scratch"))
    about["outputs"] = outputs
    about["peak_memory_mib"] = round(_peak_memory_mib(), 1)
    about["created"] = datetime.now(UTC).isoformat()
    write_json(
        run.file("manifest.json"), {"device": None, "threads": None, **facts, **run.facts, **about}
    )


def _flush(run: Run, names: Iterable[str]) -> None:
    """Have the disk hold every output, and the folders that they lie in."""
    paths = set()
    for name in names:
        paths.add(run.file(name))
        paths.add(run.file(name).parent)
    for path in paths:
        sync(path)


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return peak / unit


def _check_plain(value: object, where: str) -> None:
    """Raise StoreError, naming the place, for what JSON cannot hold or would hold under another
    type."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, inner in value.items():
            _check_plain(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            _check_plain(inner, f"{where}.{place}")
    elif not _is_plain(value):
        raise StoreError(
            f"{where[1:]} is {value!r}; expected a finite number, text, None, a list or a dict by"
            " text; correct that setting"
        )


def _is_plain(value: object) -> bool:
    """Whether JSON has this value: None, a text, a truth value or a finite number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))


def source_of(name: str, source: Run | Path) -> tuple[Path, str]:
    """Path and digest of an input: of a run its outputs, of a file its bytes."""
    path = source.path if isinstance(source, Run) else Path(source)
    if not path.exists():
        raise StoreError(
            f"input {name!r}: there is no file or run {path}; check the path, or make it first"
        )
    return path, load_run(path).digest if path.is_dir() else file_sha256(path)


def source_at(path: Path) -> Path | Run:
    """The file at a path, or the sealed run that a folder belongs to or whose rows a file holds.

    Raises DataError where there is nothing, or something else, such as a pipe. Raises StoreError
    for a folder outside any sealed run.
    """
    if path.is_file():  # rows of a run are read as written, and a copy of them elsewhere is not
        return load_run(path.parent) if is_of_run(path) else path
    if not path.exists():
        raise DataError(f"{path} does not exist; name a run directory or a file")
    if not path.is_dir():
        raise DataError(
            f"{path} is neither a file nor a folder; expected one that can be read twice; write"
            " what comes from it into a file, and name that"
        )
    return load_run(run_folder(path) or path)


def run_folder(path: Path) -> Path | None:
    """The sealed run that a path lies in; None where it lies in none."""
    for folder in (path, *path.parents):
        is_run = RUN_NAME.fullmatch(folder.name) or (folder / "config.json").is_file()
        if is_run and (folder / "manifest.json").is_file():
            return folder
    return None
