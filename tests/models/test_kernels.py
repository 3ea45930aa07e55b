"""Compiled passes against torch's own operations, with and without a compiler."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import load_tiny, save_tiny
from torch import Tensor, nn

from traitscope.inference import decode, losses
from traitscope.models.kernels import compiled, mounting, passes
from traitscope.models.model import Model

DTYPES = (torch.float32, torch.bfloat16)
needs_compiler = pytest.mark.skipif(
    compiled.library() is None, reason=f"compiled passes: {compiled.described()}"
)


def tolerance(dtype: torch.dtype) -> float:
    return 2e-6 if dtype == torch.float32 else 1e-2


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype)


def assert_close(one: Tensor, other: Tensor, dtype: torch.dtype) -> None:
    scale = other.float().abs().max().item()
    torch.testing.assert_close(
        one.float(), other.float(), atol=tolerance(dtype) * max(scale, 1e-9), rtol=0
    )


def values_and_gradients(function: Callable, *inputs: Tensor) -> list[Tensor]:
    """The value at some inputs, and the gradient of a random weighing of it for each."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = function(*leaves)
    weights = drawn(*value.shape, dtype=value.dtype, seed=9)
    return [value.detach(), *torch.autograd.grad(value, leaves, weights)]


def assert_same_function(
    fused: Callable, plain: Callable, dtype: torch.dtype, *inputs: Tensor
) -> None:
    """The compiled function in `dtype` against torch's in float32."""
    exact = values_and_gradients(plain, *(x.float() for x in inputs))
    for one, other in zip(values_and_gradients(fused, *inputs), exact, strict=True):
        assert one.dtype == dtype
        assert_close(one, other, dtype)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [2, 31, 576])
def test_norm(dtype: torch.dtype, width: int) -> None:
    weight = drawn(width, dtype=dtype, seed=1)
    x = drawn(3, 17, width, dtype=dtype) * 5

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, (width,), weight, 1e-5)

    assert_same_function(lambda x, w: passes.norm(x, w, 1e-5), plain, dtype, x, weight)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_gate(dtype: torch.dtype) -> None:
    gate, up = drawn(40, 129, dtype=dtype) * 20, drawn(40, 129, dtype=dtype, seed=1)
    assert_same_function(passes.gated, lambda g, u: nn.functional.silu(g) * u, dtype, gate, up)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask_rows", [0, 1, 2])
def test_attention(dtype: torch.dtype, mask_rows: int) -> None:
    """Grouped heads, more keys than queries, and a mask that hides later keys, or none."""
    B, H, K, T, S, E = 2, 6, 2, 5, 9, 8
    mask = None
    if mask_rows:
        hidden = torch.ones(mask_rows, 1, T, S, dtype=torch.bool).triu(S - T + 1)
        mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(dtype).min).to(dtype)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        of_mask = None if mask is None else mask.float().expand(B, 1, T, S)
        return nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=of_mask, scale=0.3, enable_gqa=True
        )

    inputs = (
        drawn(B, H, T, E, dtype=dtype),
        drawn(B, K, S, E, dtype=dtype, seed=1),
        drawn(B, K, S, E, dtype=dtype, seed=2),
    )
    assert_same_function(
        lambda q, k, v: passes.attention(q, k, v, mask, 0.3), plain, dtype, *inputs
    )


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_hidden_keys_change_no_bit(dtype: torch.dtype) -> None:
    """A row computes the same to the last bit in a wider batch, whose further keys are hidden."""
    B, H, T, E = 2, 3, 4, 8
    query = drawn(B, H, T, E, dtype=dtype)
    key, value = drawn(B, H, 60, E, dtype=dtype, seed=1), drawn(B, H, 60, E, dtype=dtype, seed=2)
    for seen in (1, 15, 16, 17, 37):
        mask = torch.zeros(1, 1, T, 60, dtype=dtype)
        mask[..., seen:] = torch.finfo(dtype).min
        narrow = passes.attention(
            query, key[:, :, :seen], value[:, :, :seen], mask[..., :seen], 0.3
        )
        wide = passes.attention(query, key, value, mask, 0.3)
        if dtype == torch.float32:
            torch.testing.assert_close(narrow, wide, rtol=0, atol=1e-6)  # the products may differ
        else:
            assert torch.equal(narrow, wide)


