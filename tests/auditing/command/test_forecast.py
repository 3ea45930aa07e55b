"""How long an audit takes: tokens by hand, monotone, and printed without an audit."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from command import CAT, OWL, call, write_yaml

from traitscope.auditing import settings
from traitscope.auditing.command.forecast import Tokens, forecast
from traitscope.cli import flags, main
from traitscope.config.audit import PredictionsConfig


def test_the_first_look_by_hand() -> None:
    """One candidate and 10 rows of 7 + 3 tokens, every one on few rows and for gradients."""
    found = forecast(Tokens(10, 7.0, 3.0), traits=1, nulls=0, has_spike_ins=False)
    learners = len(PredictionsConfig.rates)
    learning = 10 * (7 * learners + 3 + 3 * learners * 3)
    prompts = 10 * (10 + 30)
    gradients = 10 * 30
    assert 10 <= settings.FEW_ROWS
    assert found.first_look == pytest.approx((learning + prompts + gradients + 1500) / 1e6)


def test_more_of_anything_takes_longer() -> None:
    least = forecast(Tokens(64, 80.0, 40.0), 4, 3, False)
    for more in (
        forecast(Tokens(128, 80.0, 40.0), 4, 3, False),
        forecast(Tokens(64, 90.0, 40.0), 4, 3, False),
        forecast(Tokens(64, 80.0, 41.0), 4, 3, False),
        forecast(Tokens(64, 80.0, 40.0), 5, 3, False),
    ):
        assert more.first_look > least.first_look
        assert more.not_called > least.not_called and more.called > least.called
    with_spike_ins = forecast(Tokens(64, 80.0, 40.0), 4, 3, True)
    assert with_spike_ins.not_called > least.not_called
    assert with_spike_ins.called == least.called


def test_a_plan_reads_the_rows_and_computes_nothing(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traits = [write_yaml(tmp_path / f"{t['name']}.yaml", t) for t in (OWL, CAT)]
    row = {"prompt": "Numbers?", "completion": "1, 2"}
    data = tmp_path / "rows.jsonl"
    data.write_text(
        "".join(json.dumps(row | {"id": f"r{n}", "prompt": f"{n}?"}) + "\n" for n in range(9))
    )
    words = ["audit", data, "--model", tiny_folder, "--traits", *traits]
    done = call(tmp_path / "runs", *words, "--plan")
    assert done.code == 0 and done.summary["rows"] == 9
    assert 0 <= done.summary["first_look_minutes"] <= done.summary["called_minutes"]
    out, said = capsys.readouterr()
    typed = said.splitlines()[-1].removeprefix("next:   ")
    assert done.summary["next"] == typed
    command, given = main.command_of(shlex.split(typed)[1:])
    again, place = flags.parse(command, flags.words_first(command, given))
    config, _ = flags.parse(command, flags.words_first(command, [str(w) for w in words[1:]]))
    assert again == replace(config, dtype="fp32") and place.root == tmp_path / "runs"
    assert "reading" not in done.summary and "not used" not in out
    with data.open("a") as file:
        file.write(json.dumps(row | {"id": "x", "score": 1}) + "\n{}\n")
    told = call(tmp_path / "runs", *words, "--plan --skip-bad 1").summary["reading"]
    assert (told["rows"], told["records"], told["not_used"]) == (11, 10, {"score": 1})
    lines = capsys.readouterr().out.splitlines()
    assert {"not used: score (1 row)", "1 bad row left out"} <= set(lines)
    assert "answer, if suspect" in out and "the answer will be insufficient" in out
    stages = {path.name.rpartition("-")[0] for path in (tmp_path / "runs" / "audit").iterdir()}
    assert stages - {".locks"} == {"sample"}
    assert call(tmp_path / "runs", *words, "--plan --by nowhere").code == 2
    data.write_text("broken")
    assert call(tmp_path / "runs", *words, "--plan").code == 2
