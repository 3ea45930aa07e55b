"""Every hook of the package, for reading the residual stream and for editing it.

Layer and position are defined here. Layer l is the residual stream *leaving* block l (0-based),
before the final norm. The embedding is no layer.

A position is a set of token roles. Each forward pass sets the role of every token that it processes
(`PassState.roles_BT`), from absolute positions and the attention mask. So an edit acts on the same
tokens with and without a key-value cache, at any batch size and on any padding side. Padding has no
role and is never edited.

Shapes: B batch, T tokens of this forward pass, N tokens at a position, L layers, D d_model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.config.common import check_position
from traitscope.errors import ConfigError, ModelError
from traitscope.interventions.pass_state import CurrentPass
from traitscope.models.model import Model, backbone

PAD, PROMPT, LAST, COMPLETION = 0, 1, 2, 3
"roles of tokens: padding, prompt but not its last token, last prompt token, completion"
ROLES_OF: dict[str, tuple[int, ...]] = {
    "prompt": (PROMPT, LAST),
    "last": (LAST,),
    "completion": (COMPLETION,),
    "all": (PROMPT, LAST, COMPLETION),
}
"the roles of the tokens at each position"
Edit = Callable[[Tensor, Tensor], Tensor]
"(hidden [B, T, D], mask [B, T, 1] of the tokens to edit) -> edited hidden, out of place"


def token_roles(
    prompt_lengths: Sequence[int], total_lengths: Sequence[int], pad_left: Sequence[int], width: int
) -> Tensor:
    """Roles [B, width] of the tokens of padded rows.

    A row holds `pad_left` pads, a prompt, a completion, and pads up to `width`. Its `total_lengths`
    count the tokens of prompt and completion.
    """
    place_BT = torch.arange(width).unsqueeze(0) - torch.tensor(pad_left).unsqueeze(1)
    last_B1 = torch.tensor(prompt_lengths).unsqueeze(1) - 1
    last_or_later_BT = torch.where(place_BT == last_B1, LAST, COMPLETION)
    roles_BT = torch.where(place_BT < last_B1, PROMPT, last_or_later_BT)
    is_token_BT = (place_BT >= 0) & (place_BT < torch.tensor(total_lengths).unsqueeze(1))
    return torch.where(is_token_BT, roles_BT, PAD)


def mask_at(current: CurrentPass, position: str, hidden_BTD: Tensor) -> Tensor:
    """[B, T, 1] bool: which tokens of the running pass stand at `position`.

    Raises ConfigError for a pass that did not set the roles of its tokens.
    """
    roles_BT = None if current.state is None else current.state.roles_BT
    if roles_BT is None or roles_BT.shape != hidden_BTD.shape[:2]:
        described = "none" if roles_BT is None else str(tuple(roles_BT.shape))
        raise ConfigError(
            f"an intervention ran on a pass of shape {tuple(hidden_BTD.shape[:2])} with token"
            f" roles {described}; run the model through traitscope.inference.forward, or set the"
            " roles before calling it"
        )
    mask_BT = torch.zeros_like(roles_BT, dtype=torch.bool)
    for role in ROLES_OF[position]:
        mask_BT |= roles_BT == role
    return mask_BT.unsqueeze(-1)


def _hidden_of(output: Tensor | tuple) -> Tensor:
    """The hidden states in what a block returns."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _registered(hooks: Sequence[tuple[nn.Module, Callable]]) -> Iterator[None]:
    """Register forward hooks on modules, in order, until the context ends."""
    handles = []
    try:
        for module, hook in hooks:
            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def edited(
    blocks: nn.ModuleList, edits: Sequence[tuple[int, str, Edit]], current: CurrentPass
) -> Iterator[None]:
    """Apply edits to the outputs of blocks, in the given order, until the context ends.

    An edit is (layer, position, function). Raises ConfigError for an unknown position.
    """
    hooks = []
    for layer, position, edit in edits:
        check_position(position)
        hooks.append((blocks[layer], _editing(position, edit, current)))
    with _registered(hooks):
        yield


def _editing(position: str, edit: Edit, current: CurrentPass) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        hidden_BTD = _hidden_of(output)
        changed_BTD = edit(hidden_BTD, mask_at(current, position, hidden_BTD))
        return (changed_BTD, *output[1:]) if isinstance(output, tuple) else changed_BTD

    return hook


@contextmanager
def captured(
    blocks: nn.ModuleList, layers: Sequence[int] | None = None
) -> Iterator[dict[int, Tensor]]:
    """A dict that each forward pass fills with the outputs [B, T, D] of blocks, all by default.

    Enter it after `edited` to see the residual stream with the edits in it.
    """
    store: dict[int, Tensor] = {}
    hooks = []
    for layer in range(len(blocks)) if layers is None else layers:
        hooks.append((blocks[layer], _storing(store, layer)))
    with _registered(hooks):
        yield store


