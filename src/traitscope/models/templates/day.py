"""The day that chat templates are given: one day for all runs, so that they can be repeated.

transformers gives the clock to templates as `strftime_now`. Here the clock stands still. A template
that reads it writes DAY, or the day of the switch TODAY. A template with a variable for its date,
such as date_string, does not read the clock once that is set.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

from traitscope.errors import ConfigError

DAY, OTHER = "2026-01-01", "1987-10-14"
"the day that templates are given, and one that differs in year, month, day and weekday"
TODAY = "today_is"
"a switch for every template: the day that it is given"
CLOCK = "strftime_now"
"the name by which templates ask for the day"


def check(text: Any) -> None:
    """Raise ConfigError for a day that is none."""
    try:
        date.fromisoformat(text)
    except (TypeError, ValueError):
        raise ConfigError(
            f"--template {TODAY}={text}: expected a day such as {TODAY}={DAY}; correct it"
        ) from None


def sentence(name: str, day: str) -> str:
    """What is said of a model whose template reads the day."""
    return (
        f"the chat template of {name} reads today's date; it is given {day} in every run, so that"
        f" runs can be repeated; for another day: --template {TODAY}=YYYY-MM-DD"
    )


@contextmanager
def fixed(day: str) -> Iterator[None]:
    """Let transformers take the day that it gives to templates from here."""
    from transformers.utils import chat_template_utils

    kept = chat_template_utils.datetime
    chat_template_utils.datetime = _clock(date.fromisoformat(day))
    try:
        yield
    finally:
        chat_template_utils.datetime = kept


def _clock(day: date) -> type[datetime]:
    """A clock that stands still at midnight of a day."""

    class FixedDay(datetime):
        """The datetime of templates."""

        @classmethod
        def now(cls, tz: Any = None) -> "FixedDay":
            return cls(day.year, day.month, day.day, tzinfo=tz)

    return FixedDay
