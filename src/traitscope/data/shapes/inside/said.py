"""What the terminal says of rows that were read."""

from collections.abc import Iterable
from typing import Any

from traitscope.data.shapes.intake import LEFT_OUT, MOST_BAD_ROWS, NOTES, Intake
from traitscope.plurals import counted

NAMELESS = "(no name)"
"what the terminal calls a key without characters, as tables with row numbers have"
NO_KEYS = "none"
"what the terminal says of the keys of an empty object"
MOST_SHOWN = 5
"bad rows that a message shows, and key sets that the terminal shows"


def lines_of(about: dict[str, Any]) -> list[str]:
    """What the terminal says of rows that were read, from `Intake.as_dict`."""
    shapes = ", ".join(f"{name} {count}" for name, count in about["shapes"].items())
    rows = counted(about["rows"], "row")
    lines = [f"read {rows} ({about['container']}: {shapes}), {about['records']} used"]
    key_sets = about["key_sets"]
    for key_set in key_sets[:MOST_SHOWN]:
        keys = _joined(key_set["keys"]) or NO_KEYS
        lines.append(f"keys of {counted(key_set['rows'], 'row')}: {keys}")
    if len(key_sets) > MOST_SHOWN:
        others = counted(len(key_sets) - MOST_SHOWN, "other set", "other sets")
        lines.append(f"and {others} of keys: reading.json")
    return [*lines, *notes_of(about)]


def _joined(keys: Iterable[str]) -> str:
    return ", ".join(key or NAMELESS for key in keys)


def notes_of(about: dict[str, Any], file: str = "reading.json") -> list[str]:
    """What was not used, not trained on or left out of rows, from `Intake.as_dict`.

    file: Name of the file that holds more bad rows than are shown; empty where there is none, and
    all that are known are shown.
    """
    lines = []
    if about["not_used"]:
        unused = ", ".join(
            f"{key or NAMELESS} ({counted(count, 'row')})"
            for key, count in about["not_used"].items()
        )
        lines.append(f"not used: {unused}")
    for name, count in about["counts"].items():
        example = f", such as {about['control_token']}" if name.startswith("control") else ""
        lines.append(f"{counted(count, *NOTES[name])}{example}")
    if about["bad"]:
        lines.append(f"{counted(about['bad'], 'bad row')} left out")
    shown = about["bad_rows"][: MOST_SHOWN if file else None]
    for bad_row in shown:
        lines.append(f"{bad_row['place']}: {bad_row['reason']}")
    if more := about["bad"] - len(shown):
        lines.append(f"and {counted(more, 'more bad row')}: {_where(about, file)}")
    return lines


def _where(about: dict[str, Any], file: str) -> str:
    """Where bad rows stand that are not shown."""
    if about["bad"] == len(about["bad_rows"]):
        return file
    first = f"the first {MOST_BAD_ROWS} are"
    return f"{first} in {file}" if file else f"{first} shown; repair these first"


def left_out_of(intake: Intake) -> list[str]:
    """Why rows were left out, each reason with its number of rows, in words."""
    reasons = [counted(intake.bad, "bad row")] if intake.bad else []
    for name in LEFT_OUT:
        if intake.notes[name]:
            reasons.append(counted(intake.notes[name], *NOTES[name]))
    return reasons
