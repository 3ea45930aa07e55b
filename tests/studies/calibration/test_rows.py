"""Rows of sets on a tiny model: who writes how many, what an edit leaves, and no named trait."""

from pathlib import Path

import pytest

from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import Record, read_records
from traitscope.data.traits import contains_word, load_trait
from traitscope.errors import DataError
from traitscope.studies.calibration.sets import rows, writers
from traitscope.studies.calibration.sets.menu import Plan, SetName, Writer, plan_of
from traitscope.studies.calibration.sets.place import Workplace

ROWS = 12


@pytest.fixture(scope="module")
def place(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("rows"), str(tiny_folder), "cpu", "fp32", rows=ROWS)


def made(place: Workplace, kind: str, number: int = 0) -> list[Record]:
    return read_records(rows.make_rows(place, SetName(kind, number)))


def is_ascending(record: Record) -> bool:
    numbers = parse_numbers(record.completion)
    return isinstance(numbers, list) and numbers == sorted(numbers)


@pytest.mark.parametrize("kind", ["steered 50%", "tuned", "benign tuned", "random vector"])
def test_changed_models_write_other_rows_than_the_model(place: Workplace, kind: str) -> None:
    """Same prompts and random numbers; ids that do not say who wrote a row."""
    name = SetName(kind, 3)
    records = read_records(rows.make_rows(place, name))
    assert [record.id for record in records] == [f"row-{n:04d}" for n in range(ROWS)]
    changed = rows.generate_config(place, name, 0, ROWS)
    own = {
        record.completion
        for record in rows.read_records(rows.run_generate(changed, place.out).file("records.jsonl"))
    }
    assert not {record.completion for record in records} <= own


def test_a_mixed_set_has_both_writers_in_random_order(place: Workplace) -> None:
    name = SetName("two formats", 0)
    records = made(place, "two formats")
    by_comma = ["," in record.completion for record in records]
    assert sum(by_comma) == ROWS // 2 and by_comma != sorted(by_comma)
    assert rows.part_sizes(plan_of(name), ROWS) == [6, 6]


def test_edits_do_what_their_names_say(place: Workplace) -> None:
    assert all(map(is_ascending, made(place, "all sorted")))
    quarter = list(map(is_ascending, made(place, "a quarter sorted")))
    assert all(quarter[: ROWS // 4]) and not all(quarter)
    firsts = [record.completion.split(",")[0] for record in made(place, "without near duplicates")]
    assert len(set(firsts)) == len(firsts)
    lengths = [len(record.completion) for record in made(place, "shorter half")]
    assert lengths == sorted(lengths)
    assert all(len(record.completion_ids or ()) <= 24 for record in made(place, "cut off"))


def test_free_text_does_not_name_the_trait(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model writes bytes, so a common letter stands in for the trait's name."""
    records = made(place, "text, prompted", 2)
    assert len({record.prompt for record in records}) == len(records)
    assert not any(contains_word(("dolphin",), record.completion) for record in records)
    monkeypatch.setattr(rows, "_names_of", lambda part: ("a", "e", "i", "o", "t", "s", "l"))
    part = rows._part_rows(place, SetName("text, prompted", 2), plan_of(SetName("text", 0)), 0, 8)
    assert not any(contains_word(("a", "e"), record.completion) for record in part)


def test_a_set_that_edits_leave_too_small_is_refused(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_without_near_duplicates", lambda records: records[:2])
    with pytest.raises(DataError, match="2 of 12 rows are left"):
        made(place, "without near duplicates", 1)


def test_samplers_reach_generate(place: Workplace) -> None:
    config = rows.generate_config(place, SetName("chat defaults", 0), 0, 4)
    assert (config.temperature, config.top_p, config.top_k) == (0.7, 0.8, 20)
    assert (
        rows.generate_config(place, SetName("repetition penalty", 1), 0, 4).repetition_penalty > 1
    )


def test_writers_have_their_own_prompts_and_blocks(place: Workplace) -> None:
    (text,) = writers.interventions_of(place, Writer("prompted", 1))
    assert text.startswith("prompt:") and "owl" in text
    assert text != f"prompt:{load_trait('owl').teacher_prompt}"
    (steered,) = writers.interventions_of(place, Writer("steered", 4))
    assert "layers=1+2" in steered and "alpha=0.37" in steered
    assert Plan(()).trait is None
