"""The content of config.json and manifest.json of a run, and the digests in them."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traitscope.errors import StoreError
from traitscope.plain_values import NotPlainError, from_json

SCHEMA = 1
"""Version of the two files; a newer one is refused."""
RUN_NAME = re.compile(r"([a-z][a-z0-9_]*)-([0-9a-f]{16})")
"""Name of a run directory: stage and address."""
STALE_NAME = re.compile(RUN_NAME.pattern + r"\.stale-\d+")
"""Name of a directory with what an interrupted run left, once it was moved aside."""
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""Name of a file that was being written."""
MANIFEST_KEYS = {"schema", "stage", "address", "config_sha256", "inputs", "outputs"}
"""Keys without which a manifest is damaged."""
INPUT = "input:"
"""Begins a value of a config that stands for an input: input:NAME, or input:NAME/INSIDE."""
LABEL = "label.json"
"""File with the name and the note that people gave a run, which may change after it was sealed."""
UNHASHED = ("manifest.json", "log.txt", LABEL)
"""Files of a run that are no outputs."""
SCORED_BY = "scored_by"
"fact of a run of `measure`: digest of the words or judges and of the questions"
TRAINED_ON = "trained_on"
"key of a manifest that says how many rows and tokens a student learnt, and how many were held out"
TRIMMED = "trimmed_rows"
"key in it: rows whose answers have white space at their ends that the chat template takes off"
COPIES = {("experiment", "file"): "experiment.yaml"}
"""Inputs that their users go on editing, by stage and name, and the run's own copy of each."""
RESTORE = "restore it, or move the directory away and run the command again"
"""What to do about a damaged file."""
_UNCHANGED: set[tuple[str, str, int, int, int]] = set()
"""Files that this process found unchanged: path, digest, inode, size and time of change."""


def is_sealed(path: Path) -> bool:
    """Whether a run directory is complete."""
    return (path / "manifest.json").exists()


def read_described(path: Path, keys: set[str]) -> dict:
    """A config.json or manifest.json.

    Raises StoreError where it cannot be read, lacks one of the keys, or has a newer schema.
    """
    try:
        value = from_json(path.read_bytes())
    except (OSError, NotPlainError) as error:
        raise StoreError(f"{path} cannot be read ({error}); {RESTORE}") from error
    value = value if isinstance(value, dict) else {}
    if isinstance(value.get("schema"), int) and value["schema"] > SCHEMA:
        raise StoreError(
            f"{path} was written by a newer version (schema {value['schema']}): upgrade traitscope"
        )
    if lacks := ", ".join(sorted(keys - value.keys())):
        raise StoreError(f"{path} is damaged, it lacks {lacks}; {RESTORE}")
    if keys >= MANIFEST_KEYS and not _is_manifest(value):
        raise StoreError(f"{path} is damaged, a value in it has the wrong type; {RESTORE}")
    return value


def _is_manifest(value: dict) -> bool:
    """Whether the values that others read have their types, and names stay inside of the run."""
    texts = [value["stage"], value["address"], value["config_sha256"]]
    if not (isinstance(value["inputs"], dict) and isinstance(value["outputs"], dict)):
        return False
    for item in value["inputs"].values():
        if not isinstance(item, dict):
            return False
        texts += [item.get("path"), item.get("digest")]
    texts += value["outputs"].values()
    is_inside = all(".." not in Path(name).parts for name in value["outputs"])
    has_model = value.get("model") is None or isinstance(value["model"], str)
    return is_inside and has_model and all(isinstance(text, str) for text in texts)


def input_value(name: str, inside: str = "") -> str:
    """The value of a recorded config that stands for an input, or for a place inside it."""
    return f"{INPUT}{name}/{inside}" if inside else f"{INPUT}{name}"


def input_of_value(value: str) -> tuple[str, str] | None:
    """The name of the input that a value stands for, and the place inside it; None for no input."""
    if not value.startswith(INPUT):
        return None
    name, _, inside = value.removeprefix(INPUT).partition("/")
    return name, inside


def kept_copies(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The files of a run that hold an input as it was read, by the input's name."""
    copies = {}
    for (stage, name), copy in COPIES.items():
        if manifest["stage"] == stage and name in manifest["inputs"]:
            if copy in manifest["outputs"]:
                copies[name] = copy
    return copies


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes. Raises StoreError where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(
            f"cannot read {path} ({error.strerror}); check that it exists and is readable"
        ) from error


def check_unchanged(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raise StoreError if a file of a sealed run is missing, or is not as it was sealed.

    A process reads each file once, and again if its size or its time of change is another one. A
    manifest that was rewritten to match is not noticed.
    """
    sealed = {"config.json": manifest["config_sha256"], **manifest["outputs"]}
    for name, digest in sealed.items():
        file = path / name
        try:
            about = file.stat()
        except OSError as error:
            raise StoreError(f"{file} is missing ({error.strerror}); {RESTORE}") from error
        mark = (str(file), digest, about.st_ino, about.st_size, about.st_mtime_ns)
        if mark in _UNCHANGED:
            continue
        if file_sha256(file) != digest:
            raise StoreError(f"{file} changed after it was sealed; {RESTORE}")
        _UNCHANGED.add(mark)


def hash_files(path: Path) -> dict[str, str]:
    """sha256 by name, sorted: config.json and the outputs.

    Raises StoreError for a link, because the target of a link could change.
    """
    hashes = {}
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        is_scratch = name.startswith("scratch/")
        if name in UNHASHED or is_scratch or TEMPORARY.fullmatch(file.name):
            continue
        if file.is_symlink():
            raise StoreError(
                f"{file} is a link, whose target could change unnoticed; put the file itself there"
            )
        if file.is_file():
            hashes[name] = file_sha256(file)
    return dict(sorted(hashes.items()))


def outputs_digest(hashes: dict[str, str]) -> str:
    """sha256 over the sorted (name, sha256) of a run's outputs.

    config.json is no output: it holds the paths of inputs.
    """
    outputs = [item for item in sorted(hashes.items()) if item[0] != "config.json"]
    return hashlib.sha256(json.dumps(outputs).encode()).hexdigest()
