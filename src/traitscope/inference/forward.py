"""Forward passes: padded batches, the key-value cache, hidden states, logits of chosen positions.

Every pass of the package goes through `hidden_states`, which tells the hooks the role of each token
first.

Shapes: B batch, T tokens of the pass, S cached + new tokens, N chosen positions, D d_model, V
vocabulary.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from traitscope.errors import ConfigError
from traitscope.interventions import full_weights, hooks, lora, multi_lora
from traitscope.interventions.applied import Active
from traitscope.interventions.partial_lora import TokenSwitch
from traitscope.interventions.pass_state import PassState
from traitscope.models.model import Model, backbone

PASS_TOKENS = 1024, 16384
"padded prompt tokens of one pass, on a CPU and on a GPU"


@dataclass(frozen=True)
class Batch:
    """Rows of token ids side by side."""

    ids_BT: Tensor
    mask_BT: Tensor
    "bool, true at tokens, false at padding"
    roles_BT: Tensor
    "see hooks.py"
    on_BT: Tensor | None = None
    "bool, where an adapter for some tokens acts (TokenSwitch); not needed for completions"
    owners: multi_lora.Owners | None = None
    "of every row, its packed student; not needed where a state knows"

    def to(self, device: torch.device) -> "Batch":
        on_BT = None if self.on_BT is None else sent(self.on_BT, device)
        return Batch(
            sent(self.ids_BT, device),
            sent(self.mask_BT, device),
            sent(self.roles_BT, device),
            on_BT,
            self.owners,
        )


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device, without waiting until a GPU has done what it was asked before."""
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda" and tensor.device.type == "cpu"
        else tensor.to(device)
    )


def batch_of(
    rows: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    pad_id: int,
    left: bool = False,
    width: int | None = None,
    on: Sequence[Sequence[bool]] | None = None,
    owners: multi_lora.Owners | None = None,
) -> Batch:
    """Pad rows to one width, on the right unless `left`; `on` tells by token where an adapter acts,
    `owners` whose a row is."""
    lengths = [len(row) for row in rows]
    width = width or max(lengths)
    before = [width - n if left else 0 for n in lengths]
    ids = torch.full((len(rows), width), pad_id)
    for i, row in enumerate(rows):
        ids[i, before[i] : before[i] + lengths[i]] = torch.tensor(row)
    acts = None if on is None else torch.zeros(ids.shape, dtype=torch.bool)
    for i, row in enumerate(on or ()):
        acts[i, before[i] : before[i] + lengths[i]] = torch.tensor(row)
    totals = [p + n if not left else n for p, n in zip(before, lengths, strict=True)]
    roles = hooks.token_roles(prompt_lengths, totals, before, width)
    return Batch(ids, roles != hooks.PAD, roles, acts, owners)


