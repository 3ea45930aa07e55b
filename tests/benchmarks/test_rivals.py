"""Contenders of a benchmark: one of others that cannot run is left out, and named."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FINE = "import sys\nprint('loading')\nfor _ in sys.stdin: print('{\"seconds\": 1.0}', flush=True)"
"a contender that writes a line of its own, too"


def test_one_that_cannot_run_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    others = {
        "broken": [sys.executable, "-c", "raise SystemExit(1)"],
        "fine": [sys.executable, "-c", FINE],
    }
    found = common.rivals("", [], [], 2, others)
    assert found == {"fine": [{"seconds": 1.0}] * 3}
    assert "broken is left out" in capsys.readouterr().err
