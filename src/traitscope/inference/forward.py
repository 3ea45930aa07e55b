"""Forward passes: padded batches, hidden states, and logits of chosen positions.

Every pass of the package goes through `hidden_states`. It says first what hooks and layers must
know of the pass, such as the role of each token (pass_state.py).

Shapes: B rows, T tokens of the pass, S cached + new tokens, N chosen positions, D d_model, V
vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from traitscope.errors import ConfigError
from traitscope.inference import kv_cache
from traitscope.inference.kv_cache import BatchState
from traitscope.interventions import full_weights, hooks, lora, multi_lora
from traitscope.interventions.applied import Active
from traitscope.interventions.partial_lora import TokenSwitch
from traitscope.interventions.pass_state import PassState
from traitscope.models.kernels import packing
from traitscope.models.model import Model, backbone

PASS_TOKENS = {"cpu": 1024, "cuda": 16384}
"padded prompt tokens of one pass"

TokenIds = Sequence[int]


@dataclass(frozen=True)
class Batch:
    """Rows of token ids side by side, padded to one width."""

    ids_BT: Tensor
    mask_BT: Tensor
    "bool, true at tokens, false at padding"
    roles_BT: Tensor
    "the role of every token, see hooks.py"
    on_BT: Tensor | None = None
    "bool, where an adapter for some tokens acts (TokenSwitch); not needed for completions"
    owners: multi_lora.Owners | None = None
    "the packed student of every row; not needed where a state has it"

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return replace(
            self,
            ids_BT=sent(self.ids_BT, device),
            mask_BT=sent(self.mask_BT, device),
            roles_BT=sent(self.roles_BT, device),
            on_BT=None if self.on_BT is None else sent(self.on_BT, device),
        )


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; a GPU is not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def batch_of(
    rows: Sequence[TokenIds],
    prompt_lengths: Sequence[int],
    pad_id: int,
    left: bool = False,
    width: int | None = None,
    on: Sequence[Sequence[bool]] | None = None,
    owners: multi_lora.Owners | None = None,
) -> Batch:
    """Rows padded to one width: on the right, or on the left.

    on: for every token, whether an adapter for some tokens acts.
    owners: the packed student of every row.
    """
    lengths = list(map(len, rows))
    width = width or max(lengths)
    starts = [width - length if left else 0 for length in lengths]
    ids_BT = _padded(rows, starts, torch.full((len(rows), width), pad_id))
    roles_BT = hooks.token_roles(prompt_lengths, lengths, starts, width)
    on_BT = None
    if on is not None:
        on_BT = _padded(on, starts, torch.zeros(ids_BT.shape, dtype=torch.bool))
    return Batch(ids_BT, roles_BT != hooks.PAD, roles_BT, on_BT, owners)


def _padded(rows: Sequence[Sequence[int]], starts: Sequence[int], padding_BT: Tensor) -> Tensor:
    """The padding with the rows written into it, each from its start on."""
    for b, row in enumerate(rows):
        padding_BT[b, starts[b] : starts[b] + len(row)] = torch.tensor(row)
    return padding_BT


def new_state(model: Model, active: Active, capacity: int) -> BatchState:
    """An empty state for at most `capacity` tokens a row."""
    return kv_cache.new_state(model.n_layers, capacity, with_base=bool(active.replaced))


def hidden_states(
    model: Model, active: Active, batch: Batch, state: BatchState | None = None
) -> Tensor:
    """Hidden states after the final norm [B, T, D] of the tokens in `batch`.

    Where a state is given, the batch continues it, and the state is extended.
    """
    mask_BS = batch.mask_BT
    cache = base_cache = None
    if state is not None:
        if state.mask_BS.numel():
            mask_BS = torch.cat([state.mask_BS, mask_BS], dim=1)
        state.mask_BS = mask_BS
        cache, base_cache = state.cache, state.base_cache
        if batch.owners is None:
            batch = replace(batch, owners=state.owners)
    positions_BS = (mask_BS.long().cumsum(1) - 1).clamp(min=0)
    positions_BT = positions_BS[:, -batch.ids_BT.shape[1] :]
    pass_state = _pass_state(active, batch)
    if active.replaced:
        base_state = replace(pass_state, is_base=True)
        with (
            lora.switched_off(model),
            full_weights.swapped(model, active.base_weights),
            hooks.captured(model.blocks, active.replaced) as base_residuals,
        ):
            _run(model, active, base_state, batch, mask_BS, positions_BT, base_cache)
        pass_state = replace(pass_state, base_hidden=base_residuals)
    return _run(model, active, pass_state, batch, mask_BS, positions_BT, cache)


def _pass_state(active: Active, batch: Batch) -> PassState:
    """What hooks and layers must know about a pass over a batch."""
    adapter_on_BT = None
    if active.switch is not None:
        adapter_on_BT = _adapter_on(active.switch, batch)
    student_rows: tuple[int, ...] = ()
    if active.pack is not None:
        student_rows = active.pack.row_counts(batch.owners)
    return PassState(batch.roles_BT, adapter_on_BT, student_rows)


def _adapter_on(switch: TokenSwitch, batch: Batch) -> Tensor:
    """Where an adapter for some tokens acts [B, T].

    A batch of completion tokens need not say so: they are in the state of tokens that are not
    chosen. Raises ConfigError for a prompt that does not say so.
    """
    if batch.on_BT is not None:
        return batch.on_BT
    prompt_roles = torch.tensor(hooks.ROLES_OF["prompt"], device=batch.roles_BT.device)
    if torch.isin(batch.roles_BT, prompt_roles).any():
        raise ConfigError(
            "an adapter for some tokens met a prompt without knowing which; use forward.prefill or"
            " forward.rows_hidden"
        )
    return torch.full_like(batch.mask_BT, switch.outside)


def _run(
    model: Model,
    active: Active,
    pass_state: PassState,
    batch: Batch,
    mask_BS: Tensor,
    positions_BT: Tensor,
    cache: Cache | None,
) -> Tensor:
    """Run the blocks of the model once; returns hidden states after the final norm [B, T, D]."""
    with active.current.running(pass_state):
        out = backbone(model.lm)(
            input_ids=batch.ids_BT,
            attention_mask=mask_BS,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return out.last_hidden_state


def prefill(
    model: Model, active: Active, prompts: Sequence[TokenIds], extra: int
) -> tuple[BatchState, Tensor]:
    """The state after the prompts, with room for `extra` tokens, and the last hidden states [B, D].

    Tokens that all prompts begin with, usually the system turn, are computed once. Not where a
    sliding window could reach their end: the padding between them and the rest of a row would
    count as distance.
    """
    longest = max(map(len, prompts))
    on = active.switch.at(prompts) if active.switch else None
    owners = active.pack.owners(len(prompts)) if active.pack else None
    n_shared = 0
    if model.window is None or longest + extra <= model.window:
        n_shared = shared_length(prompts, on)
    prefix_state = new_state(model, active, n_shared)
    if n_shared:
        shared_on = on[0][:n_shared] if on else None
        prefix, prefix_of_row_B = _prefix_batch(
            prompts[0][:n_shared], shared_on, len(prompts), owners
        )
        hidden_states(model, active, prefix.to(model.device), prefix_state)
    state = new_state(model, active, longest + extra)
    state.owners = owners
    last_hidden = []
    for part in row_slices([len(prompt) - n_shared for prompt in prompts], model.device):
        rests = _without_first(prompts[part], n_shared)
        batch = batch_of(
            rests,
            list(map(len, rests)),
            model.pad_id,
            left=True,
            on=_without_first(on[part], n_shared) if on else None,
            owners=owners[part] if owners else None,
        )
        part_state = new_state(model, active, n_shared + batch.ids_BT.shape[1])
        if n_shared:
            part_state.put(prefix_state, 0, len(prefix_state.mask_BS), n_shared)
            part_state.take(sent(prefix_of_row_B[part], model.device))
        hidden_BTD = hidden_states(model, active, batch.to(model.device), part_state)
        last_hidden.append(hidden_BTD[:, -1])
        state.put(part_state, part.start, len(prompts), longest)
    return state, torch.cat(last_hidden)


def row_slices(lengths: Sequence[int], device: torch.device) -> Iterator[slice]:
    """Slices of rows whose padded tokens fit in one pass.

    Small passes keep activations in a CPU's cache, and pad less.
    """
    limit = PASS_TOKENS[device.type]
    start = 0
    for end in range(1, len(lengths)):
        n_rows = end + 1 - start
        if n_rows * max(lengths[start : end + 1]) > limit:
            yield slice(start, end)
            start = end
    yield slice(start, len(lengths))


def _prefix_batch(
    ids: TokenIds, on: Sequence[bool] | None, n_rows: int, owners: multi_lora.Owners | None
) -> tuple[Batch, Tensor]:
    """The tokens that all rows begin with as a batch, and the row of it [B] that each row takes.

    The batch has one row, or one for each packed student. None of the tokens is the last of a
    prompt.
    """
    students = None
    prefix_of_row_B = torch.zeros(n_rows, dtype=torch.long)
    if owners is not None:
        students = tuple(sorted(set(owners)))
        prefix_of_row_B = torch.tensor([students.index(owner) for owner in owners])
    n_prefixes = 1 if students is None else len(students)
    ids_BT = torch.tensor([list(ids)]).expand(n_prefixes, -1)
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    roles_BT = torch.full_like(ids_BT, hooks.PROMPT)
    on_BT = None if on is None else torch.tensor([list(on)])
    return Batch(ids_BT, mask_BT, roles_BT, on_BT, students), prefix_of_row_B


def shared_length(prompts: Sequence[TokenIds], on: Sequence[Sequence[bool]] | None = None) -> int:
    """Number of tokens that all prompts begin with, in the same state of an adapter.

    At least one token of each prompt is left over. 0 for a single prompt.
    """
    if len(prompts) < 2:
        return 0
    keys: list[Sequence] = list(prompts)
    if on is not None:
        keys = []
        for ids, ids_on in zip(prompts, on, strict=True):
            keys.append(list(zip(ids, ids_on, strict=True)))
    first, last = min(keys), max(keys)  # in dictionary order: what these two share, all share
    n_shared = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        n_shared += 1
    return min(n_shared, min(map(len, prompts)) - 1)


def rows_hidden(
    model: Model,
    active: Active,
    rows: Sequence[TokenIds],
    prompt_lengths: Sequence[int],
    share: bool = True,
) -> tuple[Tensor, Batch]:
    """Hidden states [B, T, D] of right-padded rows after the final norm, and their batch.

    Both leave out the tokens that all prompts begin with. The model reads these tokens once for the
    whole batch, or once for each packed student, and gradients flow through them. The result is the
    same, and chat rows take a fifth less work. `share` must be false where each row is to keep its
    own gradient at these tokens.
    """
    on = active.switch.at(rows) if active.switch else None
    if active.replaced or model.sharded:
        # FSDP would miss the backward pass of a prefix whose outputs are not used, and processes
        # with other rows would make another number of passes.
        share = False
    n_shared = 0
    if share:
        prompts = beginnings(rows, prompt_lengths)
        n_shared = shared_length(prompts, beginnings(on, prompt_lengths) if on else None)
    owners = active.pack.owners(len(rows)) if active.pack else None
    rest_lengths = [length - n_shared for length in prompt_lengths]
    batch = batch_of(
        _without_first(rows, n_shared),
        rest_lengths,
        model.pad_id,
        on=_without_first(on, n_shared) if on else None,
        owners=owners,
    ).to(model.device)
    if not n_shared:
        return hidden_states(model, active, batch), batch
    shared_on = on[0][:n_shared] if on else None
    prefix, prefix_of_row_B = _prefix_batch(rows[0][:n_shared], shared_on, len(rows), owners)
    prefix_of_row_B = sent(prefix_of_row_B, model.device)
    state = kv_cache.shared_prefix_state(model.n_layers, prefix_of_row_B)
    hidden_states(model, active, prefix.to(model.device), state)
    state.mask_BS = state.mask_BS.index_select(0, prefix_of_row_B)
    return hidden_states(model, active, batch, state), batch


def beginnings(rows: Sequence[Sequence], lengths: Sequence[int]) -> list[Sequence]:
    """The first elements of each row, as many as its length says."""
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _without_first(rows: Sequence[Sequence], n: int) -> list[Sequence]:
    """Each row without its first n elements."""
    return [row[n:] for row in rows]


def logits_of(model: Model, hidden_ND: Tensor, columns_V: Tensor | None = None) -> Tensor:
    """float32 logits [N, V] of final hidden states, for all vocabulary entries or for some."""
    logits_NV = raw_logits(model, hidden_ND, columns_V).float()
    if model.softcap is None:
        return logits_NV
    return model.softcap * torch.tanh(logits_NV / model.softcap)


def raw_logits(model: Model, hidden_ND: Tensor, columns_V: Tensor | None = None) -> Tensor:
    """Logits [N, V] in the dtype of the head, before a soft cap."""
    # Two-dimensional and contiguous: a slice [B, C, D] would become a batched product, which copies
    # the vocabulary matrix.
    hidden_ND = hidden_ND.reshape(-1, hidden_ND.shape[-1]).contiguous()
    if columns_V is None and packing.is_packed(model.head):
        logits_NV: Tensor = model.head(hidden_ND)
        return logits_NV
    weight_VD, bias_V = model.head.weight, model.head.bias
    if columns_V is not None:
        weight_VD = weight_VD[columns_V]
        bias_V = None if bias_V is None else bias_V[columns_V]
    return torch.nn.functional.linear(hidden_ND, weight_VD, bias_V)
