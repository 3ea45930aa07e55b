"""Files of token scores: what is written is read, and what an earlier version wrote is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from scored_rows import scored, written

from traitscope.auditing import score_files
from traitscope.errors import DataError
from traitscope.inference.token_bins import BETAS, PLAIN, WAYS
from traitscope.models.model import Model


def test_what_is_written_is_read(tiny: Model, tmp_path: Path) -> None:
    """All rows, and some of them from the tokens that were kept; a second time without the disk."""
    rows = written(tiny, [], 9, seed=1)
    whole = scored(tiny, [], rows, True)
    score_files.write_token_scores(tmp_path, list("abcdefghi"), whole)
    ids, read = score_files.read_token_scores(tmp_path)
    assert ids == list("abcdefghi")
    np.testing.assert_allclose(read.log_p_RT, whole.log_p_RT, atol=1e-6)
    np.testing.assert_allclose(read.log_p_RS, whole.log_p_RS, atol=1e-6)
    for way in range(len(WAYS)):
        some, expected = (found.of_rows([1, 6]).bins(way, PLAIN) for found in (read, whole))
        for a, b in zip(some, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    _, again = score_files.read_token_scores(tmp_path)
    assert again is read
    with pytest.raises(ValueError, match="read-only"):
        read.log_p_RT[0] = 0.0


def test_scores_of_an_earlier_version_are_refused(tmp_path: Path, tiny: Model) -> None:
    score_files.write_token_scores(
        tmp_path, ["a"], scored(tiny, [], written(tiny, [], 1, seed=7, count=1), True)
    )
    assert score_files.read_token_scores(tmp_path)[0] == ["a"]
    sums = json.loads((tmp_path / "token_scores.json").read_text())
    for old in (
        {key: value for key, value in sums.items() if key != "taken_PK"},
        sums | {"betas": BETAS[:-1]},
    ):
        (tmp_path / "token_scores.json").write_text(json.dumps(old))
        with pytest.raises(DataError, match="earlier version"):
            score_files.read_token_scores(tmp_path)
    (tmp_path / "token_scores.json").rename(tmp_path / "choices.json")
    with pytest.raises(DataError, match="under other names"):
        score_files.read_token_scores(tmp_path)
