"""A candidate teacher's choices: the command against the function, and a prompt that stands before a row's own context."""

from pathlib import Path

import numpy as np
import pytest
from command import call, ok

from traitscope import odds, stage
from traitscope.intervention import SystemPrompt
from traitscope.model import Model
from traitscope.rows import rows_from


def test_command(tmp_path: Path, tiny: Model, tiny_folder: Path) -> None:
    root, on = tmp_path / "runs", ("--model", tiny_folder)
    data = ok(root, "generate", *on, "--n 9 --count 3 --vocabulary template --context Hello.").run
    told = ok(root, "odds", *on, "--data", data, "--numbers", "--interventions", "prompt:Owls, owls, owls!").run
    ids, found = odds.read_choices(told)
    records = stage.rows_of(data)
    assert ids == [record.id for record in records] and all(record.context == "Hello." for record in records)
    rows = rows_from(tiny, records, None, told=[SystemPrompt("Owls, owls, owls!")])
    expected = odds.judge_rows(tiny, [], rows, odds.classes_of(tiny, True))
    np.testing.assert_allclose(found.log_p_RT, expected.log_p_RT, atol=1e-4)
    np.testing.assert_allclose(found.covariance_TPKK, expected.covariance_TPKK, rtol=1e-4, atol=1e-4)
    assert found.surprise == pytest.approx(expected.surprise, abs=1e-3)
    some = odds.read_choices(ok(root, "odds", *on, "--data", data, "--numbers --rows 4", "--interventions", "prompt:Owls, owls, owls!").run)
    assert len(some[0]) == 4 and [key for key in ids if key in some[0]] == some[0]
    np.testing.assert_allclose(some[1].log_p_RT, found.log_p_RT[[ids.index(key) for key in some[0]]], atol=1e-4)
    plain = odds.read_choices(ok(root, "odds", *on, "--data", data, "--numbers").run)[1]
    assert abs(plain.log_p_RT - found.log_p_RT).max() > 0.01
    ok(root, "rerun", told)


def test_no_data(tmp_path: Path, tiny_folder: Path) -> None:
    assert "--data is missing" in call(tmp_path, "odds", "--model", tiny_folder).summary["message"]
