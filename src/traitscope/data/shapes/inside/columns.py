"""Columns of parquet: their values as JSON holds them, and anew with changes, in their types.

Times are whole numbers inside, which hold what Python's own types do not: nanoseconds, and years
beyond 9999.
"""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import chain, repeat
from operator import methodcaller
from typing import Any

from traitscope.errors import DataError

VIEW = "list_view<"
"what the name of a type holds that is, or has inside, a view of lists"


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
        return _with_plain_times(column.slice(place, 1), _as_text)[0]


def changed_column(column: Any, changed: Sequence[tuple[int, Any]]) -> Any:
    """The values of an array with some of them replaced: (place, value as JSON) pairs.

    What does not differ keeps its value and its type. Keys that the type has not are added.

    Raises DataError for values that no column can hold together.
    """
    import pyarrow

    read = values_of(column)
    anew = []
    try:
        values = _with_plain_times(column, _as_number)
        for place, value in changed:
            values[place] = _with_changes(values[place], read[place], value)
            anew.append(values[place])
        kind = _with_keys(column.type, anew)
        for place, _ in changed:
            values[place] = _fitting(values[place], kind)
        return pyarrow.array(values, kind)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError, ArithmeticError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"a column of {column.type} cannot hold the changed values ({reason}); expected values"
            " of its type; save the rows as JSON lines"
        ) from None


def taken(column: Any, places: Sequence[int]) -> Any:
    """Some values of a chunked array of pyarrow, in the order of their places."""
    import pyarrow

    if len(places) == len(column) and list(places) == list(range(len(column))):
        return column
    try:
        return column.take(pyarrow.array(places, pyarrow.int64()))
    except pyarrow.ArrowNotImplementedError:  # types such as string_view have no such function
        chunks = []
        for begin, end in _runs(places):
            chunks += column.slice(begin, end - begin).chunks
        return pyarrow.chunked_array(chunks, column.type).combine_chunks()


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Begins and ends of the runs of places that follow each other."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs


def _with_plain_times(column: Any, becomes: Callable[[Any], Any]) -> list[Any]:
    """The values of an array as Python holds them, with other types in the place of its times.

    No cast leads to views of lists, and one from them to lists may lose values inside. So what
    holds views is taken apart.
    """
    from pyarrow import types

    kind = column.type
    plain = _with_times(kind, becomes)
    if plain == kind or VIEW not in str(kind):
        return list((column if plain == kind else column.cast(plain)).to_pylist())
    values: list[Any] = []
    if types.is_struct(kind):
        names = [kind.field(number).name for number in range(kind.num_fields)]
        inner = map(_with_plain_times, column.flatten(), repeat(becomes))
        for is_there, *cells in zip(column.is_valid().to_pylist(), *inner, strict=True):
            values.append(dict(zip(names, cells, strict=True)) if is_there else None)
        return values
    for one in column:
        values.append(_with_plain_times(one.values, becomes) if one.is_valid else None)
    return values


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
    if types.is_map(kind):
        key, item = kind.key_field, kind.item_field
        key = key.with_type(_with_times(key.type, becomes))
        return pyarrow.map_(key, item.with_type(_with_times(item.type, becomes)))
    for is_kind, make in _lists(kind):
        if is_kind(kind):
            field = kind.value_field
            return make(field.with_type(_with_times(field.type, becomes)))
    return kind


def _with_keys(kind: Any, values: Sequence[Any]) -> Any:
    """A type with the keys that some values have besides; a type of nulls becomes theirs.

    Raises pyarrow's errors for values of several types.
    """
    import pyarrow
    from pyarrow import types

    values = list(filter(_is_there, values))
    if types.is_null(kind):
        return pyarrow.array(values).type if values else kind
    if types.is_struct(kind):
        fields = {}
        for number in range(kind.num_fields):
            fields[kind.field(number).name] = kind.field(number)
        for name in chain.from_iterable(values):
            fields.setdefault(name, pyarrow.field(name, pyarrow.null()))
        for name, field in fields.items():
            inner = list(map(methodcaller("get", name), values))
            fields[name] = field.with_type(_with_keys(field.type, inner))
        return pyarrow.struct(fields.values())
    for is_kind, make in _lists(kind):
        if is_kind(kind):
            field = kind.value_field
            return make(field.with_type(_with_keys(field.type, list(chain.from_iterable(values)))))
    return kind


def _is_there(value: Any) -> bool:
    return value is not None


def _fitting(value: Any, kind: Any) -> Any:
    """A value whose numbers, such as weights, have the type of their place.

    That may be a truth, a text, or a decimal, which is read as a text.
    """
    from pyarrow import types

    if isinstance(value, dict) and types.is_struct(kind):
        pairs = {}
        for name, held in value.items():
            pairs[name] = _fitting(held, kind.field(name).type)
        return pairs
    if isinstance(value, list) and not types.is_map(kind) and hasattr(kind, "value_type"):
        return list(map(_fitting, value, repeat(kind.value_type)))
    if isinstance(value, str) and types.is_decimal(kind):
        return Decimal(value)
    if isinstance(value, int) and types.is_boolean(kind):
        return bool(value)
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return str(value) if isinstance(value, int) and is_text else value


def _lists(kind: Any) -> list[tuple[Callable[[Any], bool], Callable[[Any], Any]]]:
    """The kinds of lists: how one is known, and how one is made of the field of its values.

    kind: The type whose size a list of a fixed size has.
    """
    import pyarrow
    from pyarrow import types

    def of_size(field: Any) -> Any:
        return pyarrow.list_(field, kind.list_size)

    return [
        (types.is_list, pyarrow.list_),
        (types.is_large_list, pyarrow.large_list),
        (types.is_fixed_size_list, of_size),
        (types.is_list_view, pyarrow.list_view),
        (types.is_large_list_view, pyarrow.large_list_view),
    ]
