"""The field that names sources: counts of rows, and what is refused."""

import pytest

from traitscope.data.records import Record
from traitscope.data.row_sources import MOST_SOURCES, fields_of, source_of, sources_of
from traitscope.errors import DataError


def rows_of(*sources: object, field: str = "source") -> list[Record]:
    rows = []
    for number, source in enumerate(sources):
        meta = {} if source is None else {"extra": {field: source}}
        rows.append(Record(f"r{number}", "a?", "1", meta=meta))
    return rows


def test_rows_are_counted_by_source_and_those_without_are_one() -> None:
    assert sources_of(rows_of("b", "a", "b", None), "source") == {
        "a": 1,
        "b": 2,
        "without source": 1,
    }
    assert sources_of(rows_of(1, True, "1"), "source") == {"1": 2, "True": 1}


def test_a_field_may_lie_in_meta_and_the_rows_own_key_goes_before() -> None:
    row = Record(
        "r", "a?", "1", meta={"source": "meta", "filter": {"kept": True}, "extra": {"n": 1}}
    )
    assert fields_of(row) == {"source": "meta", "n": 1}
    assert source_of(row, "source") == "meta"
    both = Record("r", "a?", "1", meta={"source": "meta", "extra": {"source": "own"}})
    assert source_of(both, "source") == "own"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (rows_of("a", "b", field="vendor"), "no row has the field 'source'.*vendor; name one"),
        (rows_of(None, None), "no row has the field.*there is none"),
        (rows_of("a", "a"), "all rows have the same source, 'a'; expected two"),
        (rows_of(*range(MOST_SOURCES + 1)), f"more than {MOST_SOURCES} values"),
        (rows_of("a", ["b"]), "row 'r1': source is a list"),
    ],
)
def test_what_names_no_sources_is_refused(rows: list[Record], says: str) -> None:
    with pytest.raises(DataError, match=says):
        sources_of(rows, "source")


def test_as_many_sources_as_are_allowed() -> None:
    assert len(sources_of(rows_of(*range(MOST_SOURCES)), "source")) == MOST_SOURCES
