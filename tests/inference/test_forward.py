"""Forward passes: the same function of a row whatever stands beside it, cached or not, padded left
or right."""

import pytest
import torch
from tiny_models import eager_lm, random_rows, random_vector, row_logits
from torch import Tensor

from traitscope.inference import decode, forward
from traitscope.interventions import hooks
from traitscope.interventions.applied import Active, applied
from traitscope.interventions.intervention import ReplaceBase, Steer
from traitscope.models.model import Model

POSITIONS = ("prompt", "last", "completion", "all")
PROMPTS, ANSWERS = [4, 1, 7, 4], [3, 5, 1, 4]
CLOSE = {"atol": 5e-5, "rtol": 1e-4}


def rows_of(model: Model, shared: int = 0) -> list[list[int]]:
    """Rows of prompt + completion, of which the first `shared` tokens are the same."""
    rows = random_rows(model, [p + a for p, a in zip(PROMPTS, ANSWERS, strict=True)])
    return [rows[0][:shared] + row[shared:] for row in rows]


def places_of(position: str, prompt: int, total: int) -> slice:
    """The definition, written out."""
    starts = {
        "prompt": (0, prompt),
        "last": (prompt - 1, prompt),
        "completion": (prompt, total),
        "all": (0, total),
    }
    return slice(*starts[position])


def naive_logits(
    lm: torch.nn.Module, block: torch.nn.Module, row: list[int], places: slice, shift_D: Tensor
) -> Tensor:
    """One row, no padding, no cache, transformers' own attention, a bare hook that adds to the
    places."""

    def add(module: torch.nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, places] += shift_D
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = block.register_forward_hook(add)
    with torch.inference_mode():
        logits = lm(torch.tensor([row])).logits[0]
    handle.remove()
    return logits


def cached_logits(model: Model, active: Active, rows: list[list[int]], chunk: int) -> list[Tensor]:
    """Logits from the last prompt token on: prompts as one prefill, completions fed `chunk` tokens
    at a time."""
    prompts = [row[:p] for row, p in zip(rows, PROMPTS, strict=True)]
    answers = [row[p:] for row, p in zip(rows, PROMPTS, strict=True)]
    width = max(ANSWERS)
    ids = torch.tensor([a + [model.pad_id] * (width - len(a)) for a in answers])
    mask = torch.tensor([[i < len(a) for i in range(width)] for a in answers])
    with torch.inference_mode():
        state, hidden_BD = forward.prefill(model, active, prompts, width)
        found = [hidden_BD.unsqueeze(1)]
        for start in range(0, width, chunk):
            part = slice(start, start + chunk)
            found.append(decode.extend(model, active, state, ids[:, part], mask[:, part]))
        hidden = torch.cat(found, 1)
        return [
            forward.logits_of(model, h[: len(a) + 1]) for h, a in zip(hidden, answers, strict=True)
        ]


@pytest.mark.parametrize("position", POSITIONS)
def test_steered_logits_are_a_function_of_the_row_alone(family: Model, position: str) -> None:
    """Batch of one and of many, left and right padding, with and without cache: all equal the naive
    reference."""
    rows, vector = rows_of(family), random_vector(family, norm=4.0)
    lm, shift = eager_lm(family), torch.from_numpy(vector.rows_LD[1])
    block = next(m for n, m in lm.named_modules() if n.endswith((".layers.1", ".h.1")))
    expected = [
        naive_logits(lm, block, row, places_of(position, p, len(row)), shift)
        for row, p in zip(rows, PROMPTS, strict=True)
    ]
    with applied(family, []) as active:
        plain = row_logits(family, active, rows, PROMPTS)
    with applied(family, [Steer(vector, (1,), 1.0, position, "raw")]) as active:
        right = row_logits(family, active, rows, PROMPTS)
        left = row_logits(family, active, rows, PROMPTS, left=True)
        alone = [
            row_logits(family, active, [row], [p])[0] for row, p in zip(rows, PROMPTS, strict=True)
        ]
        cached = {chunk: cached_logits(family, active, rows, chunk) for chunk in (1, 3)}
    for i, (row, p) in enumerate(zip(rows, PROMPTS, strict=True)):
        inside = places_of(position, p, len(row))
        assert (expected[i] - plain[i])[inside].abs().max() > 0.1
        for found in (right, left, alone):
            torch.testing.assert_close(found[i], expected[i], **CLOSE)
        for found in cached.values():
            torch.testing.assert_close(found[i], expected[i][p - 1 :], **CLOSE)


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("limit", [1, 9, 14])
def test_prefill_in_several_passes(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, limit: int, replaced: bool, shared: int
) -> None:
    edits = [Steer(random_vector(tiny), (1,), 3.0, "all")]
    edits += [ReplaceBase(random_vector(tiny, seed=1), (1,), "all")] if replaced else []
    rows, found = rows_of(tiny, shared), []
    for tokens in (1000, limit):
        monkeypatch.setattr(forward, "PASS_TOKENS", {"cpu": tokens})
        with applied(tiny, edits) as active:
            found.append(cached_logits(tiny, active, rows, 2))
    for one, several in zip(*found, strict=True):
        torch.testing.assert_close(several, one, **CLOSE)


