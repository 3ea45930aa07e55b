"""Hooks: what layer l and a position mean, checked against bare torch hooks and against
transformers."""

from dataclasses import replace

import pytest
import torch
from tiny_models import eager_lm, hooks_left, random_rows
from torch import Tensor

from traitscope.errors import ConfigError, ModelError
from traitscope.inference import forward
from traitscope.interventions import hooks
from traitscope.interventions.applied import applied
from traitscope.interventions.pass_state import CurrentPass, PassState
from traitscope.models.model import Model

PAD, PROMPT, LAST, COMPLETION = hooks.PAD, hooks.PROMPT, hooks.LAST, hooks.COMPLETION


def plus_one(hidden_BTD: Tensor, mask_BT1: Tensor) -> Tensor:
    return hidden_BTD + mask_BT1


def run(model: Model, lengths: tuple[int, ...] = (6, 4)) -> tuple[Tensor, forward.Batch]:
    batch = forward.batch_of(random_rows(model, list(lengths)), [3] * len(lengths), model.pad_id)
    with torch.inference_mode(), applied(model, []) as active:
        return forward.hidden_states(model, active, batch), batch


def test_captured_is_what_bare_hooks_see_and_what_transformers_reports(family: Model) -> None:
    bare: dict[int, Tensor] = {}

    def hook(layer: int):
        def keep(module: torch.nn.Module, args: tuple, output: Tensor | tuple) -> None:
            bare[layer] = (output[0] if isinstance(output, tuple) else output).clone()

        return keep

    handles = [
        block.register_forward_hook(hook(layer)) for layer, block in enumerate(family.blocks)
    ]
    with hooks.captured(family.blocks) as store:
        final, batch = run(family)
    for handle in handles:
        handle.remove()
    with torch.inference_mode():
        out = eager_lm(family)(
            batch.ids_BT, attention_mask=batch.mask_BT.long(), output_hidden_states=True
        )
    assert (
        sorted(store) == list(range(family.n_layers))
        and len(out.hidden_states) == family.n_layers + 1
    )
    real = batch.mask_BT
    for layer in range(family.n_layers):
        assert torch.equal(store[layer], bare[layer])
        if layer < family.n_layers - 1:
            torch.testing.assert_close(
                store[layer][real], out.hidden_states[layer + 1][real], atol=1e-5, rtol=1e-5
            )
    last = family.n_layers - 1
    assert (store[last] - out.hidden_states[-1])[
        real
    ].abs().max() > 0.1  # transformers' last one is after the final norm
    torch.testing.assert_close(final[real], out.hidden_states[-1][real], atol=1e-5, rtol=1e-5)
    assert (store[0] - out.hidden_states[0])[real].abs().max() > 0.1  # no embedding row


def test_captured_layers_only(tiny: Model) -> None:
    with hooks.captured(tiny.blocks, [2, 0]) as store:
        run(tiny)
    assert sorted(store) == [0, 2]


