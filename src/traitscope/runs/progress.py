"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere.

The bar shows the rate and the time left. In a worker process the lines go to SINK, and the parent
prints them beside its own bar. A tracker, if there is one, gets the fraction done.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from traitscope import distributed

PLAIN_SECONDS = 10
KNOWN = 0.1
"fraction that must be done before the time left is said; what loads a model comes before it"
SINK: Callable[[tuple[float, str]], None] | None = None
"In a worker: takes (fraction done, line)."

TRACK: Callable[[Mapping[str, Any]], None] | None = None
"Takes named numbers of what is running; None where nobody tracks them."


def track(values: Mapping[str, Any]) -> None:
    """Hand numbers to a tracker, where there is one."""
    if TRACK is not None:
        TRACK(values)


@contextmanager
def progress(label: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
    """Yield a function that takes the number of units done since its last call."""
    show = _bar if SINK is None and sys.stderr.isatty() and distributed.first() else _lines
    with show(label, total, unit) as advance:
        yield advance if TRACK is None else _tracked(label, total, advance)


def _tracked(label: str, total: float, advance: Callable[[float], None]) -> Callable[[float], None]:
    """The function, which also hands the fraction done to the tracker, at most once a second."""
    done = shown = 0.0

    def advance_and_track(n: float) -> None:
        nonlocal done, shown
        advance(n)
        done += n
        if time.monotonic() - shown >= 1 or done >= total:
            shown = time.monotonic()
            track({f"progress/{label}": done / max(total, 1e-9)})

    return advance_and_track


@contextmanager
def _bar(label: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label, total=total, rate="")

        def advance(n: float) -> None:
            done = bars.tasks[0].completed + n
            rate = done / max(1e-9, time.monotonic() - start)
            bars.update(task, advance=n, rate=f"{_rate(rate)} {unit}/s")

        yield advance


@contextmanager
def _lines(label: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
    start = shown = time.monotonic()
    done = 0.0

    def advance(n: float) -> None:
        nonlocal done, shown
        done += n
        now = time.monotonic()
        if now - shown >= PLAIN_SECONDS:
            shown, rate = now, done / (now - start)
            line = f"{label}: {done:.0f}/{total:.0f} {unit}, {_rate(rate)} {unit}/s"
            if done >= KNOWN * total:
                line += f", {max(0, total - done) / max(rate, 1e-9):.0f} s left"
            _say(done / max(total, 1), line)

    yield advance
    if not total:
        return
    units = _singular(unit) if f"{done:.0f}" == "1" else unit
    _say(1.0, f"{label}: {done:.0f} {units} in {time.monotonic() - start:.1f} s")


def _rate(rate: float) -> str:
    """Units a second, with two digits of a small number."""
    return f"{rate:.0f}" if rate >= 9.95 else f"{rate:.2g}"


def _singular(unit: str) -> str:
    """The name of one of some units: row of rows, pass of passes."""
    return unit.removesuffix("es") if unit.endswith("sses") else unit.removesuffix("s")


def _say(fraction: float, line: str) -> None:
    if SINK is None and distributed.first():
        print(line, file=sys.stderr, flush=True)
    elif SINK is not None:
        SINK((fraction, line))