@pytest.mark.parametrize(
    ("lengths", "limit", "expected"),
    [
        ([4], 1, [(0, 1)]),
        ([1, 2, 3], 6, [(0, 2), (2, 3)]),
        ([3, 3, 3], 6, [(0, 2), (2, 3)]),
        ([1, 1, 9], 3, [(0, 2), (2, 3)]),
    ],
)
def test_rows_of_a_pass(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], limit: int, expected: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(forward, "PASS_TOKENS", {"cpu": limit})
    slices = forward.row_slices(lengths, torch.device("cpu"))
    assert [(part.start, part.stop) for part in slices] == expected


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_prompts_that_share_a_beginning(families: dict[str, Model], name: str) -> None:
    """The shared tokens run once; nothing else changes, also under a sliding window of 4 and
    steering."""
    model = families[name]
    rows = [
        row if i != 1 else row[:1] + rows_of(model)[1]
        for i, row in enumerate(rows_of(model, shared=3))
    ]
    rows = [[9, 8, 7, 6, 5] + row for row in rows]
    prompts = [p + 5 for p in PROMPTS]
    with applied(model, [Steer(random_vector(model), (0,), 1.0, "all", "unit")]) as active:
        expected = row_logits(model, active, rows, prompts)
        with torch.inference_mode():
            _, last_BD = forward.prefill(
                model, active, [r[:p] for r, p in zip(rows, prompts, strict=True)], 0
            )
            hidden, batch = forward.rows_hidden(model, active, rows, prompts)
    assert batch.ids_BT.shape[1] < max(map(len, rows))
    for i, (row, p) in enumerate(zip(rows, prompts, strict=True)):
        torch.testing.assert_close(
            forward.logits_of(model, last_BD[i : i + 1])[0], expected[i][p - 1], **CLOSE
        )
        kept = int(batch.mask_BT[i].sum())
        torch.testing.assert_close(
            forward.logits_of(model, hidden[i, :kept]), expected[i][len(row) - kept :], **CLOSE
        )


def test_shared_tokens_carry_their_gradients(tiny: Model) -> None:
    """Gradient of a loss with respect to a weight: the shared prefix run once against rows run
    whole."""
    rows = [[9, 8, 7, *row] for row in random_rows(tiny, [5, 4, 5])]
    weight = tiny.blocks[0].self_attn.v_proj.weight
    found = []
    try:
        weight.requires_grad_(True)
        with applied(tiny, []) as active:
            for whole in (False, True):
                if whole:
                    batch = forward.batch_of(rows, [4] * 3, tiny.pad_id)
                    hidden = forward.hidden_states(tiny, active, batch)[:, 3:]
                else:
                    hidden, batch = forward.rows_hidden(tiny, active, rows, [4] * 3)
                hidden[batch.mask_BT[:, -hidden.shape[1] :]].square().sum().backward()
                found.append(weight.grad.clone())
                weight.grad = None
    finally:
        weight.requires_grad_(False)
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_padding_is_never_touched(tiny: Model) -> None:
    rows = rows_of(tiny)
    batch = forward.batch_of(rows, PROMPTS, tiny.pad_id)
    with torch.inference_mode():
        with applied(tiny, []) as active, hooks.captured(tiny.blocks) as clean:
            forward.hidden_states(tiny, active, batch)
        steer = Steer(random_vector(tiny), (0,), 9.0, "all", "unit")
        with applied(tiny, [steer]) as active, hooks.captured(tiny.blocks) as steered:
            forward.hidden_states(tiny, active, batch)
    pads = ~batch.mask_BT
    assert pads.any() and torch.equal(steered[0][pads], clean[0][pads])
    moved = (steered[0] - clean[0])[batch.mask_BT].norm(dim=-1)
    torch.testing.assert_close(moved, torch.full_like(moved, 9.0), atol=1e-4, rtol=1e-4)