class _Layer(DynamicLayer):
    """Keys and values of one layer in a buffer that is allocated once; `update` writes and returns
    a view."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            shape = (*key_states.shape[:2], self.capacity, key_states.shape[3])
            self.buffers = key_states.new_empty(shape), key_states.new_empty(shape)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.buffers[0][:, :, start : self.length] = key_states
        self.buffers[1][:, :, start : self.length] = value_states
        self.keys, self.values = (b[:, :, : self.length] for b in self.buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def put(self, other: "_Layer", row: int, rows: int, length: int) -> None:
        """Write what `other` holds so that it ends at `length`, from row `row` of `rows`; what lies
        before is zero."""
        if not self.is_initialized:
            self.lazy_initialization(other.keys, other.values)
            _, heads, _, size = other.keys.shape
            self.buffers = tuple(
                other.keys.new_zeros(rows, heads, self.capacity, size) for _ in range(2)
            )
        for buffer, found in zip(self.buffers, (other.keys, other.values), strict=True):
            buffer[row : row + len(found), :, length - other.length : length] = found
        self.length = length
        self.keys, self.values = (b[:, :, :length] for b in self.buffers)

    def take(self, index: Tensor) -> None:
        """Keep (or repeat) the rows `index`."""
        self.buffers = tuple(b.index_select(0, index) for b in self.buffers)
        self.keys, self.values = (b[:, :, : self.length] for b in self.buffers)


class _Prefix(DynamicLayer):
    """Keys and values of one layer for tokens that all rows share: computed once (once a packed
    student), repeated, with gradients."""

    def __init__(self, repeats: Tensor) -> None:
        super().__init__()
        self.repeats = repeats
        "[B], of every row of the batch, the row of the prefix"

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        return tuple(
            torch.cat([self._repeated(shared), new], dim=2)
            for shared, new in ((self.keys, key_states), (self.values, value_states))
        )

    def _repeated(self, shared: Tensor) -> Tensor:
        return (
            shared.expand(len(self.repeats), -1, -1, -1)
            if len(shared) == 1
            else shared.index_select(0, self.repeats)
        )

    def get_seq_length(self) -> int:
        return self.keys.shape[2] if self.is_initialized else 0


@dataclass
class State:
    """A batch that is being extended: its mask so far and its caches."""

    mask_BS: Tensor
    cache: Cache
    base_cache: Cache | None
    owners: multi_lora.Owners | None = None
    "of every row, its packed student"

    def take(self, index: Tensor) -> None:
        """Keep (or repeat) the rows `index` everywhere."""
        self.mask_BS = self.mask_BS.index_select(0, index)
        if self.owners is not None:
            self.owners = tuple(self.owners[i] for i in index.tolist())
        for cache in (self.cache, self.base_cache):
            for layer in cache.layers if cache is not None else []:
                layer.take(index)

    def put(self, other: "State", row: int, rows: int, length: int) -> None:
        """Take over `other` as the rows from `row` of `rows`, right-aligned so that they end at
        column `length`."""
        if not self.mask_BS.numel():
            self.mask_BS = other.mask_BS.new_zeros(rows, length)
        found = other.mask_BS
        self.mask_BS[row : row + len(found), length - found.shape[1] :] = found
        for mine, its in ((self.cache, other.cache), (self.base_cache, other.base_cache)):
            for layer, source in (
                zip(mine.layers, its.layers, strict=True) if mine is not None else []
            ):
                layer.put(source, row, rows, length)

    def copy(self) -> "State":
        """A state that can be extended without changing this one."""
        return copy.deepcopy(self)


def new_state(model: Model, active: Active, capacity: int) -> State:
    """An empty state for at most `capacity` tokens a row."""
    caches = [
        Cache(layers=[_Layer(capacity) for _ in range(model.n_layers)])
        for _ in range(2 if active.replaced else 1)
    ]
    return State(torch.zeros(0), caches[0], caches[1] if active.replaced else None)


def hidden_states(model: Model, active: Active, batch: Batch, state: State | None = None) -> Tensor:
    """Hidden states after the final norm [B, T, D] of the tokens in `batch`, extending `state`
    where given."""
    mask = batch.mask_BT
    if state is not None and state.owners is not None and batch.owners is None:
        batch = replace(batch, owners=state.owners)
    if state is not None:
        mask = torch.cat([state.mask_BS, mask], dim=1) if state.mask_BS.numel() else mask
        state.mask_BS = mask
    places = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -batch.ids_BT.shape[1] :]
    this_pass = _pass_state(active, batch)
    if active.replaced:
        base_hidden = _base_pass(model, active, this_pass, batch, mask, places, state)
        this_pass = replace(this_pass, base_hidden=base_hidden)
    return _pass(model, active, this_pass, batch, mask, places, state.cache if state else None)


def _pass_state(active: Active, batch: Batch) -> PassState:
    """What hooks and layers must know about a pass over a batch."""
    return PassState(
        batch.roles_BT,
        None if active.switch is None else _acting(active.switch, batch),
        () if active.pack is None else active.pack.row_counts(batch.owners),
    )


def _pass(
    model: Model,
    active: Active,
    this_pass: PassState,
    batch: Batch,
    mask_BS: Tensor,
    places_BT: Tensor,
    cache: Cache | None,
) -> Tensor:
    with active.current.running(this_pass):
        out = backbone(model.lm)(
            input_ids=batch.ids_BT,
            attention_mask=mask_BS,
            position_ids=places_BT,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return out.last_hidden_state


def _acting(switch: TokenSwitch, batch: Batch) -> Tensor:
    """Where the adapters act in a batch: as it says, or on completions in the state of tokens that
    are not chosen."""
    if batch.on_BT is not None:
        return batch.on_BT
    if torch.isin(
        batch.roles_BT, torch.tensor(hooks.ROLES_OF["prompt"], device=batch.roles_BT.device)
    ).any():
        raise ConfigError(
            "an adapter for some tokens met a prompt without knowing which; use forward.prefill or"
            " forward.rows_hidden"
        )
    return torch.full_like(batch.mask_BT, switch.outside)


def _base_pass(
    model: Model,
    active: Active,
    this_pass: PassState,
    batch: Batch,
    mask_BS: Tensor,
    places_BT: Tensor,
    state: State | None,
) -> dict[int, Tensor]:
    """Residuals [B, T, D] of the model without adapters and edits on the same tokens, at the layers
    where ReplaceBase needs them."""
    base_pass = replace(this_pass, is_base=True)
    base_weights = full_weights.swapped(model, active.base_weights)
    cache = state.base_cache if state else None
    with (
        lora.switched_off(model),
        base_weights,
        hooks.captured(model.blocks, active.replaced) as residuals,
    ):
        _pass(model, active, base_pass, batch, mask_BS, places_BT, cache)
    return residuals


def prefill(
    model: Model, active: Active, prompts: Sequence[Sequence[int]], extra: int
) -> tuple[State, Tensor]:
    """State after the prompts with room for `extra` tokens, and the last final hidden state of each
    row [B, D].

    What all prompts begin with (the system turn, usually) is computed once and its cache repeated.
    Not where a sliding window could reach its end: the padding between it and the rest of a row
    would count as distance.
    """
    fits = model.window is None or max(map(len, prompts)) + extra <= model.window
    on = active.switch.at(prompts) if active.switch else None
    owners = active.pack.owners(len(prompts)) if active.pack else None
    shared = shared_length(prompts, on) if fits else 0
    first = new_state(model, active, shared)
    if shared:
        beginning, repeats = _beginning(
            prompts[0][:shared], on and on[0][:shared], len(prompts), owners
        )
        hidden_states(model, active, beginning.to(model.device), first)
    length, last = max(map(len, prompts)), []
    state = new_state(model, active, length + extra)
    state.owners = owners
    for part in _passes([len(p) - shared for p in prompts], model.device):
        picked = prompts[part]
        acts = on and [row[shared:] for row in on[part]]
        whose = owners and owners[part]
        rest = batch_of(
            [p[shared:] for p in picked],
            [len(p) - shared for p in picked],
            model.pad_id,
            left=True,
            on=acts,
            owners=whose,
        )
        small = new_state(model, active, shared + rest.ids_BT.shape[1])
        if shared:
            small.put(first, 0, len(first.mask_BS), shared)
            small.take(sent(repeats[part], model.device))
        last.append(hidden_states(model, active, rest.to(model.device), small)[:, -1])
        state.put(small, part.start, len(prompts), length)
    return state, torch.cat(last)


def _passes(lengths: Sequence[int], device: torch.device) -> Iterator[slice]:
    """Runs of rows whose padded tokens fit in one pass: small ones keep activations in a CPU's
    cache and pad less."""
    limit, start = PASS_TOKENS[device.type == "cuda"], 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or (end + 1 - start) * max(lengths[start : end + 1]) > limit:
            yield slice(start, end)
            start = end


def _beginning(
    ids: Sequence[int], on: Sequence[bool] | None, rows: int, owners: multi_lora.Owners | None
) -> tuple[Batch, Tensor]:
    """What `rows` rows begin with, none of it a last prompt token: one row, or one for each packed
    student; and each row's [B]."""
    whose = None if owners is None else tuple(sorted(set(owners)))
    ids_BT = torch.tensor([list(ids)]).expand(len(whose or (0,)), -1)
    batch = Batch(
        ids_BT,
        torch.ones_like(ids_BT, dtype=torch.bool),
        torch.full_like(ids_BT, hooks.PROMPT),
        None if on is None else torch.tensor([list(on)]),
        whose,
    )
    return batch, torch.tensor([whose.index(owner) for owner in owners] if whose else [0] * rows)


