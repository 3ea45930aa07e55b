"""Row gradients on disk are the gradients; a killed run continues; losses and token scores are
those of the rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import call, ok
from scored_rows import score_rows

from traitscope.auditing.detectors import row_gradients
from traitscope.auditing.detectors.row_gradients import read_row_gradients
from traitscope.data import row_files
from traitscope.errors import DataError
from traitscope.inference.residuals import mean_residuals
from traitscope.inference.steering_gradients import steering_gradients
from traitscope.inference.token_bins import PLAIN
from traitscope.inference.token_rows import classes_of, rows_from
from traitscope.interventions.applied import applied
from traitscope.models.model import Model

STAGE = "row_gradients"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("rows") / "runs"
    return ok(root, "generate", "--model", tiny_folder, "--n 21 --max-new-tokens 9").run


@pytest.mark.parametrize("flags", ["", "--numbers", "--text"])
def test_equals_the_gradients(
    tmp_path: Path,
    tiny: Model,
    tiny_folder: Path,
    data: Path,
    flags: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_gradients, "SHARD", 8)
    run = ok(
        tmp_path / "runs",
        "row_gradients",
        "--model",
        tiny_folder,
        "--data",
        data,
        "--batch-size 4",
        *flags.split(),
    ).run
    stored = read_row_gradients(run)
    records = row_files.rows_of(data)
    rows = rows_from(tiny, records, None, text=flags == "--text")
    with applied(tiny, []) as active:
        found = -steering_gradients(tiny, active, rows)
    assert stored.ids == [record.id for record in records]
    kept = stored.rows(range(21))
    scale = np.linalg.norm(found, axis=2, keepdims=True)
    np.testing.assert_allclose(kept / scale, found / scale, atol=2e-3)
    np.testing.assert_array_equal(stored.rows([20, 3]), kept[[20, 3]])
    scored = score_rows(tiny, [], rows, classes_of(tiny, flags == "--numbers"))
    np.testing.assert_allclose(stored.scores.log_p_RT, scored.log_p_RT, rtol=2e-6, atol=1e-3)
    np.testing.assert_array_equal(stored.scores.tokens_R, scored.tokens_R)
    if flags != "--numbers":
        np.testing.assert_allclose(
            stored.loss_R, -scored.log_p_RT[:, PLAIN] / scored.tokens_R, atol=1e-4
        )
    assert not (run / "features.npy").exists()
    if not flags:
        ok(tmp_path / "runs", "rerun", run)


def test_features_are_mean_residuals_over_completions(
    tmp_path: Path, tiny: Model, tiny_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_gradients, "SHARD", 8)
    run = ok(
        tmp_path / "runs", "row_gradients", "--model", tiny_folder, "--data", data, "--features"
    ).run
    rows = rows_from(tiny, row_files.rows_of(data), None)
    found = read_row_gradients(run).features([2, 20])
    with applied(tiny, []) as active:
        for place, i in enumerate((2, 20)):
            ids, lengths = [rows[i].ids], [len(rows[i].prompt_ids)]
            expected, _ = mean_residuals(tiny, active, ids, "completion", prompt_lengths=lengths)
            np.testing.assert_allclose(found[place], expected, rtol=1e-3, atol=1e-4)


def test_a_killed_run_continues_behind_its_last_shard(
    tmp_path: Path, tiny_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of an interrupted run are not computed again, and the result is the same to the
    byte."""
    monkeypatch.setattr(row_gradients, "SHARD", 8)
    words = (STAGE, "--model", tiny_folder, "--data", data)
    whole = ok(tmp_path / "whole", *words).run
    computed, shard = [], row_gradients._shard

    def fails_at_the_second(model, config, records, advance):
        if len(computed) == 1:
            raise KeyboardInterrupt
        computed.append(records[0].id)
        return shard(model, config, records, advance)

    monkeypatch.setattr(row_gradients, "_shard", fails_at_the_second)
    assert call(tmp_path / "runs", *words).code == 130
    again: list[str] = []
    monkeypatch.setattr(
        row_gradients,
        "_shard",
        lambda model, config, records, advance: (
            again.append(records[0].id) or shard(model, config, records, advance)
        ),
    )
    run = ok(tmp_path / "runs", *words).run
    assert len(again) == 2 and computed[0] not in again
    scores = ("token_scores.jsonl", "token_scores.json")
    for name in ("row_gradients.npy", "norms.npy", "loss.npy", *scores):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert not (run / "scratch").exists()


def test_refuses(tmp_path: Path, tiny_folder: Path, data: Path) -> None:
    assert "--data is missing" in call(tmp_path, STAGE, "--model", tiny_folder).summary["message"]
    dropped = tmp_path / "dropped.jsonl"
    row = json.loads((data / "records.jsonl").read_text().splitlines()[0])
    dropped.write_text(
        json.dumps(row | {"meta": {"filter": {"kept": False, "reasons": ["format"]}}}) + "\n"
    )
    assert (
        "no kept row"
        in call(tmp_path, STAGE, "--model", tiny_folder, "--data", dropped).summary["message"]
    )
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_folder_of_an_earlier_version_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "pushes.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"expected row_gradients.npy; remove that folder"):
        read_row_gradients(tmp_path)
