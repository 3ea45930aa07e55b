"""LoRA students on a model, whole or in part: in some linear maps, at some tokens, by some singular
directions.

Shapes: I in, O out, R rank.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from traitscope.errors import ConfigError
from traitscope.interventions.intervention import AdapterPart
from traitscope.interventions.lora import LoraLinear, LoraShape, adapted
from traitscope.interventions.pass_state import CurrentPass
from traitscope.interventions.peft_folder import read_adapter
from traitscope.models.linear_maps import selected_linear_names
from traitscope.models.model import Model
from traitscope.models.token_regions import TokenGate

WHOLE = AdapterPart()
"all of a student"


@dataclass(frozen=True)
class TokenSwitch:
    """At which tokens a LoRA student acts."""

    gate: TokenGate
    "says which tokens of a row are chosen, see token_regions.py"
    outside: bool = False
    "act at the other tokens instead; tokens behind the rows given to `gate` are never chosen"

    def at(self, rows: Sequence[Sequence[int]]) -> list[list[bool]]:
        """Whether the student acts at each token of each row."""
        acting = []
        for row in rows:
            chosen = self.gate(row)
            acting.append([not on for on in chosen] if self.outside else chosen)
        return acting


def directions(a_RI: Tensor, b_OR: Tensor, top: int | None, drop: int) -> tuple[Tensor, Tensor]:
    """Factors A and B of the change B A that keeps only some of its singular directions.

    Of the `top` largest (None: of all) the `drop` largest are left out. The rank of the factors
    stays, and what is left out is zero. This is the ablation of Nief et al. (arXiv 2606.00831) in
    their notebook on the adapter's SVD.
    """
    q_OR, upper = torch.linalg.qr(b_OR)
    p_IR, lower = torch.linalg.qr(a_RI.t())
    u, s, vh = torch.linalg.svd(upper @ lower.t(), full_matrices=False)
    keep = torch.zeros_like(s)
    keep[drop:top] = 1
    new_a_RI, new_b_OR = vh @ p_IR.t(), (q_OR @ u) * (s * keep)
    missing = len(a_RI) - len(s)  # ranks that a map narrower than the rank does not have
    pad = torch.nn.functional.pad
    return pad(new_a_RI, (0, 0, 0, missing)), pad(new_b_OR, (0, missing))


@contextmanager
def mounted(
    model: Model,
    folder: Path,
    part: AdapterPart = WHOLE,
    current: CurrentPass | None = None,
) -> Iterator[dict[str, LoraLinear]]:
    """The model with the LoRA student of a peft folder, or a part of it, until the context ends.

    With `current` the chosen maps act at the tokens that each pass names. Yields the student's
    layers by linear map. Raises ConfigError where nothing of the student is left.
    """
    shape, factors = read_adapter(folder, model)
    chosen = set(selected_linear_names(model, part.maps))
    names = _acting_maps(sorted(factors), chosen, part.outside, current is not None)
    if not names:
        raise ConfigError(
            f"{folder} has no adapter in cells={part.maps!r}, outside={part.outside}; name other"
            " cells"
        )
    keeps_all = part.top is None and part.drop == 0
    with adapted(model, shape, names, of_file=True) as layers:
        for name, layer in layers.items():
            a_RI, b_OR = factors[name]
            if not keeps_all:
                a_RI, b_OR = directions(a_RI, b_OR, part.top, part.drop)
            layer.hold(a_RI, b_OR)
            layer.current = current if name in chosen else None
        yield layers


@contextmanager
def joined(model: Model, folders: Sequence[Path]) -> Iterator[dict[str, LoraLinear]]:
    """The model with several LoRA students, whose changes add up, until the context ends.

    Their factors stand side by side in one adapter, whose rank is the sum of theirs. Yields its
    layers by linear map.
    """
    read = [read_adapter(folder, model) for folder in folders]
    rank = sum(shape.rank for shape, _ in read)
    names = sorted(set().union(*(factors for _, factors in read)))
    with adapted(model, LoraShape(rank, rank), names, of_file=True) as layers:
        for name, layer in layers.items():
            a_RI, b_OR = torch.zeros_like(layer.lora_A), torch.zeros_like(layer.lora_B)
            start = 0
            for shape, factors in read:
                part = slice(start, start + shape.rank)
                start += shape.rank
                if name in factors:
                    a_RI[part], b_OR[:, part] = factors[name]
                    b_OR[:, part] *= shape.alpha / shape.rank
            layer.hold(a_RI, b_OR)
        yield layers


def _acting_maps(
    names: Sequence[str], chosen: set[str], outside: bool, at_some_tokens: bool
) -> list[str]:
    """The linear maps in which a part of a student acts.

    Inside: the chosen maps. Outside: the other maps, and for a student at some tokens all maps,
    because the chosen ones then act at the other tokens.
    """
    if outside and at_some_tokens:
        return list(names)
    return [name for name in names if (name in chosen) != outside]