def test_what_stands_in_padding_does_not_matter(family: Model) -> None:
    rows = rows_of(family)
    found = []
    for pad_id in (0, 17):
        batch = forward.batch_of(rows, PROMPTS, pad_id, left=True)
        with torch.inference_mode(), applied(family, []) as active:
            found.append(forward.hidden_states(family, active, batch)[batch.mask_BT])
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)


def test_state_take_and_copy(tiny: Model) -> None:
    """Rows dropped, repeated or copied go on as if they had been alone; the copied state is
    unchanged."""
    prompts = [[5, 6, 7], [9, 8], [4, 4, 4, 4]]
    vector = random_vector(tiny)
    with (
        torch.inference_mode(),
        applied(
            tiny, [Steer(vector, (1,), 2.0, scale="unit"), ReplaceBase(vector, (2,))]
        ) as active,
    ):
        alone = []
        for prompt in (prompts[2], prompts[0], prompts[0]):
            state, _ = forward.prefill(tiny, active, [prompt], 2)
            alone.append(decode.extend(tiny, active, state, torch.tensor([[11]]))[0, -1])
        state, _ = forward.prefill(tiny, active, prompts, 2)
        copied = state.copy()
        state.take(torch.tensor([2, 0, 0]))
        found = decode.extend(tiny, active, state, torch.tensor([[11]] * 3))[:, -1]
        torch.testing.assert_close(found, torch.stack(alone), **CLOSE)
        copied.take(torch.tensor([0]))
        again = decode.extend(tiny, active, copied, torch.tensor([[11]]))[:, -1]
        torch.testing.assert_close(again[0], alone[1], **CLOSE)


def test_batch_of() -> None:
    right = forward.batch_of([[5, 6, 7], [8]], [2, 1], 0)
    assert right.ids_BT.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert right.roles_BT.tolist() == [
        [hooks.PROMPT, hooks.LAST, hooks.COMPLETION],
        [hooks.LAST, hooks.PAD, hooks.PAD],
    ]
    left = forward.batch_of([[5, 6, 7], [8]], [2, 1], 0, left=True, width=4)
    assert left.ids_BT.tolist() == [[0, 5, 6, 7], [0, 0, 0, 8]]
    assert left.mask_BT.tolist() == [[False, True, True, True], [False, False, False, True]]
    assert left.roles_BT[0].tolist() == [hooks.PAD, hooks.PROMPT, hooks.LAST, hooks.COMPLETION]


@pytest.mark.parametrize(
    "prompts, expected",
    [
        ([[1, 2, 3]], 0),
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2], [1, 2]], 1),
        ([[1, 2, 3, 4], [1, 2, 3]], 2),
        ([[1], [1, 2]], 0),
        ([[3, 2], [1, 2]], 0),
        ([[1, 5, 2], [1, 5, 3], [1, 4, 3]], 1),
    ],
)
def test_shared_length(prompts: list[list[int]], expected: int) -> None:
    assert forward.shared_length(prompts) == expected


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gemma2"])
def test_logits_of_equal_the_models_own(families: dict[str, Model], name: str) -> None:
    model = families[name]
    ids = torch.tensor(random_rows(model, [6]))
    with torch.inference_mode():
        expected = model.lm(ids).logits[0]
        with applied(model, []) as active:
            hidden = forward.hidden_states(model, active, forward.batch_of(ids.tolist(), [6], 0))
        columns = torch.tensor([7, 3, 400])
        torch.testing.assert_close(forward.logits_of(model, hidden[0]), expected, **CLOSE)
        torch.testing.assert_close(
            forward.logits_of(model, hidden[0], columns), expected[:, columns], **CLOSE
        )


def test_logits_are_float32_with_the_heads_bias(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = torch.nn.Linear(tiny.d_model, 11, dtype=torch.bfloat16)
    monkeypatch.setattr(type(tiny), "head", head)
    hidden = torch.randn(3, tiny.d_model, dtype=torch.bfloat16)
    assert torch.equal(forward.logits_of(tiny, hidden), head(hidden).float())
    torch.testing.assert_close(
        forward.logits_of(tiny, hidden, torch.tensor([4, 2])), head(hidden).float()[:, [4, 2]]
    )
