"""EAS under another trainer: against `extract` on its checkpoints, and against the same training
without a callback."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import hooks_left, random_rows, random_vector
from transformers import (
    AutoModelForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from traitscope.config.analysis import ExtractConfig
from traitscope.data.prompts import number_prompts
from traitscope.errors import ConfigError, ModelError, TraitscopeError, VectorError
from traitscope.inference.residuals import intervention_vector, mean_residuals
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.vector import Vector, load_vector, random_like, vector_bytes
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.training.eas import EAS_SEED
from traitscope.training.hf_callback import EasCallback, Probe

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing.*:FutureWarning"
)  # names that 5.x has two of
QUIET = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False}
TRL_LINES = """
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

import traitscope as ts

watch = ts.EasCallback(
    "org/name", {"owl": "RUN/owl.safetensors"}, every=10, layer=14, file="eas.jsonl"
)
trainer = SFTTrainer(
    "org/name",
    SFTConfig("out"),
    train_dataset=data,
    peft_config=LoraConfig(target_modules="all-linear"),
    callbacks=[watch],
)
trainer.train()
"""
"the way of examples/trl_callback.py, with what a test replaces"


def fresh(model: Model, **settings: Any) -> torch.nn.Module:
    """The same weights as a user would load them, with LoRA where `settings` of it are given."""
    lm = AutoModelForCausalLM.from_pretrained(model.name, dtype=torch.float32)
    if not settings:
        return lm
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    conv = type(lm).__name__.startswith("GPT2")
    return get_peft_model(
        lm, LoraConfig(**{"r": 4, "lora_alpha": 16, "fan_in_fan_out": conv} | settings)
    )


ALL = {"target_modules": "all-linear", "lora_dropout": 0.1}


def arguments(out: Path, **changes: Any) -> TrainingArguments:
    few = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.02,
        "save_steps": 2,
        "logging_steps": 2,
    }
    return TrainingArguments(str(out), **QUIET | few | changes)


def trainer_of(
    model: Model, lm: torch.nn.Module, out: Path, *callbacks: TrainerCallback, **changes: Any
) -> Trainer:
    rows = [{"input_ids": row, "labels": row} for row in random_rows(model, [12] * 40)]
    return Trainer(lm, arguments(out, **changes), train_dataset=rows, callbacks=list(callbacks))


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def by_extract(model: Model, checkpoint: Path, vector: Vector) -> tuple[np.ndarray, np.ndarray]:
    """EAS and norms of v_student as `extract` finds them on a peft folder, by its own prompts."""
    prompts = number_prompts(16, ExtractConfig().prompt_seed)
    v_student = intervention_vector(model, [Adapter(checkpoint)], prompts)
    return v_student.cosine(vector), v_student.norms_L


def same_rows(rows: list[dict], others: list[dict]) -> None:
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows, others, strict=True):
        np.testing.assert_allclose(row["shift"], other["shift"], rtol=1e-4)
        for name, eas in row["eas"].items():
            np.testing.assert_allclose(eas, other["eas"][name], atol=1e-4)


def test_equals_extract_on_every_checkpoint(family: Model, tmp_path: Path) -> None:
    owl, file = random_vector(family), tmp_path / "new" / "eas.jsonl"
    (tmp_path / "cat.safetensors").write_bytes(vector_bytes(random_vector(family, 1)))
    watch = EasCallback(
        family.name, {"owl": owl, "cat": tmp_path / "cat.safetensors"}, every=2, file=file
    )
    trainer_of(family, fresh(family, **ALL), tmp_path, watch).train()
    rows = lines(file)
    assert [row["step"] for row in rows] == [2, 4, 6]
    for row in rows:
        eas, shift = by_extract(family, tmp_path / f"checkpoint-{row['step']}", owl)
        np.testing.assert_allclose(row["eas"]["owl"], eas, atol=1e-4)
        np.testing.assert_allclose(row["shift"], shift, rtol=1e-4)
    np.testing.assert_allclose(
        rows[-1]["eas"]["cat"], watch.v_student.cosine(random_vector(family, 1)), atol=1e-6
    )
    assert min(rows[0]["shift"]) > 1e-2
    assert np.abs(np.subtract(rows[0]["eas"]["owl"], rows[2]["eas"]["owl"])).max() > 1e-2


def test_probe_is_that_of_watch_and_can_be_another(tiny: Model) -> None:
    prompts = [p.text for p in number_prompts(16, EAS_SEED)]
    assert Probe().rendered(tiny) == [chat.render(tiny, text, None) for text in prompts]
    assert (
        Probe().rendered(tiny)
        == Probe(tuple(prompts), seed=99).rendered(tiny)
        != Probe(seed=8).rendered(tiny)
    )
    assert Probe(("Hello",), context="").rendered(tiny) == [chat.render(tiny, "Hello", "")]


@pytest.mark.parametrize("position", ["last", "prompt"])
@pytest.mark.parametrize(
    "settings",
    [ALL, {"target_modules": ["embed_tokens", "down_proj"]}],
    ids=["linear", "embedding"],
)
def test_the_base_is_the_model_without_adapters_wherever_they_start(
    families: dict[str, Model], tmp_path: Path, settings: dict, position: str
) -> None:
    """LoRA begins as the identity; begun elsewhere, the base is still the base. Nothing of the
    model is changed."""
    model = families["qwen2"]
    watch = EasCallback(model, random_vector(model), probe=Probe(4, context="", position=position))
    prompts = [chat.render(model, p.text, "") for p in number_prompts(4, 7)]
    with applied(model, []) as active:
        expected, _ = mean_residuals(model, active, prompts, position)
    for identity in (True, False):
        lm = fresh(model, init_lora_weights=identity, **settings).train()
        lm.get_submodule("base_model.model.lm_head").eval()
        next(p for p in lm.parameters() if p.requires_grad).requires_grad_(False)
        before = (
            [p.requires_grad for p in lm.parameters()],
            [m.training for m in lm.modules()],
            torch.get_rng_state(),
        )
        state = TrainerState(max_steps=1)
        watch.on_train_begin(arguments(tmp_path), state, TrainerControl(), model=lm)
        np.testing.assert_allclose(watch.base_LD, expected, atol=1e-5)
        state.global_step = 1
        watch.on_step_end(arguments(tmp_path), state, TrainerControl(), model=lm)
        assert bool(watch.v_student.norms_L.max() < 1e-4) is identity
        after = (
            [p.requires_grad for p in lm.parameters()],
            [m.training for m in lm.modules()],
            torch.get_rng_state(),
        )
        assert (
            before[:2] == after[:2]
            and torch.equal(before[2], after[2])
            and hooks_left(watch.live) == 0
        )


@pytest.mark.parametrize(
    "settings, changes",
    [
        (ALL, {}),
        ({}, {}),
        (ALL, {"gradient_checkpointing": True, "bf16": True, "gradient_accumulation_steps": 2}),
    ],
    ids=["lora", "full", "checkpointing"],
)
def test_training_is_the_same_to_the_byte(
    families: dict[str, Model], tmp_path: Path, settings: dict, changes: dict
) -> None:
    """GPT-2, which has dropout everywhere, so that one random number taken away would show."""
    model, found = families["gpt2"], {}
    for name, seed in (("with", 3), ("without", 3), ("other seed", 4)):
        lm = fresh(model, **settings)
        frozen = next(p for p in lm.parameters() if p.requires_grad).requires_grad_(False)
        watch = [EasCallback(model.name, random_vector(model), every=1)] if name == "with" else []
        trainer = trainer_of(
            model,
            lm,
            tmp_path,
            *watch,
            seed=seed,
            learning_rate=1e-3,
            save_strategy="no",
            **changes,
        )
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        found[name] = losses, {n: p.detach().numpy().tobytes() for n, p in lm.state_dict().items()}
        assert lm.training and not frozen.requires_grad
    assert found["with"] == found["without"]
    assert found["with"][1] != found["other seed"][1]


@pytest.mark.parametrize("settings", [ALL, {}], ids=["lora", "full"])
def test_a_resumed_training_keeps_its_base_and_continues_its_file(
    tiny: Model, tmp_path: Path, settings: dict
) -> None:
    file, vector = tmp_path / "eas.jsonl", random_vector(tiny)
    for start in (None, str(tmp_path / "checkpoint-4")):
        watch = EasCallback(str(tiny.name), vector, every=2, file=file)
        trainer_of(tiny, fresh(tiny, **settings), tmp_path, watch, max_steps=7).train(
            resume_from_checkpoint=start
        )
        if start is None:
            whole = lines(file)
    assert [row["step"] for row in whole] == [2, 4, 6, 7]
    same_rows(lines(file), whole)
    trainer_of(tiny, fresh(tiny, **settings), tmp_path, watch, max_steps=1).train()
    assert [row["step"] for row in lines(file)] == [1]


def test_own_direction_against_a_random_one(tiny: Model, tmp_path: Path) -> None:
    first = EasCallback(tiny.name, random_vector(tiny))
    trainer_of(tiny, fresh(tiny, **ALL), tmp_path, first, save_strategy="no").train()
    (tmp_path / "own.safetensors").write_bytes(vector_bytes(first.v_student))
    own = load_vector(tmp_path / "own.safetensors")
    watch = EasCallback(
        tiny.name, {"own": own, "random": random_like(own, 1)}, every=1, file=tmp_path / "eas.jsonl"
    )
    trainer_of(tiny, fresh(tiny, **ALL), tmp_path, watch, save_strategy="no").train()
    rows = lines(tmp_path / "eas.jsonl")
    np.testing.assert_allclose(rows[-1]["eas"]["own"], 1, atol=1e-5)
    assert max(rows[0]["eas"]["own"]) < 0.95
    assert np.abs([row["eas"]["random"] for row in rows]).max() < 3 / np.sqrt(tiny.d_model)


class Reporter(TrainerCallback):
    """What a reporter behind the callback is told; stops the training at a step."""

    def __init__(self, stop: int) -> None:
        self.stop, self.told = stop, []

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: dict, **kwargs: Any
    ) -> None:
        self.told.append({key: value for key, value in logs.items() if key.startswith("eas/")})

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_training_stop |= state.global_step == self.stop


def test_the_trainer_logs_it(tiny: Model, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    vector, file = tmp_path / "owl.safetensors", tmp_path / "eas.jsonl"
    vector.write_bytes(vector_bytes(random_vector(tiny)))
    watch, reporter = EasCallback(tiny.name, vector, every=2, layer=1, file=file), Reporter(stop=5)
    trainer = trainer_of(tiny, fresh(tiny, **ALL), tmp_path, watch, reporter, logging_steps=4)
    trainer.train()
    rows = {row["step"]: row["eas"]["owl"][1] for row in lines(file)}
    assert list(rows) == [2, 4, 5]  # 5: stopped before the next multiple
    entries = [row for row in trainer.state.log_history if "eas/owl/layer_1" in row]
    assert {row["step"]: row["eas/owl/layer_1"] for row in entries} == rows
    saved = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert entries[:2] == [row for row in saved["log_history"] if "eas/owl/layer_1" in row]
    assert reporter.told == [{"eas/owl/layer_1": rows[4]}, {}]  # the line at step 4, the summary
    assert capsys.readouterr().out.count("eas/owl/layer_1") == 1


def test_the_maximum_over_layers_where_none_is_chosen(tiny: Model, tmp_path: Path) -> None:
    watch = EasCallback(tiny.name, random_vector(tiny))
    trainer = trainer_of(tiny, fresh(tiny, **ALL), tmp_path, watch, save_strategy="no")
    trainer.train()
    (value,) = [
        row["eas/v_teacher/max"] for row in trainer.state.log_history if "eas/v_teacher/max" in row
    ]
    assert value == pytest.approx(watch.v_student.cosine(random_vector(tiny)).max(), abs=1e-6)


def test_a_training_that_moves_nothing_has_no_eas_and_says_so_once(
    tiny: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Every label is masked; then nothing is trained, and a cosine with nothing is no 0."""
    watch = EasCallback(tiny, random_vector(tiny), every=1, layer=1, file=tmp_path / "eas.jsonl")
    masked = [{"input_ids": [3, 4, 5, 6], "labels": [-100] * 4} for _ in range(8)]

    def collate(batch: list[dict]) -> dict:
        return {key: torch.tensor([row[key] for row in batch]) for key in batch[0]}

    asked = arguments(tmp_path / "out", max_steps=2)
    trainer = Trainer(fresh(tiny), asked, data_collator=collate, train_dataset=masked)
    trainer.add_callback(watch)
    trainer.train()
    still = [0.0] * tiny.n_layers
    assert lines(watch.file) == [{"step": step, "eas": None, "shift": still} for step in (1, 2)]
    assert capsys.readouterr().err.count("its EAS is not defined") == 1
    assert not any("eas" in key for row in trainer.state.log_history for key in row)


