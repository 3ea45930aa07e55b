"""Rows and control rows on the same prompts, of which both are used or none."""

from collections.abc import Callable, Sequence

from traitscope.data.records import Record, kept_records
from traitscope.errors import DataError
from traitscope.runs import row_intake, store


def paired(data: Sequence[Record], control: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The kept records of both sides on the same prompts, matched by id.

    Raises DataError where none match.
    """
    control_by_id = {record.id: record for record in kept_records(control)}
    data_side, control_side = [], []
    for record in kept_records(data):
        other = control_by_id.get(record.id)
        if other is not None and other.prompt == record.prompt:
            data_side.append(record)
            control_side.append(other)
    if not data_side:
        raise DataError(
            "no kept row of --data has a row of --control with the same id and prompt; make both"
            " from one list"
        )
    return data_side, control_side


def readable_pairs(
    run: store.Run,
    config: row_intake.ReadsRows,
    check: Callable[[Record], None],
    data: Sequence[Record],
    control: Sequence[Record],
) -> tuple[list[Record], list[Record]]:
    """The rows with a control row on the same prompt that passes the check, and these rows."""

    def used(rows: Sequence[Record]) -> Sequence[Record]:
        return paired(data, rows)[1]

    return paired(data, row_intake.readable(run, config, control, check, used, "control"))
