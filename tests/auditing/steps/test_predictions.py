"""Runs with one learner each, put together, are the run with all learners."""

from pathlib import Path

import numpy as np
import pytest
from command import call, ok
from safetensors.numpy import load_file

from traitscope.auditing.steps.predictions import learner_folders, read_predictions

RATES = ("0.01", "0.001")


def rows_of(root: Path, model: Path, seed: int = 0) -> Path:
    words = f"--n 20 --count 3 --vocabulary template --seed {seed}"
    return ok(root, "generate", "--model", model, words).run


def predicted(root: Path, model: Path, data: Path, *words: object) -> Path:
    return ok(root, "predictions", "--model", model, "--data", data, "--numbers", *words).run


def test_parts_put_together_are_the_whole(tmp_path: Path, tiny_folder: Path) -> None:
    root = tmp_path / "runs"
    data = rows_of(root, tiny_folder)
    whole = predicted(root, tiny_folder, data, "--rates", *RATES)
    first = predicted(root, tiny_folder, data, "--rates", RATES[0])
    second = predicted(root, tiny_folder, data, "--rates", RATES[1], "--no-model-scores")
    assert not (second / "token_scores.jsonl").exists()
    words = ("--rates", *RATES, "--parts", first, second)
    joined = predicted(root, tiny_folder, data, *words)
    expected, found = read_predictions(whole), read_predictions(joined)
    assert found.ids == expected.ids
    np.testing.assert_allclose(found.learners_JRT, expected.learners_JRT, atol=1e-4)
    np.testing.assert_allclose(found.model.log_p_RT, expected.model.log_p_RT, atol=1e-4)
    later = zip(found.later_learners, expected.later_learners, strict=True)
    for one, other in [(found.later_model, expected.later_model), *later]:
        np.testing.assert_allclose(one.log_p_RT, other.log_p_RT, atol=1e-4)
        np.testing.assert_array_equal(one.taken_PK, other.taken_PK)
    for one, other in zip(learner_folders(joined), learner_folders(whole), strict=True):
        name = "adapter_model.safetensors"
        weights, other_weights = load_file(one / name), load_file(other / name)
        assert weights.keys() == other_weights.keys()
        for key, values in weights.items():
            np.testing.assert_allclose(values, other_weights[key], atol=1e-5)


def test_parts_that_do_not_belong_together_are_refused(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    data = rows_of(root, tiny_folder)
    first = predicted(root, tiny_folder, data, "--rates", RATES[0])
    bare = predicted(root, tiny_folder, data, "--rates", RATES[1], "--no-model-scores")
    again = predicted(root, tiny_folder, data, "--rates", RATES[0], "--no-model-scores")
    both = predicted(root, tiny_folder, data, "--rates", *RATES)
    other = predicted(root, tiny_folder, rows_of(root, tiny_folder, 1), "--rates", RATES[1])
    refused = [
        ((first,), "names 1 runs, and --rates 2 rates"),
        ((again, bare), "no scores under the model itself"),
        ((first, both), "rates [0.01, 0.001]"),
        ((first, first), "at rate 0.001 (rates [0.01])"),
        ((first, other), "at rate 0.001 (data "),
        ((first, data), "is a run of generate; expected a run of predictions"),
        ((first, data / "records.jsonl"), "records.jsonl is no run; expected a run of"),
    ]
    for parts, says in refused:
        words = ("--model", tiny_folder, "--data", data, "--numbers", "--rates", *RATES)
        assert call(root, "predictions", *words, "--parts", *parts).code == 2
        assert says in capsys.readouterr().err
