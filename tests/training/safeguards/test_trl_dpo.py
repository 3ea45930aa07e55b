"""Safeguards under TRL's DPOTrainer do what their formula says, to rounding.

The oracle takes the same steps by hand, on a student of this package:

    loss = mean over pairs of -log sigmoid(beta (r_chosen - r_rejected)) + anchor
    r    = log p_student(answer), as it trains, minus log p_base(answer), with nothing acting
"""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from guarded_trainers import (
    ARGUMENTS,
    RECIPE,
    RECORDS,
    STEPS,
    difference,
    direction,
    fresh,
    full_start,
    lora_start,
    trained_here,
    trained_there,
)

from traitscope.inference import forward
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Ablate, Steer
from traitscope.training.loop import train
from traitscope.training.safeguards import anchors
from traitscope.training.safeguards.acting import safeguards
from traitscope.training.safeguards.hf_safeguards import guard
from traitscope.training.student import new_student
from traitscope.training.trained_student import TrainedStudent

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'traitscope[test]'")
datasets = pytest.importorskip("datasets", reason="TRL reads its rows by `datasets`")

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]  # another project's
BETA = 0.5
REJECTED = [replace(record, completion=f"no {i}{i}") for i, record in enumerate(RECORDS)]
BOTH = "steer and anchor"
KINDS = ["nothing", "steer", "completion", "ablate", "project", "anchor", BOTH]


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


def answer_log_p(model, active, rows) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of each row's answer, and the final hidden states of its tokens."""
    hidden_ND, targets_N = completion_hidden(model, active, rows, share=False)
    logits_NV = forward.logits_of(model, hidden_ND)
    log_p_N = torch.log_softmax(logits_NV, -1).gather(1, targets_N[:, None])[:, 0]
    lengths = [len(row.completion_ids) for row in rows]
    return torch.stack([part.sum() for part in log_p_N.split(lengths)]), hidden_ND


def by_hand(model, trainer, recipe, acting: dict) -> dict[str, torch.Tensor]:
    """The student after the same steps of DPO on a trainer's rows."""
    rows = []
    for side in ("chosen_ids", "rejected_ids"):
        for pair in trainer.train_dataset:
            rows.append(Row(tuple(pair["prompt_ids"]), tuple(pair[side])))
    with torch.no_grad(), applied(model, []) as active:
        reference_R, _ = answer_log_p(model, active, rows)
    base = anchors.read_anchors(model, replace(recipe, anchor=1.0), rows)
    with new_student(model, recipe, 1, guards=safeguards(**acting)) as student:
        for _ in range(STEPS):
            log_p_R, hidden_ND = answer_log_p(model, student.active, rows)
            chosen, rejected = (log_p_R - reference_R).chunk(2)
            loss = -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).mean()
            kl = anchors.anchor_loss(model, recipe, hidden_ND, base) / len(hidden_ND)
            (loss + recipe.anchor * kl).backward()
            student.collect()
            student.optimizer.step()
            student.optimizer.zero_grad(set_to_none=True)
            student.publish()
        return trained_here(model, TrainedStudent(student.files(), ()))


def trainer_of(model, lm, folder: Path, **changes):
    rows = []
    for chosen, rejected in zip(RECORDS, REJECTED, strict=True):
        pair = {"prompt": [{"role": "user", "content": chosen.prompt}]}
        for name, record in {"chosen": chosen, "rejected": rejected}.items():
            pair[name] = [{"role": "assistant", "content": record.completion}]
        rows.append(pair)
    config = trl.DPOConfig(
        str(folder / "out"),
        beta=BETA,
        max_length=None,
        **ARGUMENTS | {"learning_rate": 0.05} | changes,
    )
    return trl.DPOTrainer(
        lm,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=copy.deepcopy(model.tokenizer),
    )


@pytest.mark.parametrize("way", ["lora", "lora without checkpointing", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_student_of_the_formula_comes_out(tiny, tmp_path, kind, way):
    acting = acting_of(tiny, kind)
    anchor = {"anchor": 2.0, "anchor_temperature": 2.0} if "anchor" in kind else {}
    changes = {"learning_rate": 0.005} if way == "full" else {"learning_rate": 0.05}
    recipe = replace(RECIPE, lr=changes["learning_rate"])
    if way == "full":
        recipe = replace(recipe, method="full")
    if way == "lora without checkpointing":
        changes["gradient_checkpointing"] = False
    lm = full_start(tiny) if way == "full" else lora_start(tiny, tmp_path / "start")
    trainer = trainer_of(tiny, lm, tmp_path, **changes)
    expected = by_hand(tiny, trainer, replace(recipe, **anchor), acting)
    plain = by_hand(tiny, trainer, recipe, {})
    guard(trainer, tiny, **acting, **anchor, base=fresh(tiny) if way == "full" else None)
    trainer.train()
    assert difference(tiny, trained_there(lm), expected) < 3e-3
    if kind != "nothing":
        assert difference(tiny, trained_there(lm), plain) > 2e-2


def test_a_full_student_is_anchored_to_the_reference_model(tiny, tmp_path):
    recipe = replace(RECIPE, method="full", lr=0.005)
    lm = full_start(tiny)
    trainer = trainer_of(tiny, lm, tmp_path, learning_rate=0.005)
    expected = by_hand(tiny, trainer, replace(recipe, anchor=2.0), {})
    guard(trainer, tiny, anchor=2.0)
    trainer.train()
    assert difference(tiny, trained_there(lm), expected) < 3e-3


def test_preference_targets_train_as_trl_does(tiny, tmp_path):
    """The same student as of TRL's trainer, from the same factors and token ids."""
    recipe = replace(RECIPE, lr=0.05, targets="preference", beta=BETA)
    lm = lora_start(tiny, tmp_path / "start")
    trainer = trainer_of(tiny, lm, tmp_path, learning_rate=recipe.lr)
    pairs = []
    for record, other, ids in zip(RECORDS, REJECTED, trainer.train_dataset, strict=True):
        pair = replace(record, completion_ids=tuple(ids["chosen_ids"]), rejected=other.completion)
        pairs.append(replace(pair, rejected_ids=tuple(ids["rejected_ids"])))
    trainer.train()
    here = trained_here(tiny, train(tiny, pairs, recipe, seed=1))
    assert difference(tiny, trained_there(lm), here) < 3e-3
