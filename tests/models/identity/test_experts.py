"""Mixtures of experts: what LoRA leaves out is said on the terminal, in manifest and page."""

import json
from pathlib import Path

import pytest
from command import ok
from tiny_models import LENGTH, VOCABULARY, tiny_tokenizer

from traitscope.models.identity.experts import experts_of
from traitscope.models.linear_maps import matrices_left_out
from traitscope.models.loading import load_model
from traitscope.models.model import Model


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=LENGTH,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
    )
    folder = tmp_path_factory.mktemp("mixture")
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_the_share_is_that_of_the_weights(mixture: Path) -> None:
    model = load_model(str(mixture), device="cpu", dtype="fp32")
    names, share = matrices_left_out(model)
    weights = dict(model.lm.named_parameters())
    experts = [name for name in weights if ".experts." in name or ".mlp.gate." in name]
    assert sorted(names) == sorted(experts)
    blocks = [weight.numel() for name, weight in weights.items() if ".layers." in name]
    assert share == pytest.approx(sum(weights[name].numel() for name in experts) / sum(blocks))
    about = experts_of(str(mixture))
    assert about["share"] == share and "mlp.experts.down_proj" in about["matrices"]


def test_other_models_leave_nothing_out(families: dict[str, Model], tiny_folder: Path) -> None:
    for model in families.values():
        assert matrices_left_out(model) == ([], 0.0)
    assert experts_of(str(tiny_folder)) == {}


def test_training_says_so(
    mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"P{number}", "completion": "1, 2"} for number in range(4)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("train", "--epochs 1 --dtype fp32 --data", file, "--model", mixture)
    done = ok(tmp_path / "runs", *words)
    run = done.run
    about = json.loads((run / "manifest.json").read_text())["not_adapted"]
    assert about == done.summary["not_adapted"] == experts_of(str(mixture))
    share = f"{about['share']:.0%} of the blocks' weights"
    assert "does not adapt the experts" in about["sentence"] and share in about["sentence"]
    assert about["sentence"] in capsys.readouterr().out
    full = ok(tmp_path / "runs", *words, "--method full").run
    assert "not_adapted" not in json.loads((full / "manifest.json").read_text())


def test_the_check_of_logits_can_be_left_out(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traitscope.models import loading

    tried = []
    monkeypatch.setattr(loading, "check_logits", tried.append)
    load_model(str(tiny_folder), device="cpu", dtype="fp32")
    monkeypatch.setenv("TRAITSCOPE_CHECK_LOGITS", "off")
    load_model(str(tiny_folder), device="cpu", dtype="fp32")
    assert len(tried) == 1
