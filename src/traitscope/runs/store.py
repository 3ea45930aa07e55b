"""Run directories: one folder for one computation, named by everything that can change its result.

    <folder>/<stage>-<address>/
      config.json     written first: stage, resolved config, inputs (path, digest), model digest,
                      schema
      ...             outputs, each with its sha256 in the manifest; metrics.jsonl is one, so it
                      must hold no timings
      log.txt         free text, neither hashed nor verified
      scratch/        checkpoints of a resumable stage, deleted before sealing
      manifest.json   written last: a directory without it is unfinished
    <folder>/.locks/<stage>-<address>.lock      kernel lock of the process that computes; dies with
                                                it

A sealed run is returned, never recomputed or overwritten. Paths of inputs are stored relative to
the run, so the whole folder can be moved. A file appears under its name complete or not at all:
temporary file, fsync, rename.
"""

import fcntl
import hashlib
import itertools
import json
import math
import os
import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from traitscope import __version__
from traitscope.atomic_files import sync, write_json, writing
from traitscope.errors import StoreError
from traitscope.runs import code_version

SCHEMA = 1
RUN_NAME = re.compile(r"([a-z][a-z0-9_]*)-([0-9a-f]{16})")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
MANIFEST_KEYS = {"schema", "stage", "address", "config_sha256", "inputs", "outputs"}
RESTORE = "restore it, or move the directory away and run the command again"


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
        return _read_described(self.path / "manifest.json", MANIFEST_KEYS)

    @property
    def digest(self) -> str:
        """sha256 over the sorted (name, sha256) of the outputs: same results, same digest, wherever
        made."""
        return _digest(self.manifest()["outputs"])


def address(stage: str, config: dict, inputs: dict[str, str], model: str | None) -> str:
    """First 16 hex digits of sha256 over canonical JSON of the arguments; the order of keys does
    not matter.

    `inputs` maps names to digests. 1 and 1.0 differ, a tuple and a list do not. Raises StoreError
    for a stage that cannot be part of a folder name, NaN, infinity, keys that are not strings, and
    values that JSON does not have.
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
    if not Path(root).is_dir():
        raise StoreError(f"there is no folder {root}; give the folder that holds the runs")
    found = []
    for folder, names, _ in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".") and ".stale-" not in name]
        if match := RUN_NAME.fullmatch(Path(folder).name):
            found.append(Run(Path(folder), match[1], match[2], is_sealed(Path(folder))))
            names.clear()
    return sorted(found, key=lambda run: run.path)


def load_run(path: Path) -> Run:
    """The sealed run at `path`. Raises StoreError if absent, not a run, unfinished, damaged or
    newer."""
    path = Path(path)
    if not path.is_dir():
        raise StoreError(f"there is no run directory {path}; check the path, or make the run first")
    if not is_sealed(path) and not any(
        b'"address"' in about.read_bytes() for about in path.glob("config.json")
    ):
        raise StoreError(
            f"{path} is not a run directory: no config.json, no manifest.json of a run; give one"
            " that has them"
        )
    manifest = Run(path, "", "", False).manifest()
    return Run(path, manifest["stage"], manifest["address"], True)


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
    alone; another one with the same address waits, then finds it sealed. An unsealed directory is
    kept if `resumable` (the block then rewinds what it appends to, such as metrics.jsonl, to its
    checkpoint), else moved aside as <name>.stale-<n>. inputs: sealed runs or files by name. model:
    digest of the weights. facts: device, threads and other values for the manifest, read when
    sealing, so the block may still fill them in. identity: what enters the address in the place of
    config. Raises StoreError.
    """
    sources = {name: source_of(name, source) for name, source in (inputs or {}).items()}
    digests = {name: digest for name, (_, digest) in sources.items()}
    key = address(stage, config if identity is None else identity, digests, model)
    path = Path(folder) / f"{stage}-{key}"
    with ExitStack() as stack:
        if not is_sealed(path):
            stack.enter_context(_locked(path))
        run = Run(path, stage, key, is_sealed(path))
        if run.sealed:
            stack.close()
            if (found := run.manifest()["address"]) != key:
                raise StoreError(
                    f"{path} holds the run {found}: it was renamed; move it away, then run this"
                    " again"
                )
            yield run
            return
        about = _prepare(run, config, sources, model, resumable)
        start = time.perf_counter()
        yield run
        _seal(run, about | {"seconds": round(time.perf_counter() - start, 3)}, facts or {})


