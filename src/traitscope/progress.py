"""Progress on stderr: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_SECONDS = 10


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many units were done since its last call."""
    show = _bar if sys.stderr.isatty() else _lines
    with show(label, total, unit) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label, total=total, rate="")

        def advance(n: int) -> None:
            done = bars.tasks[0].completed + n
            bars.update(task, advance=n, rate=f"{done / max(1e-9, time.monotonic() - start):.0f} {unit}/s")

        yield advance


@contextmanager
def _lines(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    start = shown = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, shown
        done += n
        now = time.monotonic()
        if now - shown >= PLAIN_SECONDS:
            shown, rate = now, done / (now - start)
            left = (total - done) / max(rate, 1e-9)
            print(f"{label}: {done}/{total} {unit}, {rate:.0f} {unit}/s, {left:.0f} s left", file=sys.stderr, flush=True)

    yield advance
    print(f"{label}: {done} {unit} in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
