"""Models of other kinds than this package works with: what they are, and what to do instead.

    early    by config.json and the names of files, before torch is imported
    later    by what transformers says of a folder, or what it loaded

A model that is none of a known kind is left to whoever loads it.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitscope.errors import ModelError
from traitscope.models.identity.files import json_object
from traitscope.models.identity.tensors import stored_types

EXPECTED = (
    "expected a causal language model of blocks with attention, such as Llama, Qwen3 or Gemma;"
    " name one"
)
OF_SENTENCES = ("modules.json", "config_sentence_transformers.json")
"files of sentence-transformers"
ENCODERS = (
    "albert",
    "bert",
    "camembert",
    "convbert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "esm",
    "eurobert",
    "longformer",
    "mobilebert",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "roberta",
    "roformer",
    "squeezebert",
    "xlm-roberta",
    "xlm-roberta-xl",
)
"families that read a text from both sides, unless a config calls a model of theirs a decoder"
CLASSIFIER = re.compile(
    "For(SequenceClassification|TokenClassification|MultipleChoice|QuestionAnswering"
    "|NextSentencePrediction|ImageClassification|AudioClassification)$|RewardModel$"
)
"names of classes whose head gives labels or rewards"
OTHER_INPUT = {"vision_config": "pictures", "audio_config": "sound", "speech_config": "speech"}
"what is read beside text, by the part of a config that says so"
HEADS = ("lm_head.", "embed_out.", "output.")
"begin the names of weights of an output head"
WITH_STATE = ("linear_attention", "conv", "mamba")
"types of layers that carry a state along, which is no list of keys and values"
MADE_PLAIN = ("mxfp4", "fp8", "mxfp8")
"quantised weights that transformers makes plain where it has no kernels for them"
IN_8_BITS = ("I8", "U8", "F8")
"beginnings of the types of quantised weights in a safetensors file"
ATTENTION = "traitscope"
"name of this package's attention, which families without an interface for it do not know"
REDIRECTS = {
    "transformers_weights": ("config.json", "model.safetensors"),
    "configuration_files": ("config.json", "config.json"),
    "fast_tokenizer_files": ("tokenizer_config.json", "tokenizer.json"),
}
"fields by which transformers loads another file: the file that holds the field, and the usual name"
OTHER_FORMATS = (".gguf", ".ggml", ".onnx", ".h5", ".msgpack", ".tflite", ".nemo", ".npz")
"suffixes of weights that other programs read"
CONVERT_GGUF = (
    "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T;"
    " m = M.from_pretrained({old!r}, gguf_file={file!r}); n = M.from_config(m.config,"
    " dtype=m.dtype); n.load_state_dict(m.state_dict()); del n.config.quantization_config;"
    " n.save_pretrained({new!r});"
    " T.from_pretrained({old!r}, gguf_file={file!r}).save_pretrained({new!r})"
)
"a model from GGUF refuses save_pretrained, so its weights move to a fresh one"


def check(folder: Path) -> None:
    """Raise ModelError for a folder with a model that writes no text from left to right."""
    config = _config(folder)
    what = _of_sentences(folder) or _by_config(config)
    if what:
        raise ModelError(f"{folder} holds {what}; {EXPECTED}")
    _check_usual_names(folder)


def _check_usual_names(folder: Path) -> None:
    """Raise ModelError for a folder whose settings name other files than the usual ones.

    The digest of a model is over the usual ones.
    """
    for field, (file, usual) in REDIRECTS.items():
        named = _object(folder / file).get(field)
        if named not in (None, "", [], usual, [usual]):
            raise ModelError(
                f"{folder}: {file} names {str(named)[:80]} in place of {usual} ({field}); expected"
                f" the usual names; save the model again with save_pretrained, or give that file"
                f" the name {usual} and delete the field"
            )


def _of_sentences(folder: Path) -> str:
    for name in OF_SENTENCES:
        if (folder / name).is_file():
            return f"a sentence-transformers model ({name}), which turns texts into vectors"
    return ""


def _by_config(config: dict[str, Any]) -> str:
    """What config.json says that a model is; empty where that is nothing of another kind."""
    name, family = _class_name(config), config.get("model_type")
    if config.get("is_encoder_decoder") is True:
        return f"an encoder-decoder ({name}), which reads a prompt apart from its answer"
    if CLASSIFIER.search(name):
        return f"a classifier or reward model ({name}), which has no output head for tokens"
    is_encoder = family in ENCODERS and config.get("is_decoder") is not True
    if is_encoder or name.endswith("ForMaskedLM"):
        return f"an encoder ({name}), which fills gaps in a text and writes none"
    return ""


def check_plain(folder: Path) -> None:
    """Raise ModelError for weights that were quantised before they were saved."""
    settings = _config(folder).get("quantization_config")
    if not isinstance(settings, dict):
        _check_stored(folder)
        return
    method = settings.get("quant_method")
    if method is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        method = "bitsandbytes"
    if method not in MADE_PLAIN:
        how = "a method that config.json does not name" if method is None else str(method)[:40]
        raise ModelError(_quantised(folder, how))


def _check_stored(folder: Path) -> None:
    """Raise ModelError for weights in 8 bits, which nothing in config.json says how to read.

    Read as they are they lack their scales.
    """
    for name, stored in stored_types(folder).items():
        if name.endswith("weight") and stored.startswith(IN_8_BITS):
            said = _quantised(folder, f"an unnamed method ({name}: {stored})")
            raise ModelError(
                f"{said}; config.json has no quantization_config, which would say how to read them"
            )


def _quantised(folder: Path, how: str) -> str:
    instead = "use the model that it was made from"
    if how == "bitsandbytes":
        instead += ", with --dtype nf4 for 4 bits"
    return (
        f"{folder} holds weights that were quantised by {how} when they were saved; expected fp32,"
        f" bf16 or fp16, because likelihoods and training need them; {instead}"
    )


def check_loaded(lm: Any, folder: Path) -> None:
    """Raise ModelError for a model whose layers carry a state, or whose weights are no numbers.

    Decoding keeps keys and values of attention alone.
    """
    config = lm.config.get_text_config() if hasattr(lm.config, "get_text_config") else lm.config
    with_state = sorted(set(WITH_STATE).intersection(getattr(config, "layer_types", None) or ()))
    if with_state or getattr(lm, "_is_stateful", False):
        layers = f", with layers of the type {', '.join(with_state)}" if with_state else ""
        raise ModelError(
            f"{folder} holds a state-space, convolutional or other recurrent model"
            f" ({type(lm).__name__}{layers}), whose state is not kept while it writes; {EXPECTED}"
        )
    for name, parameter in lm.named_parameters():
        if not parameter.dtype.is_floating_point or parameter.dtype.itemsize < 2:
            raise ModelError(_quantised(folder, f"{parameter.dtype} ({name})"))


def of_failure(folder: Path, error: Exception) -> str:
    """What to say where transformers cannot load a folder; empty where nothing more is known."""
    config, reason = _config(folder), " ".join(str(error).split())
    family, name = config.get("model_type"), _class_name(config)
    if "model_type` key" in reason or family is None:
        return (
            f"{folder}: config.json names no model_type; expected the family of the model; copy"
            " config.json from where the model was made"
        )
    if "Unrecognized configuration class" in reason:
        other = [read for key, read in OTHER_INPUT.items() if key in config]
        what = f"a model of the family {family} ({name})"
        if other:
            what += f", which reads {' and '.join(other)} beside text"
        return f"{folder} holds {what}, and transformers has no causal LM for it; {EXPECTED}"
    if "does not recognize this architecture" in reason:
        from transformers import __version__

        return (
            f"{folder} holds a model of the family {family}, which transformers {__version__} does"
            " not know; expected a family that it knows; install a newer transformers 5, or use"
            " another model"
        )
    if isinstance(error, KeyError) and error.args == (ATTENTION,):
        return (
            f"{folder} holds a model of the family {family} ({name}), whose attention does not go"
            f" through transformers' attention interface; {EXPECTED}"
        )
    if isinstance(error, ImportError):
        return (
            f"{folder} needs a package that is not installed: {reason[:200]}; install it, or use"
            " another model"
        )
    return ""


def of_missing(folder: Path, missing: Sequence[str]) -> str:
    """What to say of weights, by name, that config.json asks for and no file of a folder has."""
    name = _class_name(_config(folder))
    if all(weight.startswith(HEADS) for weight in missing):
        return (
            f"{folder} was saved as {name}, without its output head ({missing[0]}); expected a"
            " causal language model with its head; save the model whole, as a class ForCausalLM, or"
            " use the one that it was made from"
        )
    return (
        f"{folder}: {len(missing)} of the model's weights are in none of its files, such as"
        f" {missing[0]}; expected all that config.json ({name}) asks for, in *.safetensors; fetch"
        " the model again, or save it with save_pretrained"
    )


def in_other_format(path: Path) -> str:
    """What to say of a file, or a folder, whose weights are for another program; else empty."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    if any(file.suffix == ".safetensors" for file in files if file != path):
        return ""
    others = [file for file in files if file.suffix.lower() in OTHER_FORMATS]
    if (path / "model_index.json").is_file():
        return f"{path} holds a diffusers pipeline, which makes pictures or sound; {EXPECTED}"
    if not others:
        return ""
    first = others[0]
    said = (
        f"{path} holds weights for another program ({first.name}); expected a folder with"
        " config.json and *.safetensors; "
    )
    if first.suffix.lower() != ".gguf":
        return f"{said}fetch the model in that format, or save it with save_pretrained"
    new = str(first.with_suffix("")) + "-safetensors"
    program = CONVERT_GGUF.format(old=str(first.parent), file=first.name, new=new)
    return (
        f"{said}use the model that it was made from, or, rounded as it is, convert it with: python"
        f" -c {shlex.quote(program)}"
    )


def _class_name(config: dict[str, Any]) -> str:
    """The class that a model was saved as, else its family."""
    named = config.get("architectures")
    if isinstance(named, list) and named and isinstance(named[0], str):
        return named[0]
    return str(config.get("model_type"))


def _config(folder: Path) -> dict[str, Any]:
    return _object(folder / "config.json")


def _object(file: Path) -> dict[str, Any]:
    """What a JSON file holds; empty where it cannot be read, of which transformers speaks."""
    try:
        return json_object(file)
    except OSError:
        return {}