def verify(run_dir: Path) -> list[str]:
    """What is wrong with the files of a run and with those of its inputs that are still there; []
    if nothing."""
    try:
        return list(_problems(Path(run_dir), load_run(run_dir).manifest()))
    except StoreError as error:
        return [str(error)]


def lineage(run_dir: Path) -> dict:
    """Tree of what a run was made from: {path, stage, address, digest, state, inputs: {name:
    tree}}.

    state: sealed, file, missing, or damaged (also unfinished or newer). digest: as recorded by the
    consumer, at the root its own. A file that lies in a run is followed into that run. Raises
    StoreError if the root cannot be read.
    """
    return _node(Path(run_dir).resolve(), load_run(run_dir).digest)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the kernel lock of a run directory, after waiting for whoever has it; kill -9 releases
    it too."""
    lock = lock_of(path)
    with ExitStack() as stack:
        with writing(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(open(lock, "ab", buffering=0))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = lock.read_text() or "another process"
                print(f"waiting for {holder} to finish {path}", file=sys.stderr, flush=True)
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {platform.node()}".encode())
        yield


def lock_of(path: Path) -> Path:
    """The file that whoever computes a run directory holds a kernel lock on."""
    return path.parent / ".locks" / f"{path.name}.lock"


def _prepare(
    run: Run, config: dict, sources: dict[str, tuple[Path, str]], model: str | None, resumable: bool
) -> dict:
    """Make the directory with its config.json; return what the manifest says about the start."""
    with writing(run.path):
        if resumable and run.file("config.json").exists():
            _read_described(run.file("config.json"), {"schema"})
        elif run.path.exists():
            names = (run.path.with_name(f"{run.path.name}.stale-{n}") for n in itertools.count(1))
            run.path.rename(next(name for name in names if not name.exists()))
        run.path.mkdir(parents=True, exist_ok=True)
    home = run.path.resolve()
    inputs = {
        name: {"path": os.path.relpath(path.resolve(), home), "digest": d}
        for name, (path, d) in sources.items()
    }
    about = {
        "schema": SCHEMA,
        "stage": run.stage,
        "address": run.address,
        "inputs": inputs,
        "model": model,
    }
    write_json(run.file("config.json"), about | {"config": config})
    versions = {"python": platform.python_version(), "traitscope": __version__} | {
        n: version(n) for n in ("torch", "transformers", "numpy")
    }
    about |= {
        "config_sha256": _sha256(run.file("config.json")),
        "seed": config.get("seed"),
        "versions": versions,
    }
    return about | {"git": code_version.known(Path(__file__).parent)}


def _seal(run: Run, about: dict, facts: dict) -> None:
    """Hash and flush every output, delete scratch/ and left-over temporary files, write
    manifest.json."""
    with writing(run.path):
        for path in [path for path in run.path.rglob(".*.tmp") if TEMPORARY.fullmatch(path.name)]:
            path.unlink()
        outputs = _hash_files(run.path)
        if outputs.pop("config.json", None) != about["config_sha256"]:
            raise StoreError(
                f"{run.file('config.json')} was overwritten by the stage; let it write into a"
                " subfolder"
            )
        for path in {path for name in outputs for path in (run.file(name), run.file(name).parent)}:
            sync(path)
        if run.file("scratch").is_dir():
            shutil.rmtree(run.file("scratch"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )
    about |= {
        "outputs": outputs,
        "peak_memory_mib": round(peak, 1),
        "created": datetime.now(UTC).isoformat(),
    }
    write_json(run.file("manifest.json"), {"device": None, "threads": None} | facts | about)


def _check_plain(value: object, where: str) -> None:
    """Raise StoreError, naming the place, for what JSON cannot hold or would hold under another
    type."""
    items = ()
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif not (
        value is None
        or isinstance(value, (str, int))
        or isinstance(value, float)
        and math.isfinite(value)
    ):
        raise StoreError(
            f"{where[1:]} is {value!r}; expected a finite number, text, None, a list or a dict by"
            " text"
        )
    for key, item in items:
        _check_plain(item, f"{where}.{key}")


def is_sealed(path: Path) -> bool:
    return (path / "manifest.json").exists()


def _read_described(path: Path, keys: set[str]) -> dict:
    """A config.json or manifest.json, if of a schema this version knows and with these keys."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); {RESTORE}") from error
    value = value if isinstance(value, dict) else {}
    if isinstance(value.get("schema"), int) and value["schema"] > SCHEMA:
        raise StoreError(
            f"{path} was written by a newer version (schema {value['schema']}): upgrade traitscope"
        )
    if lacks := ", ".join(sorted(keys - value.keys())):
        raise StoreError(f"{path} is damaged, it lacks {lacks}; {RESTORE}")
    return value


