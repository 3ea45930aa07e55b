"""The module that a tensor of a peft folder belongs to, and which part of an adapter it is.

peft writes `base_model.model.MODULE.lora_A.weight`. Other programs leave the prefix out, or write
the adapter's name into it. Compiled models and models that read images have further prefixes. Such
names are read where one module only is meant.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

PREFIX = "base_model.model."
"stands before the name of a module in the names of peft's tensors"
PARTS = {
    "lora_A.weight": "A",
    "lora_B.weight": "B",
    "lora_embedding_A": "embedding A",
    "lora_embedding_B": "embedding B",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
WEIGHT = "weight"
"the part of a tensor that replaces a parameter of the module"
ENDING = re.compile(rf"(?P<module>.+)\.(?P<part>{'|'.join(map(re.escape, PARTS))})")
ADAPTER_NAME = re.compile(
    r"(?<=lora_A|lora_B)\.default(?=\.)|(?<=_A|_B)\.default$|(?<=_vector)\.default\b"
)
WRAPPERS = ("base_model", "model", "language_model", "text_model", "module", "transformer")
"words that programs put before a module's name or leave out"


@dataclass(frozen=True)
class Place:
    """Where a tensor belongs."""

    module: str
    "name of the module inside the model; as written where the model has none"
    part: str
    "one of the values of PARTS, or WEIGHT"
    leaf: str = ""
    "name of the parameter, for WEIGHT"
    is_known: bool = True
    "whether the model has the module"
    is_base: bool = False
    "whether the tensor is a weight of the base below an adapter, not a trained one"
    renamed_from: str = ""
    "the words before the module that were read as others; empty where the name is peft's"


def place_of(tensor_name: str, modules: Collection[str]) -> Place | None:
    """Where a tensor belongs; None for a part that is no LoRA's."""
    name = tensor_name.replace("_orig_mod.", "")
    name = ADAPTER_NAME.sub("", name)
    was_renamed = name != tensor_name or not name.startswith(PREFIX)
    name = name.removeprefix(PREFIX)
    match = ENDING.fullmatch(name)
    if match is not None:
        written, part, leaf = match["module"], PARTS[match["part"]], ""
    else:
        written, _, leaf = name.rpartition(".")
        part = WEIGHT
        if not written or leaf not in ("weight", "bias") or "lora_" in name:
            return None
    is_base = part == WEIGHT and written.endswith(".base_layer") and leaf == "weight"
    for wrapper in (".base_layer", ".modules_to_save.default", ".modules_to_save"):
        written = written.removesuffix(wrapper) if part == WEIGHT else written
    module = resolved(written, modules)
    if module is None:
        return Place(written, part, leaf, is_known=False, is_base=is_base)
    renamed = tensor_name if was_renamed or module != written else ""
    return Place(module, part, leaf, is_base=is_base, renamed_from=renamed)


def resolved(written: str, modules: Collection[str]) -> str | None:
    """The one module that a name means; None where there is none or several.

    Words that only wrap a model may stand before the name, or be missing there.
    """
    if written in modules:
        return written
    bare = _without_wrappers(written)
    meant = [module for module in modules if module and _without_wrappers(module) == bare]
    return meant[0] if len(meant) == 1 else None


def _without_wrappers(name: str) -> str:
    words = name.split(".")
    while len(words) > 1 and words[0] in WRAPPERS:
        words = words[1:]
    return ".".join(words)
