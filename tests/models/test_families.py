"""Families of other shapes than Llama: rows, prompts and greedy answers equal transformers' own,
computed with its plain attention; or the family is refused in words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_tokenizer

from traitscope.errors import ModelError
from traitscope.inference import forward
from traitscope.inference.decode import Sampling, decode
from traitscope.interventions.applied import applied
from traitscope.models.loading import load_model
from traitscope.models.model import Model

COMMON = {
    "vocab_size": 420, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {
    "moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "topk_group": 1, "n_group": 1,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
ANGLES = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4, "original_max_position_embeddings": 64,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "values narrower than keys": ("deepseek_v3", {**EXPERTS, **LATENT}),
    "blocks that read another one's keys": (
        "gemma3n_text",
        {
            "head_dim": 8, "num_hidden_layers": 6, "sliding_window": 16, "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": 420, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
            "intermediate_size": [48] * 6, "activation_sparsity_pattern": [0.0] * 6,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        },
    ),
    "norms of queries and keys": ("qwen3", {"head_dim": 8}),
    "experts and a window": ("mixtral", {"num_local_experts": 4, "sliding_window": 16}),
    "a part is turned": ("glm4", {"head_dim": 8, "partial_rotary_factor": 0.5}),
    "windows in some blocks": ("qwen2", {"use_sliding_window": True, "sliding_window": 16,
                                         "max_window_layers": 1}),
    "angles by length": ("phi3", {"rope_parameters": ANGLES, "max_position_embeddings": 256,
                                  "original_max_position_embeddings": 64}),
    "positions by bias": ("bloom", {"n_layer": 2, "n_head": 4}),
}  # fmt: skip
REFUSED = {
    "gptj": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}, "attention interface"),
    "mpt": (
        {"d_model": 32, "n_layers": 2, "n_heads": 4, "initializer_range": 0.3},
        "rows of one batch would change",
    ),
    "doge": ({**COMMON, "head_dim": 8}, "was loaded, but its logits cannot be computed here"),
    "openai-gpt": ({"n_embd": 32, "n_layer": 2, "n_head": 4}, "keeps no keys and values, so it"),
    "gemma3_text": (
        {**COMMON, "head_dim": 8, "sliding_window": 16, "use_bidirectional_attention": True},
        "an answer's likelihood would depend on what follows",
    ),
}


def saved(folder: Path, family: str, settings: dict[str, Any]) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for weight in lm.parameters():
        if not weight.isfinite().all() or float(weight.detach().std()) < 1e-6:
            torch.nn.init.normal_(weight, std=0.3)
    lm.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def prompts() -> list[list[int]]:
    """Three rows of other lengths that begin alike."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(10, 400, (90,), generator=generator).tolist()
    return [drawn[:20] + drawn[20:50], drawn[:20] + drawn[60:75], drawn[:20] + drawn[80:84]]


def ours(model: Model) -> tuple[list[torch.Tensor], torch.Tensor, list[list[int]]]:
    """Logits of rows, behind prompts, and greedy answers."""
    rows = prompts()
    lengths = [len(row) - 3 for row in rows]
    with applied(model, []) as active:
        with torch.no_grad():
            hidden_BTD, batch = forward.rows_hidden(model, active, rows, lengths)
            _, last_BD = forward.prefill(model, active, rows, 5)
        of_rows = []
        for hidden_TD, mask_T in zip(hidden_BTD, batch.mask_BT, strict=True):
            of_rows.append(forward.logits_of(model, hidden_TD[mask_T]))
        answers = decode(model, active, rows, ["a", "b", "c"], Sampling(0.0, 8, 0))
        return of_rows, forward.logits_of(model, last_BD), answers


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_answers_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    family, settings = KINDS[kind]
    folder = saved(tmp_path / "model", family, {**COMMON, **settings})
    model = load_model(str(folder), device="cpu", dtype="fp32")
    lm = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    of_rows, behind, answers = ours(model)
    for number, row in enumerate(prompts()):
        with torch.no_grad():
            expected_TV = lm(input_ids=torch.tensor([row])).logits[0]
        bound = 1e-4 * float(expected_TV.abs().max())
        found_TV = of_rows[number]
        assert float((found_TV - expected_TV[-len(found_TV) :]).abs().max()) < bound
        assert float((behind[number] - expected_TV[-1]).abs().max()) < bound
        written = list(row)
        for token in answers[number]:
            with torch.no_grad():
                logits_V = lm(input_ids=torch.tensor([written])).logits[0, -1]
            assert int(logits_V.argmax()) == token
            written.append(token)


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_computed_is_refused_in_words(tmp_path: Path, family: str) -> None:
    settings, words = REFUSED[family]
    settings = {"vocab_size": 420, "bos_token_id": 1, "eos_token_id": 2, **settings}
    folder = saved(tmp_path / "model", family, settings)
    with pytest.raises(ModelError, match=words):
        load_model(str(folder), device="cpu", dtype="fp32")


def test_angles_by_length_bound_the_rows(tmp_path: Path) -> None:
    """A longer row would turn the positions of all rows of its batch."""
    family, settings = KINDS["angles by length"]
    folder = saved(tmp_path / "model", family, {**COMMON, **settings})
    assert load_model(str(folder), device="cpu", dtype="fp32").max_length == 64


def test_attention_is_compared_with_the_familys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in this package's attention is found at load, and leaves no other attention."""
    from traitscope.models import attention

    folder = saved(tmp_path / "model", "qwen3", {**COMMON, "head_dim": 8})
    model = load_model(str(folder), device="cpu", dtype="fp32")
    assert model.lm.config._attn_implementation == attention.NAME
    right = attention.grouped_attention

    def wrong(*args: Any, **named: Any) -> Any:
        return right(*args, **{**named, "scaling": 0.0})

    monkeypatch.setattr(attention, "grouped_attention", wrong)
    with pytest.raises(ModelError, match="differ from"):
        load_model(str(folder), device="cpu", dtype="fp32")
