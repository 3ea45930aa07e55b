"""Attention against transformers' eager implementation, and against the formula."""

import pytest
import torch
from tiny_models import eager_lm, load_tiny, random_rows

from traitscope.errors import ModelError
from traitscope.inference import forward
from traitscope.models import attention
from traitscope.models.model import Model

FAMILIES = ("llama", "qwen2", "gpt2", "gemma2")


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_eager_with_padding(families: dict[str, Model], name: str, left: bool) -> None:
    model = families[name]
    assert model.lm.config._attn_implementation == attention.NAME
    batch = forward.batch_of(random_rows(model, [9, 3, 1, 6]), [1] * 4, model.pad_id, left=left)
    places = (batch.mask_BT.long().cumsum(1) - 1).clamp(min=0)
    given = {
        "input_ids": batch.ids_BT,
        "attention_mask": batch.mask_BT.long(),
        "position_ids": places,
    }
    with torch.inference_mode():
        ours, theirs = model.lm(**given).logits, eager_lm(model)(**given).logits
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours[batch.mask_BT], theirs[batch.mask_BT], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("masked", [False, True])
def test_formula(softcap: float | None, masked: bool, gradients: bool) -> None:
    """Query head h reads key-value head h // G; a decoding step has fewer queries than keys."""
    torch.manual_seed(0)
    B, H, K, T, S, E = 2, 6, 2, 3, 5, 4
    query, key, value = torch.randn(B, H, T, E), torch.randn(B, K, S, E), torch.randn(B, K, S, E)
    mask = (
        torch.where(torch.rand(B, 1, T, S + 2) < 0.3, -1e9, torch.randn(B, 1, T, S + 2))
        if masked
        else None
    )
    with torch.set_grad_enabled(gradients):
        found, _ = attention.grouped_attention(
            torch.nn.Identity(), query, key, value, mask, scaling=0.7, softcap=softcap
        )
    assert found.shape == (B, T, H, E)
    for b in range(B):
        for h in range(H):
            scores = 0.7 * query[b, h] @ key[b, h // (H // K)].T
            scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
            scores = scores if mask is None else scores + mask[b, 0, :, :S]
            expected = torch.softmax(scores, -1) @ value[b, h // (H // K)]
            torch.testing.assert_close(found[b, :, h], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads", [2, 6])
def test_what_a_gpu_computes_is_the_same(masked: bool, heads: int) -> None:
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, 3, 4),
        torch.randn(2, 2, 5, 4),
        torch.randn(2, 2, 5, 4),
    )
    mask = (
        torch.where(torch.rand(2, 1, 3, 5) < 0.3, -1e9, torch.randn(2, 1, 3, 5)) if masked else None
    )
    expected, _ = attention.grouped_attention(
        torch.nn.Identity(), query, key, value, mask, scaling=0.7
    )
    torch.testing.assert_close(
        attention._fused(query, key, value, mask, 0.7).transpose(1, 2),
        expected,
        atol=1e-5,
        rtol=1e-5,
    )


def test_a_teachers_states_are_computed_as_in_training(tiny: Model) -> None:
    """Logits without gradients, inside the block, are those with gradients to the last bit."""
    ids = torch.tensor(random_rows(tiny, [40]))
    with_gradients = tiny.lm(ids).logits
    with torch.no_grad():
        fused = tiny.lm(ids).logits
        with attention.as_in_training():
            same = tiny.lm(ids).logits
    assert torch.equal(same, with_gradients)
    assert not torch.equal(fused, with_gradients)
    torch.testing.assert_close(fused, with_gradients, atol=2e-5, rtol=1e-5)


def test_default_scale_is_the_root_of_the_head_size() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 3, 16) for _ in range(3))
    default, _ = attention.grouped_attention(torch.nn.Identity(), q, k, v, None)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    torch.testing.assert_close(default, expected)


def test_gradients_equal_eager(family: Model) -> None:
    """Through whole models: gradients of a loss with respect to the embedded tokens."""
    (row,) = random_rows(family, [7])
    found = []
    for lm in (family.lm, eager_lm(family)):
        embedded = lm.get_input_embeddings()(torch.tensor([row])).detach().requires_grad_(True)
        lm(inputs_embeds=embedded).logits.square().mean().backward()
        found.append(embedded.grad)
    assert found[1].abs().max() > 1e-4
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_bf16_stays_close(tiny: Model) -> None:
    low = load_tiny(tiny.name, "bf16")
    ids = torch.tensor(random_rows(tiny, [8]))
    with torch.inference_mode():
        exact, rounded = tiny.lm(ids).logits, low.lm(ids).logits
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).std() < 0.05 * exact.std()


@pytest.mark.parametrize("most_scores", [0, attention.MOST_SCORES])
@pytest.mark.parametrize("T", [1, 5])
def test_bf16_without_a_gradient(T: int, most_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to compute it equal the formula in fp32, for rows that are padded on the left."""
    monkeypatch.setattr(attention, "MOST_SCORES", most_scores)
    torch.manual_seed(0)
    B, H, K, S, E = 3, 6, 2, 7, 16
    query, key, value = (torch.randn(B, n, m, E).bfloat16() for n, m in ((H, T), (K, S), (K, S)))
    hidden = ~torch.ones(T, S, dtype=torch.bool).tril(S - T).repeat(B, 1, 1, 1)
    for row in range(B):
        hidden[row, :, :, :row] = True
    mask = torch.zeros(B, 1, T, S).masked_fill(hidden, torch.finfo(torch.bfloat16).min)
    with torch.no_grad():
        found, _ = attention.grouped_attention(
            torch.nn.Identity(), query, key, value, mask.bfloat16(), scaling=0.5
        )
        expected, _ = attention.grouped_attention(
            torch.nn.Identity(), query.float(), key.float(), value.float(), mask, scaling=0.5
        )
    assert expected.std() > 0.2
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


def test_attention_sinks_are_refused() -> None:
    """Families that add terms to the scores must not silently lose them."""
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(ModelError, match="s_aux"):
        attention.grouped_attention(torch.nn.Identity(), q, q, q, None, s_aux=torch.zeros(2))