def _storing(store: dict[int, Tensor], layer: int) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        store[layer] = _hidden_of(output)

    return hook


@contextmanager
def collected(
    blocks: nn.ModuleList, current: CurrentPass, position: str
) -> Iterator[dict[int, list[Tensor]]]:
    """A dict to which every forward pass adds the outputs [N, D] of its tokens at `position`.

    Its keys are layers. Enter it after `edited` to see the residual stream with the edits in it.
    """
    check_position(position)
    store: dict[int, list[Tensor]] = {}
    hooks = []
    for layer, block in enumerate(blocks):
        store[layer] = []
        hooks.append((block, _adding_to(store[layer], position, current)))
    with _registered(hooks):
        yield store


def _adding_to(residuals: list[Tensor], position: str, current: CurrentPass) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        hidden_BTD = _hidden_of(output)
        mask_BT = mask_at(current, position, hidden_BTD).squeeze(-1)
        residuals.append(hidden_BTD[mask_BT])

    return hook


@contextmanager
def recorded(blocks: nn.ModuleList, layers: Sequence[int]) -> Iterator[dict[int, list]]:
    """A dict to which every forward pass adds what the named blocks return, for `resumed`.

    Enter it where no edits are.
    """
    store: dict[int, list] = {}
    hooks = []
    for layer in sorted(set(layers)):
        store[layer] = []
        hooks.append((blocks[layer], _recording(store[layer])))
    with _registered(hooks):
        yield store


def _recording(outputs: list[Any]) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Any) -> None:
        outputs.append(output)

    return hook


@contextmanager
def resumed(model: Model, layer: int, outputs: Sequence) -> Iterator[None]:
    """Run recorded passes again from block `layer` on, until the context ends.

    Block `layer` returns `outputs`, one for each pass, and the blocks between it and the first are
    not computed. The first block is computed, because a key-value cache takes its length from it.
    This replaces `forward` on the blocks, so it raises ModelError for a model where that has no
    effect or would undo another program's change.
    """
    _check_replaceable(model)
    skipped = model.blocks[1 : layer + 1]
    remaining = iter(outputs)
    try:
        for block in skipped:
            block.forward = _passing_through
        if layer:
            model.blocks[layer].forward = lambda *args, **kwargs: next(remaining)
        yield
    finally:
        for block in skipped:
            del block.forward


def _passing_through(hidden_BTD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_BTD


def _check_replaceable(model: Model) -> None:
    """Raise ModelError for a model whose blocks' `forward` must not be replaced."""
    if model.sharded:
        raise ModelError(
            f"{model.name} is sharded over several devices, so its passes cannot be resumed at a"
            " block; run it in one process"
        )
    for module in (model.lm, backbone(model.lm), *model.blocks):
        if _is_compiled(module):
            raise ModelError(
                f"{model.name} is compiled, so its passes cannot be resumed at a block; load it"
                " without torch.compile"
            )
    for block in model.blocks:
        if "forward" in vars(block):
            raise ModelError(
                f"the blocks of {model.name} have a replaced forward (accelerate does so, and so"
                " does an outer `resumed`), so passes cannot be resumed at a block; load the model"
                " with traitscope"
            )


def _is_compiled(module: nn.Module) -> bool:
    """Whether torch compiles a module, by torch.compile(module) or by module.compile()."""
    wrapped = type(module).__name__ == "OptimizedModule"
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None


@contextmanager
def gradients(
    embedding: nn.Module, blocks: nn.ModuleList, current: CurrentPass, position: str = "all"
) -> Iterator[Mapping[int, Tensor]]:
    """A dict that a backward pass fills with steering gradients [B, D] in float32, by layer.

    The steering gradient of a row is the gradient of the loss with respect to a zero vector added
    at `position` behind block l. That is the activation gradient summed over those tokens. No
    weight needs a gradient, because the graph starts behind the embedding. Rows keep their own
    gradient as long as they share no token.
    """
    check_position(position)
    store: dict[int, Tensor] = {}
    hooks: list[tuple[nn.Module, Callable]] = [(embedding, _starting_graph)]
    for layer, block in enumerate(blocks):
        hooks.append((block, _summing(store, layer, position, current)))
    with _registered(hooks):
        yield store


def _starting_graph(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return output.detach().requires_grad_(True)


def _summing(store: dict[int, Tensor], layer: int, position: str, current: CurrentPass) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        hidden_BTD = _hidden_of(output)
        mask_BT1 = mask_at(current, position, hidden_BTD).to(hidden_BTD.dtype)

        def keep(grad_BTD: Tensor) -> None:
            store[layer] = torch.matmul(mask_BT1.transpose(1, 2), grad_BTD).squeeze(1).float()

        hidden_BTD.register_hook(keep)

    return hook
