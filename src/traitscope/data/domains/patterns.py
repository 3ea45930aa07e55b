"""Regular expressions of users, some of which take longer on a text than anybody waits."""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from traitscope.errors import DataError

SECONDS = 5.0
"time of the processor that a pattern may take on one text"
MOST_SHOWN = 80
"characters of a pattern that a message shows"


class _TooLongError(Exception):
    """A pattern has had its time."""


def why_no_pattern(pattern: str) -> str:
    """Why a text is no regular expression, in Python's words; empty where it is one."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, ValueError, RecursionError) as error:
        return str(error)
    return ""


def matches_whole(pattern: str, text: str) -> bool:
    """Whether a whole text matches a pattern; a dot stands for line ends, too.

    Raises DataError where that takes more than SECONDS. Only the main thread is held to them.
    """
    try:
        with _limited(SECONDS):
            return re.fullmatch(pattern, text, re.DOTALL) is not None
    except _TooLongError:
        raise DataError(
            f"the pattern {pattern[:MOST_SHOWN]!r} takes more than {SECONDS:g} seconds on an answer"
            f" of {len(text)} characters; expected one without repeats inside repeats, such as a+"
            " in the place of (a+)+; simplify it"
        ) from None


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise _TooLongError in a block that takes longer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _ring(*_: object) -> None:
    raise _TooLongError
