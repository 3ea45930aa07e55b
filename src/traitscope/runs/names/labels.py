"""The name and the note of a run: label.json, beside the seal.

A label is no output of the run. It enters neither its address nor its digest, and may be set and
changed after the run was sealed. One name stands for one run below a root; whoever names a run
holds a kernel lock meanwhile.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from traitscope import atomic_files
from traitscope.errors import ConfigError, StoreError
from traitscope.plain_values import NotPlainError, from_json
from traitscope.runs import store
from traitscope.runs.locks import locked
from traitscope.runs.manifests import LABEL, RUN_NAME

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"what a name looks like: it can be a part of a path, and is no flag"
LONGEST_NOTE = 2_000
"characters of a note"


@dataclass(frozen=True)
class Label:
    """What people call a run."""

    name: str = ""
    """The name; empty where there is none."""
    note: str = ""
    """A text on it; empty where there is none."""


def label_of(folder: Path) -> Label:
    """The label of a run directory; an empty one where nobody gave one.

    Raises StoreError for a file that is no label.
    """
    file = folder / LABEL
    try:
        plain = from_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return Label()
    except (OSError, NotPlainError) as error:
        raise _broken(file, str(error)) from error
    is_label = isinstance(plain, dict) and plain.keys() == {"name", "note"}
    if not is_label or not all(isinstance(value, str) for value in plain.values()):
        raise _broken(file, "it needs the texts name and note, and no other")
    return Label(**plain)


def _broken(file: Path, why: str) -> StoreError:
    return StoreError(
        f"{file} is no label of a run ({why}); delete it, then name the run again with:"
        " traitscope show RUN --name NAME"
    )


def check_name(name: str) -> None:
    """Raise ConfigError for a name that cannot stand for a run."""
    if not NAME.fullmatch(name) or RUN_NAME.fullmatch(name):
        raise ConfigError(
            f"--name {name!r}; expected at most 64 letters, digits, and . _ - behind the first one,"
            " and no STAGE-ADDRESS; choose such a name"
        )


def check_note(note: str) -> None:
    """Raise ConfigError for a note that is too long to be one."""
    if len(note) > LONGEST_NOTE:
        raise ConfigError(
            f"--note of {len(note)} characters; expected {LONGEST_NOTE} or fewer; shorten it, and"
            " keep the rest in a file"
        )


def runs_by_name(root: Path) -> dict[str, list[Path]]:
    """The run directories below a root by name; a directory without a readable label is left out.

    A name that came twice, as when folders are merged, has several.
    """
    by_name: dict[str, list[Path]] = {}
    if not root.is_dir():
        return by_name
    for run in store.find_runs(root):
        try:
            label = label_of(run.path)
        except StoreError:
            continue
        if label.name:
            by_name.setdefault(label.name, []).append(run.path)
    return by_name


def check_free(root: Path, name: str, run: Path | None = None) -> None:
    """Raise ConfigError where another run than `run` has a name already."""
    check_name(name)
    for other in runs_by_name(root).get(name, []):
        if run is None or other.resolve() != run.resolve():
            raise ConfigError(
                f"--name {name} is the name of {other}; expected one that no other run below {root}"
                f" has; choose another, or free it with: traitscope show {other} --name NEW"
            )


def set_label(root: Path, run: Path, name: str | None = None, note: str | None = None) -> Label:
    """Give a run a name, a note or both, and return its label; None leaves one as it is.

    An empty text removes it. Raises ConfigError for a name that cannot be, or that another run has.
    Also for a run outside the root, where its name would not be looked for. Raises StoreError where
    nothing can be written.
    """
    if root.resolve() not in run.resolve().parents:
        raise ConfigError(
            f"{run} does not lie below {root}; names are looked for below the root; name its folder"
            " with --root"
        )
    if name:
        check_name(name)
    if note:
        check_note(note)
    with locked(root / "names"):
        if name:
            check_free(root, name, run)
        before = label_of(run)
        label = Label(
            before.name if name is None else name,
            before.note if note is None else note,
        )
        if label == Label():
            with atomic_files.writing(run / LABEL):
                (run / LABEL).unlink(missing_ok=True)
        elif label != before:
            atomic_files.write_json(run / LABEL, asdict(label))
    return label