def source_of(name: str, source: Run | Path) -> tuple[Path, str]:
    """Path and digest of an input: of a run its outputs, of a file its bytes."""
    path = source.path if isinstance(source, Run) else Path(source)
    if not path.exists():
        raise StoreError(
            f"input {name!r}: there is no file or run {path}; check the path, or make it first"
        )
    return path, load_run(path).digest if path.is_dir() else _sha256(path)


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(
            f"cannot read {path} ({error.strerror}); check that it exists and is readable"
        ) from error


def _hash_files(path: Path) -> dict[str, str]:
    """sha256 by name, sorted: config.json and the outputs. Raises StoreError for a link, whose
    target could change."""
    hashes = {}
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        if (
            name in ("manifest.json", "log.txt")
            or name.startswith("scratch/")
            or TEMPORARY.fullmatch(file.name)
        ):
            continue
        if file.is_symlink():
            raise StoreError(
                f"{file} is a link, whose target could change unnoticed; put the file itself there"
            )
        if file.is_file():
            hashes[name] = _sha256(file)
    return dict(sorted(hashes.items()))


def _digest(hashes: dict[str, str]) -> str:
    outputs = sorted(
        item for item in hashes.items() if item[0] != "config.json"
    )  # it holds paths of inputs
    return hashlib.sha256(json.dumps(outputs).encode()).hexdigest()


def _problems(path: Path, manifest: dict) -> Iterator[str]:
    sealed, found = (
        {"config.json": manifest["config_sha256"]} | manifest["outputs"],
        _hash_files(path),
    )
    for name in sorted(sealed.keys() | found.keys()):
        if name not in found:
            yield f"{path / name} is missing; {RESTORE}"
        elif name not in sealed:
            yield f"{path / name} was added after sealing; move it elsewhere"
        elif found[name] != sealed[name]:
            yield (
                f"{path / name} changed: sha256 is {found[name]}, sealed was {sealed[name]};"
                f" {RESTORE}"
            )
    for name, item in manifest["inputs"].items():
        source = (path.resolve() / item["path"]).resolve()
        now = (
            _digest(_hash_files(source))
            if source.is_dir()
            else _sha256(source)
            if source.exists()
            else None
        )
        if now not in (None, item["digest"]):
            yield (
                f"input {name!r} ({source}) changed: digest is {now}, made from {item['digest']};"
                f" {RESTORE}"
            )


def _node(path: Path, digest: str) -> dict:
    node = {
        "path": str(path),
        "stage": None,
        "address": None,
        "digest": digest,
        "state": "damaged",
        "inputs": {},
    }
    folder = path if path.is_dir() else path.parent
    if not path.exists() or (path.is_file() and not is_sealed(folder)):
        return node | {"state": "file" if path.exists() else "missing"}
    try:
        manifest = load_run(folder).manifest()
    except StoreError:
        return node
    items = manifest["inputs"].items()
    inputs = {
        name: _node((folder / item["path"]).resolve(), item["digest"]) for name, item in items
    }
    return node | {
        "stage": manifest["stage"],
        "address": manifest["address"],
        "state": "sealed",
        "inputs": inputs,
    }


def run_folder(path: Path) -> Path | None:
    """The sealed run that a path lies in."""
    names = ("manifest.json", "config.json")
    return next(
        (p for p in (path, *path.parents) if all((p / name).is_file() for name in names)), None
    )