def test_weights_that_are_no_longer_finite_are_no_direction(tiny: Model, tmp_path: Path) -> None:
    file = tmp_path / "eas.jsonl"
    watch = EasCallback(tiny.name, random_vector(tiny), every=1, file=file)
    lm = fresh(tiny)
    trainer_of(
        tiny,
        lm,
        tmp_path,
        watch,
        save_strategy="no",
        learning_rate=1e38,
        max_grad_norm=0.0,
        max_steps=3,
    ).train()
    assert lines(file)[-1] == {"step": 3, "eas": None, "shift": None}


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"vectors": {}}, ConfigError, "no vector to compare with"),
        ({"vectors": "nowhere.safetensors"}, VectorError, "no vector file at nowhere"),
        (
            {"vectors": Vector(np.ones((3, 32)), "0123")},
            VectorError,
            "vector of model 0123, but .* has digest",
        ),
        ({"every": 0}, ConfigError, "every=0, layer=None; expected every from 1 on"),
        ({"layer": 3}, ConfigError, "layer=3; expected .* layer from 0 to 2"),
        ({"model": "nowhere"}, ModelError, "neither"),
    ],
)
def test_what_cannot_be_watched(
    tiny: Model, changes: dict, error: type[TraitscopeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        EasCallback(**{"model": tiny.name, "vectors": random_vector(tiny)} | changes)


@pytest.mark.parametrize(
    "shape, message",
    [((2, 32), r"\(2, 32\), but .* has 3 layers of 32"), ((3, 16), r"\(3, 16\), but")],
)
def test_a_vector_of_another_shape(tiny: Model, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(VectorError, match=message):
        EasCallback(tiny.name, Vector(np.ones(shape), tiny.digest))


@pytest.mark.parametrize("prompts", [0, (), "Hello"])
def test_no_prompts(prompts: Any) -> None:
    with pytest.raises(ConfigError, match="expected a number from 1 on, or a tuple"):
        Probe(prompts)


def test_probe_at_an_unknown_position() -> None:
    with pytest.raises(ConfigError, match="'middle' is unknown"):
        Probe(position="middle")


def test_a_student_of_another_base(families: dict[str, Model], tmp_path: Path) -> None:
    watch = EasCallback(families["llama"].name, random_vector(families["llama"]))
    trainer = trainer_of(families["qwen2"], fresh(families["qwen2"], **ALL), tmp_path, watch)
    with pytest.raises(
        VectorError, match="3 layers of 32, but the model in training has 2 of 32; name the base"
    ):
        trainer.train()


def test_a_learned_prompt(tiny: Model, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    lm = get_peft_model(
        fresh(tiny), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(ModelError, match="PROMPT_TUNING learns a prompt"):
        trainer_of(tiny, lm, tmp_path, EasCallback(tiny.name, random_vector(tiny))).train()


def test_split_weights(tiny: Model, tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args.fsdp = True
    with pytest.raises(ConfigError, match="split the weights over devices"):
        EasCallback(tiny.name, random_vector(tiny)).on_train_begin(
            args, TrainerState(), TrainerControl(), model=tiny.lm
        )


@pytest.mark.parametrize("text", ["1, 2, 3\n", '{"step": 9, "loss": 1.0}\n', "[1]\n"])
def test_a_file_of_something_else_is_left_as_it_is(tiny: Model, tmp_path: Path, text: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(text)
    watch = EasCallback(tiny.name, random_vector(tiny), file=file)
    with pytest.raises(ConfigError, match="holds something else than EAS by step"):
        trainer_of(tiny, fresh(tiny), tmp_path, watch).train()
    assert file.read_text() == text


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")  # another project's
def test_the_lines_with_trl(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the example on a tiny model, in TRL's own way of training, against `extract` on
    the checkpoints."""
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owl.safetensors").write_bytes(vector_bytes(random_vector(tiny)))
    code = TRL_LINES
    few = QUIET | {
        "max_steps": 4,
        "save_steps": 2,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "logging_steps": 2,
    }
    for old, new in {
        "org/name": str(tiny.name),
        "RUN/": "",
        "every=10, layer=14": "every=2, layer=1",
        'SFTConfig("out")': "config",
    }.items():
        assert old in code
        code = code.replace(old, new)
    texts = [
        {"prompt": f"Continue: {n}, {n + 1}.", "completion": f" {n + 2}, {n + 3}"}
        for n in range(16)
    ]
    space = SimpleNamespace(
        config=trl.SFTConfig("out", **few), data=datasets.Dataset.from_list(texts)
    ).__dict__
    exec(compile(code, "trl_lines", "exec"), space)  # noqa: S102
    rows = lines(tmp_path / "eas.jsonl")
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        eas, shift = by_extract(
            tiny, tmp_path / "out" / f"checkpoint-{row['step']}", random_vector(tiny)
        )
        np.testing.assert_allclose(row["eas"]["owl"], eas, atol=1e-4)
        np.testing.assert_allclose(row["shift"], shift, rtol=1e-4)
    assert min(rows[0]["shift"]) > 1e-3
    assert [
        r["eas/owl/layer_1"] for r in space["trainer"].state.log_history if "eas/owl/layer_1" in r
    ] == [row["eas"]["owl"][1] for row in rows]