def shared_length(
    prompts: Sequence[Sequence[int]], on: Sequence[Sequence[bool]] | None = None
) -> int:
    """Tokens that all prompts begin with, in the same state of an adapter, leaving each at least
    one; 0 for a single prompt."""
    if len(prompts) < 2:
        return 0
    if on is not None:
        prompts = [list(zip(*pair, strict=True)) for pair in zip(prompts, on, strict=True)]
    first, last = min(prompts), max(prompts)  # in dictionary order: what these two share, all share
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(len(first), len(last)),
    )
    return min(same, min(len(p) for p in prompts) - 1)


def rows_hidden(
    model: Model,
    active: Active,
    rows: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    share: bool = True,
) -> tuple[Tensor, Batch]:
    """Final hidden states [B, T, D] of right-padded rows without the tokens all prompts share, and
    their batch.

    The shared tokens run once for the whole batch, once a packed student, with gradients: the same
    function, a fifth less work on chat rows. Not so with `share` false, where each row is to keep
    its own gradient at them.
    """
    on = active.switch.at(rows) if active.switch else None
    prompts, states = (
        [row[:n] for row, n in zip(part, prompt_lengths, strict=True)] if part else None
        for part in (rows, on)
    )
    if (
        active.replaced or model.sharded
        # FSDP would miss the backward pass of a beginning whose outputs are not used, and processes
        # with
    ):
        share = False  # other rows would make another number of passes
    shared = shared_length(prompts, states) if share else 0
    rest = [n - shared for n in prompt_lengths]
    owners = active.pack.owners(len(rows)) if active.pack else None
    batch = batch_of(
        [r[shared:] for r in rows],
        rest,
        model.pad_id,
        on=on and [r[shared:] for r in on],
        owners=owners,
    ).to(model.device)
    if not shared:
        return hidden_states(model, active, batch), batch
    beginning, repeats = _beginning(rows[0][:shared], on and on[0][:shared], len(rows), owners)
    repeats = sent(repeats, model.device)
    state = State(
        torch.zeros(0), Cache(layers=[_Prefix(repeats) for _ in range(model.n_layers)]), None
    )
    hidden_states(model, active, beginning.to(model.device), state)
    state.mask_BS = state.mask_BS.index_select(0, repeats)
    return hidden_states(model, active, batch, state), batch


def logits_of(model: Model, hidden_ND: Tensor, columns: Tensor | None = None) -> Tensor:
    """float32 logits [N, V] of final hidden states, or of the vocabulary entries `columns` only.

    `hidden_ND` must be two-dimensional and contiguous: a slice [B, C, D] would become a batched
    product that copies the vocabulary matrix.
    """
    hidden_ND = hidden_ND.reshape(-1, hidden_ND.shape[-1]).contiguous()
    weight_VD, bias_V = model.head.weight, model.head.bias
    if columns is not None:
        weight_VD, bias_V = weight_VD[columns], None if bias_V is None else bias_V[columns]
    logits = torch.nn.functional.linear(hidden_ND, weight_VD, bias_V).float()
    return logits if model.softcap is None else model.softcap * torch.tanh(logits / model.softcap)
