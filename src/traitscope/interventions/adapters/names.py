"""The module that a tensor of a peft folder belongs to, and which part of an adapter it is.

peft writes `base_model.model.MODULE.lora_A.weight`. Other programs leave the prefix out, or write
the adapter's name into it. Compiled, distributed and checkpointed models and models that read
images have further words. Such names are read where one module only is meant.
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
    r"(?<=lora_A|lora_B)\.(?P<map>[^.]+)(?=\.weight$)"
    r"|(?<=lora_embedding_A|lora_embedding_B)\.(?P<embedding>[^.]+)$"
    r"|(?<=lora_magnitude_vector)\.(?P<magnitude>(?!weight$)[^.]+)"
)
USUAL = "default"
"peft's name of an adapter that nobody named"
WRAPPED = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"words that torch puts into names where it compiles, distributes or checkpoints a module"
SAVED = re.compile(r"\.modules_to_save(\.[^.]+)?$")
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
    written: str = ""
    "name of the module as the file has it, without peft's prefix"
    adapter: str = ""
    "name of the adapter inside the tensor's name; peft's files have none but the usual one"


def place_of(tensor_name: str, modules: Collection[str]) -> Place | None:
    """Where a tensor belongs; None for a part that is no LoRA's."""
    name = WRAPPED.sub("", tensor_name)
    called = ADAPTER_NAME.search(name)
    adapter = "" if called is None else called[called.lastgroup or 0]
    adapter = "" if adapter == USUAL else adapter
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
    if part == WEIGHT:
        written = SAVED.sub("", written.removesuffix(".base_layer"))
    module = resolved(written, modules)
    if module is None:
        return Place(written, part, leaf, is_known=False, is_base=is_base)
    renamed = tensor_name if was_renamed or module != written else ""
    return Place(module, part, leaf, True, is_base, renamed, written, adapter)


def resolved(written: str, modules: Collection[str]) -> str | None:
    """The one module that a name means; None where there is none or several.

    Words that only wrap a model may stand before the name, or be missing there.
    """
    if written in modules:
        return written
    bare = without_wrappers(written)
    meant = [module for module in modules if module and without_wrappers(module) == bare]
    return meant[0] if len(meant) == 1 else None


def without_wrappers(name: str) -> str:
    """A module's name without the words before it that only wrap a model."""
    words = name.split(".")
    while len(words) > 1 and words[0] in WRAPPERS:
        words = words[1:]
    return ".".join(words)
