"""Every hook of the package: reading the residual stream and editing it. The one definition of
layer and position.

Layer l is the residual stream *leaving* block l (0-based), before the final norm. There is no
embedding row.

A position is a set of token roles. Each forward pass is told the role of every token it processes
(`Roles`), from absolute positions and the attention mask, so an edit acts on the same tokens with
and without a key-value cache, at any batch size and padding side. Padding has no role and is never
touched.

Shapes: B batch, T tokens of this forward pass, L layers, D d_model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from traitscope.errors import ConfigError

PAD, PROMPT, LAST, COMPLETION = 0, 1, 2, 3
Position = Literal["prompt", "last", "completion", "all"]
ROLES_OF: dict[str, tuple[int, ...]] = {
    "prompt": (PROMPT, LAST),
    "last": (LAST,),
    "completion": (COMPLETION,),
    "all": (PROMPT, LAST, COMPLETION),
}
Edit = Callable[[Tensor, Tensor], Tensor]
"(hidden [B, T, D], mask [B, T, 1] of the tokens to edit) -> edited hidden, out of place"


@dataclass
class Roles:
    """The roles of the tokens in the forward pass that is running; set before each pass, read by
    the hooks."""

    current_BT: Tensor | None = field(default=None)

    def mask(self, position: str, hidden_BTD: Tensor) -> Tensor:
        """[B, T, 1] bool: which tokens of this pass stand at `position`."""
        roles = self.current_BT
        if roles is None or roles.shape != hidden_BTD.shape[:2]:
            found = "none" if roles is None else str(tuple(roles.shape))
            raise ConfigError(
                f"an intervention ran on a pass of shape {tuple(hidden_BTD.shape[:2])} with token"
                f" roles {found}; run the model through"
                " traitscope.inference.forward, or set the roles before calling it"
            )
        return torch.stack([roles == role for role in ROLES_OF[position]]).any(0).unsqueeze(-1)


def check_position(position: str) -> None:
    """Raise ConfigError for a position that is none of prompt, last, completion, all."""
    if position not in get_args(Position):
        raise ConfigError(
            f"position {position!r} is unknown; expected one of {', '.join(get_args(Position))}"
        )


def token_roles(
    prompt_lengths: Sequence[int], total_lengths: Sequence[int], pad_left: Sequence[int], width: int
) -> Tensor:
    """Roles [B, width] of rows that hold `pad_left` pads, a prompt, a completion, and pads up to
    `width`."""
    place_BT = torch.arange(width).unsqueeze(0) - torch.tensor(pad_left).unsqueeze(1)
    prompt_B1 = torch.tensor(prompt_lengths).unsqueeze(1)
    roles = torch.where(
        place_BT < prompt_B1 - 1, PROMPT, torch.where(place_BT == prompt_B1 - 1, LAST, COMPLETION)
    )
    inside = (place_BT >= 0) & (place_BT < torch.tensor(total_lengths).unsqueeze(1))
    return torch.where(inside, roles, PAD)


@contextmanager
def edited(
    blocks: nn.ModuleList, edits: Sequence[tuple[int, str, Edit]], roles: Roles
) -> Iterator[None]:
    """Apply (layer, position, edit) to the blocks' outputs, in the given order, until the context
    ends, however it ends."""
    handles = []
    try:
        for layer, position, edit in edits:
            check_position(position)
            handles.append(blocks[layer].register_forward_hook(_editing(position, edit, roles)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _editing(position: str, edit: Edit, roles: Roles) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        hidden = output[0] if isinstance(output, tuple) else output
        changed = edit(hidden, roles.mask(position, hidden))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


@contextmanager
def captured(
    blocks: nn.ModuleList, layers: Sequence[int] | None = None
) -> Iterator[dict[int, Tensor]]:
    """A dict that each forward pass fills with the outputs [B, T, D] of the named blocks (all by
    default).

    Enter it after `edited` to see the residual stream with the edits in it.
    """
    store: dict[int, Tensor] = {}
    handles = []
    try:
        for layer in range(len(blocks)) if layers is None else layers:
            handles.append(blocks[layer].register_forward_hook(_storing(store, layer)))
        yield store
    finally:
        for handle in handles:
            handle.remove()


def _storing(store: dict[int, Tensor], layer: int) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        store[layer] = output[0] if isinstance(output, tuple) else output

    return hook


@contextmanager
def recorded(blocks: nn.ModuleList, layers: Sequence[int]) -> Iterator[dict[int, list]]:
    """A dict to which every forward pass adds what the named blocks return, for `resumed`; enter it
    where no edits are."""
    store: dict[int, list] = {layer: [] for layer in layers}
    handles = [
        blocks[layer].register_forward_hook(
            lambda module, args, output, layer=layer: store[layer].append(output)
        )
        for layer in store
    ]
    try:
        yield store
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def resumed(blocks: nn.ModuleList, layer: int, outputs: Sequence) -> Iterator[None]:
    """The same passes again from block `layer` on: it returns `outputs`, one a pass, and the blocks
    between it and the first are not computed. The first is, for a cache tells its length by it."""
    rest = iter(outputs)
    changed = blocks[1 : layer + 1] if layer else blocks[:0]
    try:
        for block in changed:
            block.forward = lambda hidden_BTD, *args, **kwargs: hidden_BTD
        if layer:
            blocks[layer].forward = lambda *args, **kwargs: next(rest)
        yield
    finally:
        for block in changed:
            del block.forward


@contextmanager
def collected(
    blocks: nn.ModuleList, roles: Roles, position: str
) -> Iterator[dict[int, list[Tensor]]]:
    """A dict to which every forward pass adds, by layer, the outputs [N, D] of its tokens at
    `position`.

    Enter it after `edited` to see the residual stream with the edits in it.
    """
    check_position(position)
    store: dict[int, list[Tensor]] = {layer: [] for layer in range(len(blocks))}
    handles = []
    try:
        for layer, block in enumerate(blocks):
            handles.append(block.register_forward_hook(_adding_to(store[layer], position, roles)))
        yield store
    finally:
        for handle in handles:
            handle.remove()


def _adding_to(found: list[Tensor], position: str, roles: Roles) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        found.append(hidden[roles.mask(position, hidden).squeeze(-1)])

    return hook


@contextmanager
def gradients(
    embedding: nn.Module, blocks: nn.ModuleList, roles: Roles, position: str = "all"
) -> Iterator[dict[int, Tensor]]:
    """A dict that a backward pass fills with steering gradients [B, D] in float32, by layer.

    The steering gradient of a row is the gradient of the loss with respect to a zero vector added
    at `position` behind block l: the activation gradient summed over those tokens. No weight needs
    a gradient; the graph starts behind the embedding. Rows keep their own gradient as long as they
    share no token.
    """
    check_position(position)
    store: dict[int, Tensor] = {}
    handles = [
        embedding.register_forward_hook(
            lambda module, args, output: output.detach().requires_grad_(True)
        )
    ]
    try:
        for layer, block in enumerate(blocks):
            handles.append(block.register_forward_hook(_summing(store, layer, position, roles)))
        yield store
    finally:
        for handle in handles:
            handle.remove()


def _summing(store: dict[int, Tensor], layer: int, position: str, roles: Roles) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        mask_BT1 = roles.mask(position, hidden).to(hidden.dtype)

        def keep(grad_BTD: Tensor) -> None:
            store[layer] = torch.matmul(mask_BT1.transpose(1, 2), grad_BTD).squeeze(1).float()

        hidden.register_hook(keep)

    return hook
