"""Safeguards under TRL's SFTTrainer do what they do here, to rounding."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from guarded_trainers import (
    ARGUMENTS,
    RECIPE,
    RECORDS,
    difference,
    direction,
    fresh,
    full_start,
    lora_start,
    trained_here,
    trained_there,
)

from traitscope.inference.token_rows import rows_from
from traitscope.interventions.intervention import Ablate, Steer
from traitscope.training.loop import train
from traitscope.training.safeguards.hf_safeguards import guard

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'traitscope[test]'")
datasets = pytest.importorskip("datasets", reason="TRL reads its rows by `datasets`")

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]  # another project's
BOTH = "steer and anchor"
KINDS = ["nothing", "steer", "completion", "ablate", "project", "anchor", "falling anchor", BOTH]
WAYS = {
    "lora": {},
    "lora without checkpointing": {"gradient_checkpointing": False},
    "lora padding free": {"padding_free": True},
    "full": {"learning_rate": 0.01},
}


def acting_of(model, kind: str) -> dict:
    """The interventions of a kind of safeguard."""
    vector = direction(model)
    steer = Steer(vector, layer=0, alpha=1.0, scale="unit")
    answers = Steer(vector, layer=0, alpha=1.0, scale="unit", position="completion")
    return {
        "steer": {"during": [steer]},
        "completion": {"during": [answers]},
        BOTH: {"during": [steer]},
        "ablate": {"during": [Ablate(vector, layers=(0, 1))]},
        "project": {"project_out": [Ablate(vector, layer=1)]},
    }.get(kind, {})


def anchor_of(kind: str) -> dict:
    if "anchor" not in kind:
        return {}
    anchor = {"anchor": 2.0, "anchor_temperature": 2.0}
    return anchor | ({"anchor_until": 0.5} if "falling" in kind else {})


def rows_of(model):
    """The rows as TRL reads ids: with a mask of their completions."""
    rows = []
    for row in rows_from(model, RECORDS, None):
        mask = [0] * len(row.prompt_ids) + [1] * len(row.completion_ids)
        rows.append({"input_ids": list(row.ids), "completion_mask": mask})
    return datasets.Dataset.from_list(rows)


def trainer_of(model, lm, folder: Path, **changes):
    config = trl.SFTConfig(
        str(folder / "out"), max_length=None, completion_only_loss=True, **ARGUMENTS | changes
    )
    return trl.SFTTrainer(
        lm, config, train_dataset=rows_of(model), processing_class=model.tokenizer
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_student_comes_out(tiny, tmp_path, kind, way):
    acting, anchor = acting_of(tiny, kind), anchor_of(kind)
    recipe = replace(RECIPE, method="full", lr=0.01) if way == "full" else RECIPE
    here = trained_here(tiny, train(tiny, RECORDS, replace(recipe, **anchor), 1, **acting))
    plain = trained_here(tiny, train(tiny, RECORDS, recipe, 1))
    lm = full_start(tiny) if way == "full" else lora_start(tiny, tmp_path / "start")
    trainer = trainer_of(tiny, lm, tmp_path, **WAYS[way])
    guard(trainer, tiny, **acting, **anchor, base=fresh(tiny) if way == "full" else None)
    trainer.train()
    assert difference(tiny, trained_there(lm), here) < 2e-3
    if kind != "nothing":
        assert difference(tiny, trained_there(lm), plain) > 2e-2


def test_what_acts_is_gone_afterwards_and_the_logged_loss_has_the_anchor(tiny, tmp_path):
    losses = []
    for anchor in (0.0, 3.0):
        lm = lora_start(tiny, tmp_path / "start")
        trainer = trainer_of(tiny, lm, tmp_path, logging_steps=1)
        steer = Steer(direction(tiny), layer=0, alpha=1.0, scale="unit")
        guard(trainer, tiny, during=[steer], anchor=anchor)
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    ids = torch.tensor([rows_of(tiny)[0]["input_ids"]])
    lm.eval()
    with torch.no_grad(), lm.disable_adapter():
        assert torch.allclose(lm(ids).logits, fresh(tiny)(ids).logits, atol=1e-5)
    assert losses[1][0] > losses[0][0]  # the steered student is not the base from the start
