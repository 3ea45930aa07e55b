"""The audit of training data: rows in, an answer with its evidence out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitscope.config.audit import DEFAULT_TRAITS, AuditConfig
from traitscope.config.common import Output
from traitscope.config.fields import names_of
from traitscope.config.rows.reading import USUAL, Reading
from traitscope.errors import DataError

if TYPE_CHECKING:
    from traitscope.auditing.command.sources import AuditBySource
    from traitscope.auditing.result import AuditResult
    from traitscope.config.common import ControlTokens, Device, Dtype, Position
    from traitscope.data.records import Record
    from traitscope.runs.given_teacher import Teacher


def audit(
    data: str | Path | Sequence[Record | Mapping[str, Any]],
    root: str | Path = "runs",
    *,
    model: str | Path = "smollm2-135m",
    traits: Sequence[str] = DEFAULT_TRAITS,
    teacher: Teacher | None = None,
    reference: str | Path | None = None,
    alpha: float = 0.01,
    power: float = 0.8,
    dose: float = 0.1,
    spike_ins: bool = True,
    rows: int = 256,
    context: str | None = None,
    strength: float = 0.6,
    position: Position = "all",
    canary: bool = False,
    peer: bool = False,
    workers: int = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    template: Sequence[str] = (),
    control_tokens: ControlTokens = "text",
    same_as: str | None = None,
    seed: int = 0,
    reading: Reading = USUAL,
) -> AuditResult:
    """Whether a model may be trained on rows.

    data: A file or a run, or rows in memory: records, or dictionaries as in a file.
    root: Folder of all runs. teacher: A teacher that may have written rows; see `screen`.

    The other settings are flags of `traitscope audit`, `reading` those on how rows are read. No
    answer is an error: see AuditResult.raise_if. Raises the command's errors.
    """
    from traitscope.auditing import run

    folder = Path(root) / "audit"
    config = AuditConfig(
        data=_rows_file(data, folder),
        traits=names_of(traits),
        teacher=_teacher_text(teacher, folder),
        reference=None if reference is None else Path(reference),
        alpha=alpha,
        power=power,
        dose=dose,
        spike_ins=spike_ins,
        rows=rows,
        context=context,
        strength=strength,
        position=position,
        canary=canary,
        peer=peer,
        workers=workers,
        **_on_model(model, device, dtype, template, control_tokens, same_as),
        seed=seed,
        reading=reading,
    )
    return run.result_of(run.answered(config, Output(root=Path(root))))


def _on_model(
    model: str | Path,
    device: Device,
    dtype: Dtype,
    template: Sequence[str],
    control_tokens: ControlTokens,
    same_as: str | None,
) -> dict[str, Any]:
    """The settings of the model, as those of `audit` name them."""
    return {
        "model": str(model),
        "device": device,
        "dtype": dtype,
        "template": tuple(template),
        "control_tokens": control_tokens,
        "same_as": same_as,
    }


def _teacher_text(teacher: Teacher | None, folder: Path) -> str | None:
    """The teacher as settings name it."""
    from traitscope.runs import given_teacher

    return None if teacher is None else given_teacher.text_of(teacher, folder)


def audit_by_source(
    data: str | Path | Sequence[Record | Mapping[str, Any]],
    by: str,
    root: str | Path = "runs",
    *,
    model: str | Path = "smollm2-135m",
    traits: Sequence[str] = DEFAULT_TRAITS,
    alpha: float = 0.01,
    power: float = 0.8,
    dose: float = 0.1,
    spike_ins: bool = True,
    rows: int = 256,
    context: str | None = None,
    workers: int = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    template: Sequence[str] = (),
    control_tokens: ControlTokens = "text",
    same_as: str | None = None,
    seed: int = 0,
    reading: Reading = USUAL,
) -> AuditBySource:
    """Whether a model may be trained on a mixed file, and which of its sources are suspect.

    The whole file and each source are audited, and share alpha.

    data: A file or a run, or rows in memory, as in `audit`.
    by: Field of the rows that names their source, beside prompt and answer or in `meta`.
    rows: Rows to draw at random from the file, and from each source.

    Raises what `audit` raises, and DataError where the field names no sources.
    """
    from traitscope.auditing.command import source_page, sources

    root = Path(root)
    config = AuditConfig(
        data=_rows_file(data, root / "audit"),
        by=by,
        traits=names_of(traits),
        alpha=alpha,
        power=power,
        dose=dose,
        spike_ins=spike_ins,
        rows=rows,
        context=context,
        workers=workers,
        **_on_model(model, device, dtype, template, control_tokens, same_as),
        seed=seed,
        reading=reading,
    )
    audited = sources.answered_by_source(config, Output(root=root))
    return replace(audited, page=source_page.page(audited))


def _rows_file(data: str | Path | Sequence[Record | Mapping[str, Any]], folder: Path) -> Path:
    """The file with the rows; of rows in memory, one that is named by their content."""
    from traitscope import atomic_files

    if isinstance(data, str | Path):
        return Path(data)
    lines = []
    for number, row in enumerate(data, 1):
        lines.append(_line_of(row, number))
    text = "".join(lines)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f"rows-{digest}.jsonl"
    atomic_files.write_text(path, text)
    return path


def _line_of(row: Record | Mapping[str, Any], number: int) -> str:
    """A row in memory as a line of JSON.  Raises DataError for values that JSON does not have."""
    from traitscope.plain_values import shown

    if not (isinstance(row, Mapping) or is_dataclass(row)):
        raise DataError(
            f"row {number} is {shown(row)}; expected a dictionary as in a file, or a Record;"
            " correct the row"
        )
    values = dict(row) if isinstance(row, Mapping) else asdict(row)
    try:
        line = json.dumps(values, ensure_ascii=False, allow_nan=False)
        line.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"row {number} cannot be written as JSON ({error}); expected texts, finite numbers,"
            " lists and dictionaries; correct the row"
        ) from None
    return line + "\n"
