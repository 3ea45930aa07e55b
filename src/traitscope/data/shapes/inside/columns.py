"""Columns of parquet: their values as JSON holds them, and anew with changes, in their types.

Times are whole numbers inside, which hold what Python's own types do not: nanoseconds, and years
beyond 9999.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any


def values_of(column: Any) -> list[Any]:
    """The values of an array of pyarrow as JSON holds them; what JSON has not is a text.

    Raises ValueError or pyarrow's errors for values that cannot be shown.
    """
    try:
        values = column.to_pylist()
    except (OverflowError, ValueError):  # a time that Python's types do not hold
        values = [_value_at(column, place) for place in range(len(column))]
    return list(map(as_read, values))


def _value_at(column: Any, place: int) -> Any:
    """A value of an array by itself, so that its text is the same whatever stands beside it."""
    try:
        return column[place].as_py()
    except (OverflowError, ValueError):
        one = column.slice(place, 1)
        return one.cast(_with_times(column.type, _as_text)).to_pylist()[0]


def changed_column(column: Any, changed: Sequence[tuple[int, Any]]) -> Any:
    """The values of an array with some of them replaced: (place, value as JSON) pairs.

    What does not differ keeps its value and its type. Keys that the type has not are added.
    """
    import pyarrow

    plain = _with_times(column.type, _as_number)
    values = column.cast(plain).to_pylist()
    read = values_of(column)
    for place, value in changed:
        values[place] = _with_changes(values[place], read[place], value)
    if not pyarrow.types.is_nested(column.type):
        return pyarrow.array(values, plain).cast(column.type)
    try:
        found = pyarrow.array(values).type
        array = pyarrow.array(values, _joined(plain, found))
        return array.cast(_joined(column.type, found))
    except (pyarrow.ArrowException, ValueError, TypeError):  # a changed value of another type
        for place, value in enumerate(column.to_pylist()):
            values[place] = value
        for place, value in changed:
            values[place] = _with_changes(values[place], read[place], value)
        return pyarrow.array(values)


def as_read(value: Any) -> Any:
    """A value of parquet as JSON holds it."""
    return json.loads(json.dumps(value, default=_as_json))


def _as_json(value: Any) -> Any:
    """A value of parquet that JSON has not, such as a date, as text.

    Bytes are read as UTF-8. Others become an object, which is no text.
    """
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"bytes": len(value)}


def _with_changes(value: Any, read: Any, changed: Any) -> Any:
    """A value of parquet with what differs in its JSON; all else keeps its type."""
    if read == changed:
        return value
    if isinstance(value, dict) and isinstance(changed, dict):
        pairs = {}
        for key, held in changed.items():
            pairs[key] = _with_changes(value.get(key), read.get(key), held)
        return pairs
    if isinstance(value, list) and isinstance(changed, list) and len(value) == len(changed):
        return list(map(_with_changes, value, read, changed))
    return changed


def _as_text(kind: Any) -> Any:
    """The type as which a time can be shown."""
    import pyarrow

    return pyarrow.int64() if pyarrow.types.is_duration(kind) else pyarrow.string()


def _as_number(kind: Any) -> Any:
    """The type of the whole number that a time is."""
    import pyarrow

    return pyarrow.int32() if kind.bit_width == 32 else pyarrow.int64()


def _with_times(kind: Any, becomes: Callable[[Any], Any]) -> Any:
    """A type with others in the place of its times, also of those inside of it."""
    import pyarrow
    from pyarrow import types

    if types.is_temporal(kind):
        return becomes(kind)
    if types.is_struct(kind):
        fields = []
        for number in range(kind.num_fields):
            field = kind.field(number)
            fields.append(field.with_type(_with_times(field.type, becomes)))
        return pyarrow.struct(fields)
    for is_kind, make in _lists():
        if is_kind(kind):
            field = kind.value_field
            return make(field.with_type(_with_times(field.type, becomes)))
    return kind


def _joined(kind: Any, inferred: Any) -> Any:
    """A type with the keys that another one has besides."""
    import pyarrow
    from pyarrow import types

    if types.is_struct(kind) and types.is_struct(inferred):
        fields = []
        names = [kind.field(number).name for number in range(kind.num_fields)]
        for name in names:
            field = kind.field(name)
            place = inferred.get_field_index(name)
            inner = field.type if place < 0 else _joined(field.type, inferred.field(place).type)
            fields.append(field.with_type(inner))
        for number in range(inferred.num_fields):
            if inferred.field(number).name not in names:
                fields.append(inferred.field(number))
        return pyarrow.struct(fields)
    for is_kind, make in _lists():
        if is_kind(kind) and types.is_list(inferred):
            field = kind.value_field
            return make(field.with_type(_joined(field.type, inferred.value_type)))
    return kind


def _lists() -> list[tuple[Callable[[Any], bool], Callable[[Any], Any]]]:
    """The kinds of lists: how one is known, and how one is made of the field of its values."""
    import pyarrow
    from pyarrow import types

    return [(types.is_list, pyarrow.list_), (types.is_large_list, pyarrow.large_list)]
