"""The linear maps of the blocks: their names, kinds and weights; and matrices that are none.

Experts of a mixture (MoE) are parameters of three axes in transformers, not linear maps. LoRA on
all linear maps leaves them as they are.

Shapes: I in, O out.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from traitscope.errors import ConfigError
from traitscope.models import nf4
from traitscope.models.model import Model

NAME_PARTS = {"attention": ("attn", "attention"), "mlp": ("mlp", "feed_forward", "ffn")}
"for each kind of map, texts of which one is in the names of its modules, in every usual family"
HALVES = ("first", "second")
"halves of the blocks"
SELECTORS = (*NAME_PARTS, *HALVES)
"words that select linear maps: kinds of maps, and halves of the blocks"


def is_transposed(linear: nn.Module) -> bool:
    """Whether a map stores its weight as [I, O], as GPT-2's Conv1D does."""
    return not isinstance(linear, nn.Linear)


def weight_of(linear: nn.Module) -> Tensor:
    """The weight of a linear map as [O, I], however it is stored.

    The weight of a map in 4 bits is dequantised.
    """
    if nf4.is_packed(linear):
        return nf4.dequantised(linear)
    return linear.weight.t() if is_transposed(linear) else linear.weight


def linear_names(model: Model) -> list[str]:
    """Names of every linear map of every block, inside the whole model.

    This is the `all linear` choice of Blank et al. (arXiv 2606.00995), section 2.
    """
    return _linear_names_in(model, list(model.blocks))


def _linear_names_in(model: Model, blocks: list[nn.Module]) -> list[str]:
    from transformers.pytorch_utils import Conv1D

    inside = {id(module) for block in blocks for module in block.modules()}
    names = []
    for name, module in model.lm.named_modules():
        if id(module) in inside and isinstance(module, (nn.Linear, Conv1D)):
            names.append(name)
    return names


def linear_names_of_layers(model: Model, layers: Sequence[int]) -> list[str]:
    """Names of every linear map of some blocks; of all blocks where no layer is named.

    Raises ConfigError for a layer that the model lacks, and for blocks without linear maps.
    """
    names = _linear_names_in(model, chosen_blocks(model, layers))
    if not names:
        raise ConfigError(
            f"--train-layers {' '.join(map(str, layers))}: these blocks of {model.name} have no"
            " linear maps; name others"
        )
    return names


def chosen_blocks(model: Model, layers: Sequence[int]) -> list[nn.Module]:
    """Some blocks, in order; all blocks where no layer is named.

    Raises ConfigError for a layer that the model lacks.
    """
    blocks = list(model.blocks)
    wrong = [layer for layer in layers if not 0 <= layer < len(blocks)]
    if wrong:
        raise ConfigError(
            f"--train-layers {' '.join(map(str, wrong))}: {model.name} has layers 0 to"
            f" {len(blocks) - 1}; name some of these"
        )
    return [blocks[layer] for layer in sorted(set(layers))] or blocks


def matrices_left_out(model: Model) -> tuple[list[str], float]:
    """Matrices of the blocks that belong to no linear map, and their share of the blocks' weights.

    They are mostly experts of a mixture and their routers.
    """
    prefixes = tuple(f"{name}." for name in block_names(model))
    mapped = set(linear_names(model))
    names, left_out, total = [], 0, 0
    for name, weight in model.lm.named_parameters():
        if not name.startswith(prefixes):
            continue
        total += weight.numel()
        if weight.ndim > 1 and name.rpartition(".")[0] not in mapped:
            names.append(name)
            left_out += weight.numel()
    return names, left_out / max(total, 1)


def selected_linear_names(model: Model, selection: str) -> list[str]:
    """Names of the linear maps that a selection chooses.

    A selection is `all`, or some of SELECTORS joined by +, such as attention+first: the attention
    maps of the first half of the blocks. Raises ConfigError for another text, and where the model
    has no such maps.
    """
    if selection == "all":
        return linear_names(model)
    words = set(selection.split("+"))
    if words - set(SELECTORS):
        raise ConfigError(
            f"cells={selection!r}: expected all, or some of {', '.join(SELECTORS)} joined by"
            " +; name some, or leave it out"
        )
    blocks = _selected_blocks(model, words)
    name_parts = _selected_name_parts(words)
    names = []
    for name in _linear_names_in(model, blocks):
        if any(part in name for part in name_parts):
            names.append(name)
    if not names:
        raise ConfigError(f"cells={selection!r}: {model.name} has no such linear maps; name others")
    return names


def _selected_blocks(model: Model, words: set[str]) -> list[nn.Module]:
    """The blocks of the halves among the words; all blocks where no half is named."""
    blocks, middle = list(model.blocks), model.n_layers // 2
    if words.isdisjoint(HALVES):
        return blocks
    first = blocks[:middle] if "first" in words else []
    second = blocks[middle:] if "second" in words else []
    return first + second


def _selected_name_parts(words: set[str]) -> list[str]:
    """Texts of which one is in the name of each map of the named kinds; of all kinds for none."""
    kinds = words & NAME_PARTS.keys() or NAME_PARTS.keys()
    parts: list[str] = []
    for kind in kinds:
        parts.extend(NAME_PARTS[kind])
    return parts


def block_names(model: Model) -> list[str]:
    """The name of each block inside the whole model, in order; its maps' names begin with it."""
    names = {id(module): name for name, module in model.lm.named_modules()}
    return [names[id(block)] for block in model.blocks]


def is_in_mlp(name: str) -> bool:
    """Whether a linear map is in an MLP, by its name inside the block."""
    return any(part in name for part in NAME_PARTS["mlp"])


def residual_side(shape: tuple[int, int], d_model: int) -> str | None:
    """Whether a map with a weight [O, I] reads the residual stream or writes it: read or write.

    A map reads if only its input is as wide as the model, and writes if only its output is. None
    where that does not tell.
    """
    outputs, inputs = shape
    if (inputs == d_model) == (outputs == d_model):
        return None
    return "read" if inputs == d_model else "write"


def replace_module(model: Model, name: str, module: nn.Module) -> None:
    """Put a module in the place that `name` names inside the whole model."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.lm.get_submodule(parent), leaf, module)
