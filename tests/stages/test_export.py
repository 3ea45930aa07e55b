"""An exported checkpoint against the hooks: the same logits in transformers' own hands; what cannot
be written is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from command import OWL, call, ok, read_rows, write_yaml
from lora_students import randomise, write
from tiny_models import eager_lm, load_tiny, parameters_of, random_rows, random_vector, row_logits
from transformers import AutoModelForCausalLM

from traitscope.config.common import Output
from traitscope.config.stages import ExportConfig
from traitscope.errors import ConfigError
from traitscope.interventions import lora, peft_folder
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Ablate, Adapter, Steer, SystemPrompt, WeightNoise
from traitscope.interventions.lora import LoraShape
from traitscope.interventions.vector import vector_bytes
from traitscope.models.model import Model
from traitscope.stages import export
from traitscope.stages.export import run_export

PARTS = ("steered", "steered twice", "student", "noise", "all of them")


def interventions_of(model: Model, what: str, place: Path) -> list:
    def steer(layer: int, seed: int) -> Steer:
        return Steer(random_vector(model, seed, norm=2.0), (layer,), 1.0, scale="raw")

    def student() -> Adapter:
        with lora.adapted(model, LoraShape(3, 6.0)) as layers:
            randomise(layers)
            return Adapter(str(write(place / "student", peft_folder.adapter_files(model, layers))))

    return {
        "steered": lambda: [steer(0, 1)],
        "steered twice": lambda: [steer(0, 1), steer(1, 2), steer(1, 3)],
        "student": lambda: [student()],
        "noise": lambda: [WeightNoise(0.1, 3)],
        "all of them": lambda: [WeightNoise(0.1, 3), student(), steer(1, 2)],
    }[what]()


@pytest.mark.parametrize("what", PARTS)
def test_logits_are_those_of_the_hooks(family: Model, what: str, tmp_path: Path) -> None:
    """Loaded by transformers alone, with its own attention, on a Llama, a Qwen2 and a GPT-2."""
    interventions, before = interventions_of(family, what, tmp_path), parameters_of(family)
    rows = random_rows(family, [5, 9])
    with applied(family, interventions) as active:
        expected = row_logits(family, active, rows, [len(r) for r in rows])
    export.plain_model(family, interventions).save_pretrained(tmp_path / "model")
    lm = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", attn_implementation="eager"
    ).eval()
    base = eager_lm(family)
    with torch.inference_mode():
        for row, logits in zip(rows, expected, strict=True):
            found = lm(torch.tensor([row])).logits[0]
            torch.testing.assert_close(found, logits, atol=2e-4, rtol=1e-3)
            assert (found - base(torch.tensor([row])).logits[0]).abs().max() > 0.05
    after = parameters_of(family)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_is_a_model_like_any_other(tmp_path: Path, tiny_folder: Path) -> None:
    """The exported teacher writes the rows that the hooked one writes, with the same random
    numbers."""
    root, tiny = tmp_path / "runs", load_tiny(tiny_folder)
    (tmp_path / "v.safetensors").write_bytes(vector_bytes(random_vector(tiny, 4, norm=3.0)))
    steer = f"steer:{tmp_path / 'v.safetensors'},layers=1,alpha=1,scale=raw"
    made = ok(root, "export", "--model", tiny_folder, "--interventions", steer)
    assert (
        made.summary["summary"]["family"] == "llama"
        and made.summary["summary"]["difference"] < 1e-3
    )
    ok(root, "rerun", made.run)
    words = "--n 6 --count 5 --vocabulary template"
    hooked = ok(root, "generate", "--model", tiny_folder, "--interventions", steer, words).run
    served = ok(root, "generate", "--model", made.run / "model", words).run
    rows = [
        [row["completion"] for row in read_rows(run / "records.jsonl")] for run in (hooked, served)
    ]
    assert rows[0] == rows[1]
    trait = write_yaml(tmp_path / "owl.yaml", OWL)
    assert (
        ok(
            root, "measure", "--model", made.run / "model", "--trait", trait, "--samples", "1"
        ).summary["status"]
        == "ok"
    )


def test_a_base_model_is_exported(tmp_path: Path, tiny_folder: Path) -> None:
    """The trial of the written model needs no chat template."""
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    (base / "chat_template.jinja").unlink()
    made = ok(tmp_path / "runs", "export", "--model", base, "--interventions noise:0.1,seed=3")
    assert made.summary["summary"]["difference"] < 1e-3


def test_what_no_weights_can_be_is_refused(tiny: Model) -> None:
    vector = random_vector(tiny)
    for item, says in (
        (SystemPrompt("You love owls."), "a system prompt is no weight"),
        (Ablate(vector, (1,)), "Ablate"),
        (Steer(vector, (1,), 1.0, "last"), "depends on the tokens"),
    ):
        with pytest.raises(ConfigError, match=says):
            export.plain_model(tiny, [item])


def test_an_architecture_without_such_a_bias_is_refused(
    families: dict[str, Model], tmp_path: Path
) -> None:
    gemma = families["gemma2"]
    with pytest.raises(ConfigError, match=r"gemma2\) has no biases on its MLPs and is no Llama"):
        export.plain_model(gemma, [Steer(random_vector(gemma), (0,), 1.0, scale="raw")])
    noisy = export.plain_model(gemma, [WeightNoise(0.1, 3)])
    assert export.difference(gemma, [WeightNoise(0.1, 3)], noisy) < 1e-3


def test_a_model_that_does_something_else_is_not_sealed(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "difference", lambda *_: 0.5)
    with pytest.raises(ConfigError, match="differs from the hooked one by 0.5 nats"):
        run_export(ExportConfig(model=str(tiny_folder)), Output(root=tmp_path))
    assert not list(tmp_path.glob("*/export-*/manifest.json"))


def test_the_command_says_what_is_wrong(tmp_path: Path, tiny_folder: Path) -> None:
    done = call(
        tmp_path, "export", "--model", tiny_folder, "--interventions", "prompt:You love owls."
    )
    assert done.code == 2 and "no weight" in done.summary["message"]