def test_capture_sees_the_edits_entered_before_it(tiny: Model) -> None:
    with hooks.captured(tiny.blocks) as clean:
        _, batch = run(tiny)
    current = CurrentPass(PassState(batch.roles_BT))
    with (
        hooks.edited(tiny.blocks, [(1, "completion", plus_one)], current),
        hooks.captured(tiny.blocks) as store,
    ):
        tiny.lm(batch.ids_BT, attention_mask=batch.mask_BT.long())
    completion = batch.roles_BT == COMPLETION
    torch.testing.assert_close(store[0], clean[0].clone(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(store[1][completion], clean[1][completion] + 1, atol=1e-5, rtol=1e-5)
    others = batch.mask_BT & ~completion
    torch.testing.assert_close(store[1][others], clean[1][others].clone(), atol=1e-5, rtol=1e-5)


def test_edits_are_out_of_place(family: Model) -> None:
    """What the block itself returned is not changed: a hook that ran before still holds the clean
    tensor."""
    held: list[tuple[Tensor, Tensor]] = []

    def keep(module: torch.nn.Module, args: tuple, output: Tensor | tuple) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        held.append((tensor, tensor.clone()))

    _, batch = run(family)
    first = family.blocks[0].register_forward_hook(keep)
    with (
        torch.inference_mode(),
        hooks.edited(family.blocks, [(0, "all", plus_one)], CurrentPass(PassState(batch.roles_BT))),
    ):
        family.lm(batch.ids_BT, attention_mask=batch.mask_BT.long())
    first.remove()
    ((tensor, copy),) = held
    assert torch.equal(tensor, copy)


def test_edits_run_in_the_given_order(tiny: Model) -> None:
    _, batch = run(tiny)
    double = (0, "all", lambda h, m: torch.where(m, 2 * h, h))
    add = (0, "all", plus_one)
    seen = []
    for edits in ([double, add], [add, double]):
        current = CurrentPass(PassState(batch.roles_BT))
        with (
            torch.inference_mode(),
            hooks.edited(tiny.blocks, edits, current),
            hooks.captured(tiny.blocks, [0]) as store,
        ):
            tiny.lm(batch.ids_BT, attention_mask=batch.mask_BT.long())
        seen.append(store[0][batch.mask_BT])
    torch.testing.assert_close(seen[0] + 1, seen[1])


@pytest.mark.parametrize("where", ["in the block", "in an edit", "while registering"])
def test_hooks_are_gone_after_an_exception(family: Model, where: str) -> None:
    def failing(hidden: Tensor, mask: Tensor) -> Tensor:
        raise KeyError("planned")

    assert hooks_left(family) == 0
    _, batch = run(family)
    edits = [(0, "all", plus_one), (0, "all", failing if where == "in an edit" else plus_one)]
    edits += [(99, "all", plus_one)] if where == "while registering" else []
    edited = hooks.edited(family.blocks, edits, CurrentPass(PassState(batch.roles_BT)))
    with pytest.raises((KeyError, IndexError)), hooks.captured(family.blocks), edited:
        assert hooks_left(family) == family.n_layers + 2
        family.lm(batch.ids_BT)
        raise KeyError("planned")
    assert hooks_left(family) == 0


@pytest.mark.parametrize("roles", [None, torch.ones(2, 5, dtype=torch.long)])
def test_a_hooked_model_without_roles_refuses_to_run(family: Model, roles: Tensor | None) -> None:
    message = r"pass of shape \(1, 3\) with token roles (none|\(2, 5\))"
    current = CurrentPass(None if roles is None else PassState(roles))
    edited = hooks.edited(family.blocks, [(0, "all", plus_one)], current)
    with edited, pytest.raises(ConfigError, match=message):
        family.lm(torch.tensor([[5, 6, 7]]))


def test_roles_do_not_outlive_a_pass_that_failed(tiny: Model) -> None:
    batch = forward.batch_of([[5, 6, 7]], [2], tiny.pad_id)

    def failing(hidden: Tensor, mask: Tensor) -> Tensor:
        raise KeyError("planned")

    with applied(tiny, []) as active:
        with (
            hooks.edited(tiny.blocks, [(0, "all", failing)], active.current),
            pytest.raises(KeyError),
        ):
            forward.hidden_states(tiny, active, batch)
        assert active.current.state is None


def test_token_roles() -> None:
    found = hooks.token_roles([3, 1, 2], [5, 3, 2], [0, 2, 3], 5)
    expected = [
        [PROMPT, PROMPT, LAST, COMPLETION, COMPLETION],
        [PAD, PAD, LAST, COMPLETION, COMPLETION],
        [PAD, PAD, PAD, PROMPT, LAST],
    ]
    assert found.tolist() == expected


def test_positions_partition_the_tokens() -> None:
    current = CurrentPass(PassState(torch.tensor([[PAD, PROMPT, LAST, COMPLETION]])))
    hidden = torch.zeros(1, 4, 2)
    masks = {
        p: hooks.mask_at(current, p, hidden).squeeze(-1)[0].tolist()
        for p in ("prompt", "last", "completion", "all")
    }
    assert masks["prompt"] == [False, True, True, False]
    assert masks["last"] == [False, False, True, False]
    assert masks["completion"] == [False, False, False, True]
    assert masks["all"] == [False, True, True, True]


def test_unknown_position(tiny: Model) -> None:
    with pytest.raises(
        ConfigError, match="'first' is unknown; expected one of prompt, last, completion, all"
    ):
        hooks.check_position("first")
    with (
        pytest.raises(ConfigError),
        hooks.edited(tiny.blocks, [(0, "all", plus_one), (0, "x", plus_one)], CurrentPass()),
    ):
        pass
    assert hooks_left(tiny) == 0


def test_resumed_passes_equal_whole_ones(family: Model) -> None:
    """From every block on, the final states of a pass are those of the whole pass."""
    expected, _ = run(family)
    with hooks.recorded(family.blocks, range(family.n_layers)) as outputs:
        run(family)
    for layer in range(family.n_layers):
        with hooks.resumed(family, layer, outputs[layer]):
            resumed, _ = run(family)
        assert torch.equal(resumed, expected)
    assert not any("forward" in vars(block) for block in family.blocks)


def test_a_compiled_model_is_not_resumed(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tiny.blocks[1], tiny.lm):
        monkeypatch.setattr(module, "_compiled_call_impl", lambda *args: None)
        with pytest.raises(ModelError, match="is compiled"), hooks.resumed(tiny, 1, []):
            pass
        monkeypatch.undo()
    wrapper = type("OptimizedModule", (torch.nn.Module,), {})()
    wrapper.base_model = tiny.lm.base_model
    model = replace(tiny, lm=wrapper)
    with pytest.raises(ModelError, match="load it without torch.compile"):
        hooks.resumed(model, 1, []).__enter__()


def test_a_sharded_model_is_not_resumed(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "sharded", True)
    with pytest.raises(ModelError, match="is sharded"), hooks.resumed(tiny, 1, []):
        pass


def test_a_replaced_forward_is_kept(tiny: Model) -> None:
    """Resuming would take away what another program, or an outer `resumed`, put there."""
    with hooks.resumed(tiny, 2, []):
        mine = tiny.blocks[2].forward
        with pytest.raises(ModelError, match="have a replaced forward"):
            hooks.resumed(tiny, 1, []).__enter__()
        assert tiny.blocks[2].forward is mine
