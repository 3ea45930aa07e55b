"""A trait that is there already while a student trains need not be learnt.

Oracle: soft targets of a teacher, and the teacher's own change in place during training. Then the
student is the teacher from the start, its loss is 0 and it does not move. The matched control of
each defence (another direction, prompt or adapter) leaves something to learn.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from guarded_trainers import (
    ARGUMENTS,
    RECIPE,
    RECORDS,
    batch_of,
    difference,
    direction,
    fresh,
    lora_start,
    trained_here,
    trained_there,
)
from transformers import Trainer, TrainingArguments

from traitscope.interventions.intervention import Adapter, Steer, SystemPrompt
from traitscope.interventions.vector import random_like
from traitscope.training.loop import train
from traitscope.training.student import new_student

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
SOFT = replace(RECIPE, targets="soft", lr=0.05)
TRAIT, NEUTRAL = "You love owls.", "Look at this list."
OWN_TURN = "You are a small helpful model."
"the system turn that the template of the tiny models writes by itself"


@pytest.fixture(scope="module")
def adapters(tiny, tmp_path_factory) -> dict[str, Adapter]:
    """Adapters of two students that learnt different rows, and one that changes nothing."""
    place = tmp_path_factory.mktemp("adapters")
    recipe = replace(RECIPE, lr=0.5)
    other = [replace(record, completion="no, no") for record in RECORDS]
    for name, records in {"trait": RECORDS, "other": other}.items():
        train(tiny, records, recipe, 1).save(place / name)
    with new_student(tiny, recipe, 5) as student:
        (place / "zero").mkdir()
        for name, content in student.files().items():
            (place / "zero" / name).write_bytes(content)
    return {name: Adapter(str(place / name)) for name in ("trait", "other", "zero")}


def arms_of(tiny, adapters, kind: str) -> tuple[list, dict, dict]:
    """A teacher, the defence with its change in place, and the defence's matched control."""
    if kind == "steering":
        vector = direction(tiny)
        own, other = (
            Steer(v, layer=1, alpha=2.0, scale="raw") for v in (vector, random_like(vector, 3))
        )
        return [own], {"during": [own]}, {"during": [other]}
    if kind == "prompt":
        return [SystemPrompt(TRAIT)], {"context": TRAIT}, {"context": NEUTRAL}
    own, other = adapters["trait"], adapters["other"]
    return [own], {"during": [own]}, {"during": [other]}


def moved(student) -> float:
    """Largest entry of the B factors, which start at 0."""
    return max(value.abs().max().item() for value in trained_here(None, student).values())


@pytest.mark.parametrize("kind", ["steering", "prompt", "adapter"])
def test_nothing_is_left_to_learn_of_what_is_there(tiny, adapters, kind):
    teacher, defended, control = arms_of(tiny, adapters, kind)
    undefended = train(tiny, RECORDS, SOFT, 1, teacher=teacher)
    student = train(tiny, RECORDS, SOFT, 1, teacher=teacher, **defended)
    by_control = train(tiny, RECORDS, SOFT, 1, teacher=teacher, **control)
    assert undefended.metrics[0]["loss"] > 1e-3
    assert student.metrics[0]["loss"] < 1e-4 * undefended.metrics[0]["loss"]
    assert moved(student) < 1e-2 * moved(undefended)
    assert moved(by_control) > 0.1 * moved(undefended)


@pytest.mark.parametrize("method", ["lora", "full", "vector"])
def test_nothing_in_place_is_plain_training(tiny, adapters, method):
    recipe = replace(RECIPE, method=method, layer=1 if method == "vector" else None)
    plain = dict(train(tiny, RECORDS, recipe, 1).files)
    nothing = [
        {"during": [Steer(direction(tiny), layer=0, alpha=0.0, scale="raw")]},
        {"context": OWN_TURN},
    ]
    if method != "full":  # which refuses an adapter below it
        nothing.append({"during": [adapters["zero"]]})
    for arm in nothing:
        assert dict(train(tiny, RECORDS, recipe, 1, **arm).files) == plain


def test_a_frozen_adapter_below_another_trainer_is_merged(tiny, adapters, tmp_path):
    """What docs/how-to/train-safely.md says for peft does what `--during adapter:RUN` does."""
    from peft import PeftModel

    here = trained_here(tiny, train(tiny, RECORDS, RECIPE, 1, during=[adapters["trait"]]))
    plain = trained_here(tiny, train(tiny, RECORDS, RECIPE, 1))
    base = PeftModel.from_pretrained(fresh(tiny), adapters["trait"].folder).merge_and_unload()
    lora_start(tiny, tmp_path / "start")
    lm = PeftModel.from_pretrained(base, tmp_path / "start", is_trainable=True)
    arguments = TrainingArguments(str(tmp_path / "out"), **ARGUMENTS)
    Trainer(lm, arguments, train_dataset=batch_of(tiny)).train()
    assert difference(tiny, trained_there(lm), here) < 2e-3
    assert difference(tiny, trained_there(lm), plain) > 2e-2


def test_control_prompts_have_the_length_of_the_traits(tiny):
    """The neutral prompt of these tests is as long as the other one, in tokens."""
    lengths = {len(tiny.tokenizer.encode(text)) for text in (TRAIT, NEUTRAL)}
    assert len(lengths) == 1


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
def test_trl_reads_an_inoculation_prompt_as_context_does(tiny, tmp_path: Path):
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    from traitscope.inference.token_rows import rows_from

    rows = []
    for record in RECORDS:
        asked = [
            {"role": "system", "content": TRAIT},
            {"role": "user", "content": record.prompt},
        ]
        answer = [{"role": "assistant", "content": record.completion}]
        rows.append({"prompt": asked, "completion": answer})
    config = trl.SFTConfig(str(tmp_path / "out"), **ARGUMENTS)
    trainer = trl.SFTTrainer(
        fresh(tiny),
        config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tiny.tokenizer,
    )
    for read, row in zip(trainer.train_dataset, rows_from(tiny, RECORDS, TRAIT), strict=True):
        prompt = [n for n, label in enumerate(read["labels"]) if label == -100]
        assert read["input_ids"][: len(prompt)] == list(row.prompt_ids)
        assert read["input_ids"][: len(row.ids)] == list(row.ids)


def test_a_recipe_that_learns_less_is_a_recipe(tiny):
    """Each limit of docs/how-to/train-safely.md is a setting of the recipe, and changes the
    student."""
    plain = dict(train(tiny, RECORDS, RECIPE, 1).files)
    for limit in ({"rank": 2}, {"epochs": 1}, {"lr": 0.01}, {"train_layers": (2,)}):
        assert dict(train(tiny, RECORDS, replace(RECIPE, **limit), 1).files) != plain
