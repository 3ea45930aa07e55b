"""The keys, values and mask of a batch, which decoding extends.

Shapes: B rows, S cached tokens, H heads, D size of a head.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from traitscope.interventions import multi_lora


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one block in buffers that are allocated once.

    `update` writes into the buffers and returns views of them.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            n_rows, n_heads = key_states.shape[:2]
            room = (n_rows, n_heads, self.capacity)
            self.key_buffer_BHSD = key_states.new_empty(*room, key_states.shape[3])
            self.value_buffer_BHSD = key_states.new_empty(*room, value_states.shape[3])
        start = self.length
        self.length = start + key_states.shape[2]
        self.key_buffer_BHSD[:, :, start : self.length] = key_states
        self.value_buffer_BHSD[:, :, start : self.length] = value_states
        self._show_filled()
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def put(self, other: "PreallocatedLayer", row: int, n_rows: int, length: int) -> None:
        """Write the keys and values of `other` as the rows from `row` on, of `n_rows` in all.

        They are written so that they end at `length`. What lies before them is zero. A block that
        reads the keys and values of another one has none.
        """
        if not other.is_initialized:
            return
        if not self.is_initialized:
            self.lazy_initialization(other.keys, other.values)
            room = (n_rows, other.keys.shape[1], self.capacity)
            self.key_buffer_BHSD = other.keys.new_zeros(*room, other.keys.shape[3])
            self.value_buffer_BHSD = other.keys.new_zeros(*room, other.values.shape[3])
        rows = slice(row, row + len(other.keys))
        columns = slice(length - other.length, length)
        self.key_buffer_BHSD[rows, :, columns] = other.keys
        self.value_buffer_BHSD[rows, :, columns] = other.values
        self.length = length
        self._show_filled()

    def take(self, index_B: Tensor) -> None:
        """Keep, or repeat, the rows `index_B`."""
        if not self.is_initialized:
            return
        self.key_buffer_BHSD = self.key_buffer_BHSD.index_select(0, index_B)
        self.value_buffer_BHSD = self.value_buffer_BHSD.index_select(0, index_B)
        self._show_filled()

    def _show_filled(self) -> None:
        self.keys = self.key_buffer_BHSD[:, :, : self.length]
        self.values = self.value_buffer_BHSD[:, :, : self.length]


class SharedPrefixLayer(DynamicLayer):
    """Keys and values of one block for tokens that all rows begin with, with their gradients.

    They are computed once, or once for each packed student, and repeated for every row.
    """

    def __init__(self, prefix_of_row_B: Tensor) -> None:
        super().__init__()
        self.prefix_of_row_B = prefix_of_row_B
        "for every row of the batch, the row of the prefix"

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        all_keys = torch.cat([self._for_every_row(self.keys), key_states], dim=2)
        all_values = torch.cat([self._for_every_row(self.values), value_states], dim=2)
        return all_keys, all_values

    def _for_every_row(self, prefix: Tensor) -> Tensor:
        if len(prefix) == 1:
            return prefix.expand(len(self.prefix_of_row_B), -1, -1, -1)
        return prefix.index_select(0, self.prefix_of_row_B)

    def get_seq_length(self) -> int:
        return self.keys.shape[2] if self.is_initialized else 0


class FixedPrefixLayer(DynamicLayer):
    """Keys and values of one block for beginnings that stay as they are.

    A pass sees them and leaves them alone, so that several passes can continue the same beginnings,
    with gradients for what they add.
    """

    def __init__(self, keys_BHSD: Tensor, values_BHSD: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys_BHSD, values_BHSD)
        self.keys, self.values = keys_BHSD, values_BHSD

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        all_keys = torch.cat([self.keys, key_states], dim=2)
        all_values = torch.cat([self.values, value_states], dim=2)
        return all_keys, all_values

    def get_seq_length(self) -> int:
        return self.keys.shape[2]


@dataclass
class BatchState:
    """A batch that is being extended: its mask so far, and its keys and values."""

    mask_BS: Tensor
    "bool, true at tokens, false at padding"
    cache: Cache
    base_cache: Cache | None
    "of the base's own pass; None where ReplaceBase does not act"
    owners: multi_lora.Owners | None = None
    "the packed student of every row; None where none are packed"

    def take(self, index_B: Tensor) -> None:
        """Keep, or repeat, the rows `index_B` everywhere."""
        self.mask_BS = self.mask_BS.index_select(0, index_B)
        if self.owners is not None:
            self.owners = tuple(self.owners[i] for i in index_B.tolist())
        for layer in self._layers():
            layer.take(index_B)

    def put(self, other: "BatchState", row: int, n_rows: int, length: int) -> None:
        """Take over `other` as the rows from `row` on, of `n_rows` in all.

        Its rows are aligned on the right, so that they end at column `length`.
        """
        if not self.mask_BS.numel():
            self.mask_BS = other.mask_BS.new_zeros(n_rows, length)
        rows = slice(row, row + len(other.mask_BS))
        columns = slice(length - other.mask_BS.shape[1], length)
        self.mask_BS[rows, columns] = other.mask_BS
        for layer, other_layer in zip(self._layers(), other._layers(), strict=True):
            layer.put(other_layer, row, n_rows, length)

    def copy(self) -> "BatchState":
        """A state that can be extended without changing this one."""
        return copy.deepcopy(self)

    def _layers(self) -> Iterator[Any]:
        """The layers of all caches."""
        yield from self.cache.layers
        if self.base_cache is not None:
            yield from self.base_cache.layers


def new_state(n_layers: int, capacity: int, with_base: bool = False) -> BatchState:
    """An empty state for at most `capacity` tokens a row.

    with_base: whether the base's own pass needs a cache, too.
    """
    base_cache = _new_cache(n_layers, capacity) if with_base else None
    return BatchState(torch.zeros(0), _new_cache(n_layers, capacity), base_cache)


def _new_cache(n_layers: int, capacity: int) -> Cache:
    layers = []
    for _ in range(n_layers):
        layers.append(PreallocatedLayer(capacity))
    return Cache(layers=layers)


def fixed_prefix_state(state: BatchState, copies: int, owners: multi_lora.Owners) -> BatchState:
    """A state that continues the rows of `state`, `copies` times over, and leaves them as they are.

    owners: the packed student of every row, all copies counted.
    """
    layers: list[Any] = []
    for layer in state.cache.layers:
        if not layer.is_initialized:
            layers.append(PreallocatedLayer(0))
            continue
        keys_BHSD = layer.keys.repeat(copies, 1, 1, 1)
        values_BHSD = layer.values.repeat(copies, 1, 1, 1)
        layers.append(FixedPrefixLayer(keys_BHSD, values_BHSD))
    return BatchState(state.mask_BS.repeat(copies, 1), Cache(layers=layers), None, owners)


def shared_prefix_state(n_layers: int, prefix_of_row_B: Tensor) -> BatchState:
    """An empty state for a beginning that all rows share, and that is to have gradients."""
    layers = []
    for _ in range(n_layers):
        layers.append(SharedPrefixLayer(prefix_of_row_B))
    return BatchState(torch.zeros(0), Cache(layers=layers), None)