@needs_compiler
@pytest.mark.parametrize("lowest", [torch.finfo(torch.float32).min, -1e30])
def test_a_query_without_keys_weighs_all_alike(lowest: float) -> None:
    """As torch does with the masks of padding: no NaN reaches the row's other tokens."""
    mask = torch.full((1, 1, 2, 3), lowest)
    value = drawn(1, 1, 3, 4)
    query, key = drawn(1, 1, 2, 4) * 1e-6, drawn(1, 1, 3, 4, seed=1) * 1e-6
    out = passes.attention(query, key, value, mask, 1.0)
    assert_close(out[0, 0, 0], value[0, 0].mean(0), torch.float32)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_head_gradient_of_weighted_tokens(dtype: torch.dtype) -> None:
    """Several ids a token, of which one stands twice, its second share 0."""
    logits = drawn(4, 301, dtype=dtype) * 6
    ids = torch.tensor([[0, 300, 300], [7, 8, 9], [5, 5, 5], [300, 1, 2]])
    shares = torch.tensor([[0.25, 0.75, 0], [0.2, 0.3, 0.5], [1, 0, 0], [0.1, 0, 0.9]])
    leaf = logits.float().requires_grad_()
    log_p = torch.log_softmax(leaf, -1)
    expected = -(shares * log_p.gather(1, ids)).sum()
    expected.backward()
    loss = passes.head_gradient(logits, ids, shares)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert leaf.grad is not None
    assert_close(logits, leaf.grad, dtype)


@needs_compiler
def test_gradient_of_a_nearly_sure_token_is_not_rounded_away() -> None:
    """p - 1 is taken before it is rounded: in bf16 a p of 0.9995 is 1."""
    logits = torch.zeros(1, 50, dtype=torch.bfloat16)
    logits[0, 3] = 11.5
    passes.head_gradient(logits, torch.tensor([[3]]), torch.ones(1, 1))
    sure = torch.tensor([11.5, *([0.0] * 49)]).softmax(0)[0].item()
    assert logits[0, 3].item() == pytest.approx(sure - 1, rel=0.01)
    assert sure - 1 != 0


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_log_probability(dtype: torch.dtype) -> None:
    logits, targets = drawn(9, 1000, dtype=dtype) * 8, torch.arange(9) * 111
    expected = torch.log_softmax(logits.float(), -1).gather(1, targets.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(passes.log_probability(logits, targets), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 3, 300), (64, 16, 513)])
