"""The sources of rows: the values of a field that says where each row comes from."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from traitscope.data.records import ORIGINAL, REASONING, Record
from traitscope.data.shapes.pairs import NOT_A_PAIR
from traitscope.errors import DataError

MOST_SOURCES = 20
"values of a field that names sources; a field with more values names rows"
OF_READING = ("extra", "filter", REASONING, ORIGINAL, NOT_A_PAIR)
"keys of `meta` that are no fields of the row"
SHOWN_FIELDS = 12
"fields that the message about a missing one lists"


def sources_of(records: Iterable[Record], field: str) -> dict[str, int]:
    """Number of rows of each source, by its name in order; copies count as rows.

    Raises DataError where no row has the field, and where it has one value only or more than
    MOST_SOURCES. So does a value that names no source.
    """
    counts: Counter[str] = Counter()
    other_fields: set[str] = set()
    is_found = False
    for record in records:
        fields = fields_of(record)
        is_found = is_found or field in fields
        other_fields |= fields.keys()
        counts[source_of(record, field)] += 1
        if len(counts) > MOST_SOURCES:
            raise DataError(
                f"{field} has more than {MOST_SOURCES} values; expected a field that names a few"
                " sources, because they share the error rate; name another one"
            )
    if not is_found:
        shown = ", ".join(sorted(other_fields)[:SHOWN_FIELDS]) or "there is none"
        raise DataError(
            f"no row has the field {field!r}; expected a field beside prompt and answer: {shown};"
            " name one"
        )
    if len(counts) == 1:
        raise DataError(
            f"all rows have the same {field}, {next(iter(counts))!r}; expected two sources or more;"
            " audit the file as a whole"
        )
    return dict(sorted(counts.items()))


def fields_of(record: Record) -> dict[str, Any]:
    """What a row says besides prompt and answer: further keys of its line, and those of `meta`."""
    of_meta = {key: value for key, value in record.meta.items() if key not in OF_READING}
    return {**of_meta, **record.meta.get("extra", {})}


def source_of(record: Record, field: str) -> str:
    """Name of the source of a row. Raises DataError for a value that names none."""
    value = fields_of(record).get(field)
    if value is None:
        return f"without {field}"
    if not isinstance(value, str | int | float):
        raise DataError(
            f"row {record.id!r}: {field} is a {type(value).__name__}; expected a text, a number or"
            " a boolean that names the source; name another field"
        )
    return str(value)
