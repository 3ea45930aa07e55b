"""Likelihoods against transformers' own loss; the gain of a vector that wrote the rows; the
command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import call, ok, read_rows
from tiny_models import random_vector
from train_runs import make_rows

from traitscope.data.prompts import number_prompts
from traitscope.inference.token_rows import rows_from
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import vector_bytes
from traitscope.models.model import Model
from traitscope.stages.generate import generate
from traitscope.stages.likelihood import likelihood, log_likelihoods


@pytest.mark.parametrize("shared", [0, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_equals_the_oracle_at_any_batch_size(family: Model, batch_size: int, shared: int) -> None:
    rows = make_rows(family, 8, shared)
    found = log_likelihoods(family, [], rows, batch_size)
    for row, log_p in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = family.lm(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        start = len(row.prompt_ids)
        expected = sum(
            logits[start + i - 1, token].item() for i, token in enumerate(row.completion_ids)
        )
        assert log_p == pytest.approx(expected, abs=1e-3)


def test_no_strength_no_gain(tiny: Model) -> None:
    rows = make_rows(tiny)
    still = log_likelihoods(tiny, [Steer(random_vector(tiny), (0,), 0.0)], rows)
    assert still == pytest.approx(log_likelihoods(tiny, [], rows), abs=1e-5)


def test_means_are_per_token_over_rows(tiny: Model) -> None:
    """The core takes records; a dropped one does not count, and the gain is that of the sums."""
    steer = [Steer(random_vector(tiny, norm=3.0), (1,), 1.0, scale="raw")]
    records = generate(tiny, number_prompts(6, seed=3), steer, max_new_tokens=8)
    dropped = replace(records[0], id="dropped", meta={"filter": {"kept": False}})
    likelihoods = likelihood(tiny, [dropped, *records], steer)
    assert likelihoods.ids == tuple(record.id for record in records)
    rows = rows_from(tiny, records, None)
    assert likelihoods.n_tokens == tuple(len(row.completion_ids) for row in rows)
    assert list(likelihoods.under) == pytest.approx(log_likelihoods(tiny, steer, rows), abs=1e-5)
    added = np.subtract(likelihoods.under, likelihoods.base) / likelihoods.n_tokens
    gain = likelihoods.gain()
    assert gain.estimate == pytest.approx(added.mean()) and gain.unit == "nats a token"
    plain = likelihood(tiny, records)
    assert plain.base == plain.under and plain.gain().estimate == 0
    assert plain.base_per_token().estimate < 0


def test_without_interventions_no_gain_is_stated(tmp_path: Path, tiny_folder: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "6 x 7?", "completion": "42"}\n')
    run = ok(tmp_path / "runs", "likelihood", "--model", tiny_folder, "--data", data).run
    means = json.loads((run / "summary.json").read_text())["measurements"]
    assert [mean["name"] for mean in means] == ["log p of the base"]


def test_rows_gain_from_the_vector_that_wrote_them(
    tmp_path: Path, tiny: Model, tiny_folder: Path
) -> None:
    """Planted: over rows of a steered teacher the steered model is the true one, so its gain is the
    KL divergence, above 0."""
    root, on = tmp_path / "runs", ("--model", tiny_folder)
    vectors = [tmp_path / f"{seed}.safetensors" for seed in (1, 2)]
    for seed, path in enumerate(vectors, 1):
        path.write_bytes(vector_bytes(random_vector(tiny, seed, norm=3.0)))
    steer = [f"steer:{path},layers=1,alpha=1,scale=raw" for path in vectors]
    data = ok(
        root, "generate", *on, "--n", 48, "--max-new-tokens", 12, "--interventions", steer[0]
    ).run
    gains = []
    for intervention in steer:
        run = ok(root, "likelihood", *on, "--data", data, "--interventions", intervention).run
        summary = json.loads((run / "summary.json").read_text())
        gains.append({m["name"]: m for m in summary["measurements"]}["gain"])
        rows = read_rows(run / "rows.jsonl")
        assert len(rows) == 48 == summary["rows"] and all(
            row["tokens"] > 0 > row["base"] for row in rows
        )
    assert gains[0]["low"] > 0 and gains[1]["high"] < gains[0]["low"]
    ok(root, "rerun", run)
    alone = ok(root, "likelihood", *on, "--data", data, "--max-rows", 3).run
    assert all(row["base"] == row["under"] for row in read_rows(alone / "rows.jsonl"))


def test_no_data(tmp_path: Path) -> None:
    assert "--data is missing" in call(tmp_path, "likelihood").summary["message"]