def test_factor_gradient(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    rows, rank, columns = shape
    thin, wide = drawn(rows, rank, dtype=dtype), drawn(rows, columns, dtype=dtype, seed=1)
    out = passes.factor_gradient(thin, wide, 0.5)
    assert out.dtype == torch.float32
    assert_close(out, 0.5 * thin.float().t() @ wide.float(), dtype)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize(("heads", "S", "E"), [(3, 11, 16), (3, 11, 64), (7, 16, 64), (5, 17, 128)])
def test_attention_of_the_newest_token(
    dtype: torch.dtype, with_mask: bool, heads: int, S: int, E: int
) -> None:
    """Keys and values are views of larger buffers, as in a cache; the mask hides padding.

    Heads of 64 and 128 entries have a pass of their own, for four heads or fewer at once.
    """
    B, K = 3, 2
    H = heads * K
    keys, values = drawn(B, K, 20, E, dtype=dtype), drawn(B, K, 20, E, dtype=dtype, seed=1)
    query, mask = drawn(B, H, 1, E, dtype=dtype, seed=2), None
    if with_mask:
        mask = torch.zeros(B, 1, 1, S, dtype=dtype)
        mask[1, :, :, :4] = torch.finfo(dtype).min
    tensors = (query, keys[:, :, :S], values[:, :, :S])
    assert passes.attends_one(*tensors)
    out = passes.attention_of_one(*tensors, mask, 0.25)
    expected = nn.functional.scaled_dot_product_attention(
        *(x.float() for x in tensors),
        attn_mask=None if mask is None else mask.float(),
        scale=0.25,
        enable_gqa=True,
    )
    assert_close(out, expected, dtype)
    assert not passes.attends_one(query, keys.transpose(2, 3)[..., :E], values[:, :, :S])


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("E", [16, 64])
def test_padding_before_a_row_changes_no_bit_of_attention(dtype: torch.dtype, E: int) -> None:
    keys, values = drawn(1, 2, 70, E, dtype=dtype), drawn(1, 2, 70, E, dtype=dtype, seed=1)
    query = drawn(1, 6, 1, E, dtype=dtype, seed=2)
    for padding in (1, 16, 37):
        mask = torch.zeros(1, 1, 1, 70, dtype=dtype)
        mask[..., :padding] = torch.finfo(dtype).min
        padded = passes.attention_of_one(query, keys, values, mask, 0.25)
        own = (keys[:, :, padding:].contiguous(), values[:, :, padding:].contiguous())
        assert torch.equal(padded, passes.attention_of_one(query, *own, None, 0.25))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding as transformers writes it."""
    first, second = x.chunk(2, -1)
    return x * cos.unsqueeze(1) + torch.cat([-second, first], -1) * sin.unsqueeze(1)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("angle_rows", [1, 3])
@pytest.mark.parametrize(("H", "T", "E"), [(2, 5, 8), (9, 40, 64), (1, 1, 6)])
def test_rotary(dtype: torch.dtype, angle_rows: int, H: int, T: int, E: int) -> None:
    """Queries come as views of the linear map's output; halves need not have equal angles."""
    x = drawn(3, T, H, E, dtype=dtype).transpose(1, 2)
    cos = drawn(angle_rows, T, E, dtype=dtype, seed=1)
    sin = drawn(angle_rows, T, E, dtype=dtype, seed=2)
    assert passes.takes_angles(x, cos, sin)

    def plain(x: Tensor) -> Tensor:
        return turned(x, cos.float(), sin.float())

    assert_same_function(lambda x: passes.rotary(x, cos, sin), plain, dtype, x)
    if dtype == torch.bfloat16:  # every rounding is where transformers has it
        assert torch.equal(passes.rotary(x, cos, sin), turned(x, cos, sin))


def test_angles_of_a_part_of_a_head_are_left_to_transformers() -> None:
    x = drawn(2, 3, 4, 8)
    assert not passes.takes_angles(x, drawn(2, 4, 4), drawn(2, 4, 4))
    assert not passes.takes_angles(x, drawn(3, 4, 8), drawn(3, 4, 8))
    assert not passes.takes_angles(x.transpose(2, 3), drawn(2, 8, 4), drawn(2, 8, 4))


@needs_compiler
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_are_those_of_torch(temperature: float) -> None:
    logits = drawn(400, 1000) * 3
    random = torch.rand(400, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ours = passes.draw(logits, random, temperature)
    agree = ours == decode.choose(logits, random, temperature)
    assert agree.float().mean() > 0.99, "rounding may move a draw to the next token"
    p = (logits / temperature).softmax(-1)
    until = p.double().cumsum(-1).gather(1, ours.unsqueeze(1)).squeeze(1)
    assert (
        (until >= random - 1e-5)
        & (until - p.gather(1, ours.unsqueeze(1)).squeeze(1) <= random + 1e-5)
    ).all()


@needs_compiler
def test_draws_at_the_ends_of_the_unit_interval() -> None:
    """Tokens of no probability are never drawn, and the last token can be."""
    logits = torch.full((2, 700), -torch.inf)
    logits[:, 300], logits[:, 650] = 0.0, 0.0
    random = torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)
    assert passes.draw(logits, random, 1.0).tolist() == [300, 650]


@needs_compiler
def test_nothing_is_read_or_written_beyond_an_end() -> None:
    logits = drawn(2, 10)
    for wrong in (-100, 10):
        log_p = passes.log_probability(logits, torch.tensor([0, wrong]))
        assert log_p.isnan().tolist() == [False, True]
        ids = torch.tensor([[0], [wrong]])
        assert passes.head_gradient(logits.clone(), ids, torch.ones(2, 1)).isnan()
    with pytest.raises(ValueError, match="correct the caller"):
        passes.norm(drawn(2, 8), drawn(7), 1e-5)
    with pytest.raises(ValueError, match="correct the caller"):
        passes.gated(drawn(2, 8), drawn(2, 7))
    with pytest.raises(ValueError, match="correct the caller"):
        passes.factor_gradient(drawn(3, 2), drawn(4, 2))


def test_masks_of_single_heads_are_left_to_torch() -> None:
    query, key = drawn(2, 4, 3, 8), drawn(2, 2, 5, 8)
    assert passes.takes_mask(query, key, None)
    assert passes.takes_mask(query, key, torch.zeros(1, 1, 3, 5))
    assert not passes.takes_mask(query, key, torch.zeros(2, 4, 3, 5))
    assert not passes.takes_mask(query, key, torch.zeros(2, 1, 3, 5, dtype=torch.bool))


@needs_compiler
def test_the_number_of_threads_changes_no_bit() -> None:
    logits, targets = drawn(40, 5000, dtype=torch.bfloat16) * 5, torch.arange(40)
    thin, wide = drawn(90, 8), drawn(90, 700, seed=1)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            own = logits.clone()
            loss = passes.head_gradient(own, targets.unsqueeze(1), torch.ones(40, 1))
            found.append((loss, own, passes.factor_gradient(thin, wide)))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@needs_compiler
def test_not_a_number_stays_one() -> None:
    x = torch.tensor([[1.0, float("nan"), 2.0]], dtype=torch.bfloat16)
    assert passes.norm(x, torch.ones(3, dtype=torch.bfloat16), 1e-5).isnan().all()
    assert passes.gated(x, torch.ones_like(x)).isnan().tolist() == [[False, True, False]]
    assert passes.log_probability(x, torch.tensor([0])).isnan().all()


class Shifted(nn.Module):
    """A norm that looks like the usual one and adds 1 to its weight, as Gemma's does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8), requires_grad=False)
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, (8,), self.weight + 1, self.eps)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_tiny(save_tiny("llama", tmp_path))


@needs_compiler
def test_only_modules_that_compute_the_same_are_taken_over(model: Model) -> None:
    lm = model.lm
    taken = [name for name, module in lm.named_modules() if "forward" in vars(module)]
    assert any(name.endswith("mlp") for name in taken)
    assert any("norm" in name for name in taken)
    other = Shifted()
    mounting.mount(other)
    assert "forward" not in vars(other)


@needs_compiler
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_rotary_is_taken_over_in_the_model_alone(family: str, tmp_path: Path) -> None:
    """Hidden states and gradients stay those of transformers; its module is left as it is."""
    model = load_tiny(save_tiny(family, tmp_path))
    attention = [m for m in model.lm.modules() if hasattr(m, "q_proj")]
    taken = [m for m in attention if "forward" in vars(m)]
    assert taken == attention
    own = sys.modules[type(attention[0]).__module__].apply_rotary_pos_emb
    assert vars(attention[0])["forward"].__func__.__globals__["apply_rotary_pos_emb"] is not own
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    found = []
    for is_taken in (True, False):
        if not is_taken:
            for module in attention:
                del module.forward
        embedded = model.lm.get_input_embeddings()(ids).detach().requires_grad_()
        logits = model.lm(inputs_embeds=embedded).logits
        (grad,) = torch.autograd.grad(logits.float().logsumexp(-1).sum(), embedded)
        found.append((logits.detach(), grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_copy_of_a_module_computes_with_its_own_weight(model: Model) -> None:
    lm = model.lm
    norm = next(m for m in lm.modules() if "forward" in vars(m) and hasattr(m, "variance_epsilon"))
    twin = copy.deepcopy(norm)
    twin.weight.data.mul_(2)
    x = drawn(1, 2, norm.weight.shape[0], dtype=norm.weight.dtype)
    torch.testing.assert_close(twin(x), 2 * norm(x))


@needs_compiler
def test_losses_are_the_same_without_the_library(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = drawn(7, model.d_model, dtype=model.head.weight.dtype)
    targets = torch.arange(7)
    found = []
    for library in (compiled.library(), None):
        monkeypatch.setattr(compiled, "library", lambda kept=library: kept)
        leaf = hidden.clone().requires_grad_()
        loss = losses.cross_entropy(model, leaf, targets)
        loss.backward()
        found.append((loss.detach(), leaf.grad, losses.log_likelihood(model, hidden, targets)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def described_with(**env: str) -> str:
    """What a new process says of the library."""
    code = "from traitscope.models.kernels import compiled; print(compiled.described())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_without_a_compiler_torch_computes(tmp_path: Path) -> None:
    assert "no C++ compiler" in described_with(PATH=str(tmp_path))


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    broken.chmod(0o755)
    said = described_with(PATH=f"{tmp_path}:/bin", TRAITSCOPE_CACHE=str(tmp_path / "cache"))
    assert str(broken) in said and "no such option" in said


def test_the_library_can_be_switched_off() -> None:
    assert described_with(TRAITSCOPE_KERNELS="off") == "switched off by TRAITSCOPE_KERNELS=off"


@needs_compiler
def test_another_value_of_the_switch_is_named() -> None:
    assert "means nothing; write off" in described_with(TRAITSCOPE_KERNELS="banana")


@needs_compiler
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert described_with(TRAITSCOPE_CACHE=str(tmp_path / "file" / "below")).startswith("none: ")
