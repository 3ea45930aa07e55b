"""Checks of the files of a run, and the runs that it was made from."""

from collections.abc import Iterator
from pathlib import Path

from traitscope.errors import StoreError
from traitscope.runs.manifests import (
    RESTORE,
    file_sha256,
    hash_files,
    is_sealed,
    kept_copies,
    outputs_digest,
)
from traitscope.runs.store import load_run


def verify(run_dir: Path) -> list[str]:
    """What is wrong with the files of a run and with those of its inputs that are still there; []
    if nothing."""
    run_dir = Path(run_dir)
    try:
        manifest = load_run(run_dir).manifest()
        return [*_changed_files(run_dir, manifest), *_changed_inputs(run_dir, manifest)]
    except StoreError as error:
        return [str(error)]


def _changed_files(folder: Path, manifest: dict) -> Iterator[str]:
    sealed = {"config.json": manifest["config_sha256"], **manifest["outputs"]}
    present = hash_files(folder)
    for name in sorted(sealed.keys() | present.keys()):
        if name not in present:
            yield f"{folder / name} is missing; {RESTORE}"
        elif name not in sealed:
            yield f"{folder / name} was added after sealing; move it elsewhere"
        elif present[name] != sealed[name]:
            yield (
                f"{folder / name} changed: sha256 is {present[name]}, sealed was {sealed[name]};"
                f" {RESTORE}"
            )


def edited_since(run_dir: Path) -> list[str]:
    """What inputs of a run were changed since of which it holds a copy; [] if none.

    The run is whole without them. Raises StoreError for a run that cannot be read.
    """
    run_dir = Path(run_dir)
    manifest = load_run(run_dir).manifest()
    said = []
    for name, copy in kept_copies(manifest).items():
        item = manifest["inputs"][name]
        source = (run_dir.resolve() / item["path"]).resolve()
        digest = _digest_now(source)
        if digest != item["digest"]:
            what = "is no longer there" if digest is None else "has changed since"
            said.append(
                f"{source} {what}; this run holds it as it was read, in {run_dir / copy}, and rerun"
                " and report read that"
            )
    return said


def _changed_inputs(folder: Path, manifest: dict) -> Iterator[str]:
    copies = kept_copies(manifest)
    for name, item in manifest["inputs"].items():
        if name in copies:
            continue  # the copy is checked with the run's own files
        source = (folder.resolve() / item["path"]).resolve()
        digest = _digest_now(source)
        if digest is not None and digest != item["digest"]:
            yield (
                f"input {name!r} ({source}) changed: digest is {digest}, made from"
                f" {item['digest']}; {RESTORE}"
            )


def _digest_now(source: Path) -> str | None:
    """The digest of a file or a run as it is; None where it is gone."""
    try:
        is_there, is_folder = source.exists(), source.is_dir()
    except OSError:  # no path that could be, such as one of too many characters
        return None
    if is_folder:
        return outputs_digest(hash_files(source))
    return file_sha256(source) if is_there else None


def lineage(run_dir: Path) -> dict:
    """Tree of what a run was made from: {path, stage, address, digest, state, inputs: {name:
    tree}}.

    state: sealed, file, missing, or damaged (also unfinished or newer). digest: as recorded by the
    consumer, at the root its own. A file that lies in a run is followed into that run. Raises
    StoreError if the root cannot be read.
    """
    return _tree(Path(run_dir).resolve(), load_run(run_dir).digest)


def _tree(path: Path, digest: str) -> dict:
    tree = {
        "path": str(path),
        "stage": None,
        "address": None,
        "digest": digest,
        "state": "damaged",
        "inputs": {},
    }
    try:
        is_there = path.exists()
    except OSError:
        is_there = False
    if not is_there:
        return {**tree, "state": "missing"}
    folder = path if path.is_dir() else path.parent
    if path.is_file() and not is_sealed(folder):
        return {**tree, "state": "file"}
    try:
        manifest = load_run(folder).manifest()
    except StoreError:
        return tree
    inputs = {}
    for name, item in manifest["inputs"].items():
        inputs[name] = _tree((folder / item["path"]).resolve(), item["digest"])
    return {
        **tree,
        "stage": manifest["stage"],
        "address": manifest["address"],
        "state": "sealed",
        "inputs": inputs,
    }
