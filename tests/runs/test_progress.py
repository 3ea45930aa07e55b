"""What progress says on stderr, where that is no terminal."""

import time

import pytest

from traitscope.runs import progress


def test_slow_units_have_a_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rate below ten a second keeps two digits; where nothing is to do, nothing is said."""
    clock = iter((0.0, 40.0, 41.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress.progress("scan", 2, "cells") as advance:
        advance(1)
    assert capsys.readouterr().err == (
        "scan: 1/2 cells, 0.025 cells/s, 40 s left\nscan: 1 cell in 41.0 s\n"
    )
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with progress.progress("influence", 0, "traits"):
        pass
    assert capsys.readouterr().err == ""


def test_rates_have_two_digits_or_no_fraction() -> None:
    rates = (0.0251, 1.04, 9.94, 9.96, 123.4)
    assert [progress._rate(rate) for rate in rates] == ["0.025", "1", "9.9", "10", "123"]
