"""The digest of a model: over what decides what it computes, reads and writes.

    weights       the tensors of the safetensors files that are loaded (model.safetensors, else
                  those that the index names): name, type of numbers, shape and bytes
    config        config.json without fields that only describe (DESCRIBES)
    ends          the end tokens of generation_config.json
    tokenizer     tokenizer.json, else the files that it would be made from; of
                  tokenizer_config.json what decides tokens; and what the places for tokens of
                  older tokenizers say beyond these
    template      the chat template, wherever it stands

So logs, the state of a trainer, a README and the layout of JSON make no other model. Neither do the
names of files and the shards of the weights. Earlier versions took the bytes of files. Their
digests of a model are computed as well, so that its runs and vectors are found.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from traitscope.models.identity.files import (
    file_digest,
    json_object,
    mark,
    unreadable,
    value_digest,
)
from traitscope.models.identity.tensors import read_weights, weight_files, weights_identity

FORMERLY_DIGESTED = (".safetensors", ".json", ".jinja")
"suffixes of the files whose names and bytes made up the digest in earlier versions"
EMBEDDED_DIGEST = "f8537e7e0e9d059b"
"digest of the embedded model, as earlier versions computed it"
KEPT_AS = dict.fromkeys(("0e9aef3b09040cbc", "906080b391b877d9"), EMBEDDED_DIGEST)
"digests in whose place that of earlier versions is kept"
DESCRIBES = (
    "_name_or_path",
    "_model_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "_attn_implementation_autoset",
    "attn_implementation",
    "_attn_implementation",
    "pad_token_id",
)
"fields of config.json that change no logit"
SETS_UP = (
    "added_tokens_decoder",
    "backend",
    "chat_template",
    "is_local",
    "local_files_only",
    "max_length",
    "model_max_length",
    "name_or_path",
    "pad_to_multiple_of",
    "pad_token",
    "padding_side",
    "processor_class",
    "special_tokens_map_file",
    "stride",
    "tokenizer_file",
    "truncation_side",
    "truncation_strategy",
)
"fields of tokenizer_config.json that decide no token, or that stand elsewhere as well"
SOURCES = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
"files from which a tokenizer is made where there is no tokenizer.json"
ADDED, SPECIAL = TOKENS = ("added_tokens.json", "special_tokens_map.json")
"files of older tokenizers with tokens of their own"
DECODER = "added_tokens_decoder"
"field of tokenizer_config.json with tokens; TOKENS are not read where it stands"
CONFIG, ENDS, TOKENIZER, SETTINGS, TEMPLATE = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
OF_PROCESSOR = "chat_template.json"
"file of models that read pictures, too, with the template that their tokenizer lacks"
FURTHER_TEMPLATES = "additional_chat_templates"
"folder of chat templates by name; its default is read in the place of TEMPLATE"


def folder_digest(folder: Path) -> str:
    """First 16 hex digits of the sha256 over what decides the function of a model.

    Raises ModelError for a file that cannot be read.
    """
    return _digest_over(folder, weights_identity(folder))


def former_digests(folder: Path) -> tuple[str, ...]:
    """The digests that earlier versions gave the model, latest first.

    The first has the digests of the weights' files in the place of tensors. The second is over
    names and bytes of all files. Raises ModelError for a file that cannot be read.
    """
    loaded = {file: read_weights(file).digest for file in weight_files(folder)}
    total = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in FORMERLY_DIGESTED and path.is_file():
                of_file = loaded.get(path) or file_digest(path)
                total.update(path.name.encode() + bytes.fromhex(of_file))
    except (OSError, UnicodeEncodeError) as error:
        raise unreadable(folder, error) from error
    return _digest_over(folder, sorted(loaded.values())), total.hexdigest()[:16]


def _digest_over(folder: Path, weights: Any) -> str:
    """The digest of a model, given what stands in it for the weights."""
    try:
        text = json.dumps({"weights": weights, **_beside_weights(folder)}, sort_keys=True)
    except (OSError, UnicodeEncodeError) as error:
        raise unreadable(folder, error) from error
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return KEPT_AS.get(digest, digest)


class Texts(NamedTuple):
    """How a folder turns texts into tokens; None for what it does not hold."""

    tokenizer: dict[str, Any] | None
    "what decides the tokens"
    template: Any
    "the chat template"


def texts_identity(folder: Path) -> Texts:
    """What decides tokens and chats of a folder with a tokenizer. Raises ModelError."""
    try:
        settings = json_object(folder / SETTINGS)
        has_tokens = any((folder / name).is_file() for name in (TOKENIZER, *SOURCES))
        tokenizer = _tokenizer(folder, settings) if has_tokens else None
        return Texts(tokenizer, _template(folder, settings))
    except (OSError, AttributeError, TypeError) as error:
        raise unreadable(folder, error) from error


def deciding_files(folder: Path) -> list[Path]:
    """The files that decide the function of a model, by name."""
    names = [CONFIG, ENDS, TOKENIZER, SETTINGS]
    if not (folder / TOKENIZER).is_file():
        names += [*SOURCES, *TOKENS]
    elif any((folder / name).is_file() for name in TOKENS):
        legacy = _legacy(folder, json_object(folder / SETTINGS), json_object(folder / TOKENIZER))
        names += [name for name in TOKENS if name in legacy]
    names.append(OF_PROCESSOR)
    files = [folder / name for name in names if (folder / name).is_file()]
    return sorted([*files, *_template_files(folder).values(), *weight_files(folder)])


def _beside_weights(folder: Path) -> dict[str, Any]:
    """What the digest is taken over beside the weights."""
    settings = json_object(folder / SETTINGS)
    config = json_object(folder / CONFIG)
    generation = json_object(folder / ENDS)
    return {
        "config": _without(config, DESCRIBES),
        "ends": _ends(generation.get("eos_token_id", config.get("eos_token_id"))),
        "tokenizer": _tokenizer(folder, settings),
        "template": _template(folder, settings),
    }


def _without(value: Any, names: tuple[str, ...]) -> Any:
    """An object, and those inside it, without some fields and without those that hold nothing."""
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, inner in value.items():
        if name not in names and inner not in (None, {}, []):
            kept[name] = _without(inner, names)
    return kept


def _ends(value: Any) -> list[Any]:
    return sorted(value, key=str) if isinstance(value, list) else [value]


def _tokenizer(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which tokens a text has."""
    decides = {}
    for name, value in _without(dict(settings), SETS_UP).items():
        decides[name] = _content(value)
    if (folder / TOKENIZER).is_file():
        digest, listed = _whole_of(*mark(folder / TOKENIZER))
        legacy = _legacy(folder, settings, {"added_tokens": listed})
        about = {"legacy": legacy} if legacy else {}
        return {"settings": decides, "whole": digest, **about}
    files: dict[str, Any] = {}
    for name in (*SOURCES, *TOKENS):
        if (folder / name).is_file():
            files[name] = json_object(folder / name) or file_digest(folder / name)
    added = _without(settings.get(DECODER), ())
    return {"settings": decides, "files": value_digest(files), "added": added}


@lru_cache(maxsize=8)
def _whole_of(path: str, changed: int, size: int) -> tuple[str, Any]:
    """The digest of a tokenizer.json, and the tokens that it adds."""
    whole = json_object(Path(path)) or file_digest(Path(path))
    if not isinstance(whole, dict):
        return value_digest(whole), None
    # Trainers leave these two behind. They are set anew at every call.
    whole = {key: whole[key] for key in whole if key not in ("padding", "truncation")}
    return value_digest(whole), whole.get("added_tokens")


def _legacy(
    folder: Path, settings: Mapping[str, Any], tokenizer: Mapping[str, Any]
) -> dict[str, Any]:
    """What the places for tokens of older tokenizers say beyond tokenizer.json and its settings.

    By place; a place that says nothing new is left out. Most repeat what stands there.
    """
    listed = tokenizer.get("added_tokens")
    listed = listed if isinstance(listed, list) else []
    known = [token for token in listed if isinstance(token, dict)]
    if DECODER in settings:
        new = _new_tokens(settings[DECODER], known)
        return {DECODER: new} if new else {}
    numbers = {json.dumps([token.get("content"), token.get("id")]) for token in known}
    added = {}
    for token, number in json_object(folder / ADDED).items():
        if json.dumps([token, number]) not in numbers:
            added[token] = number
    said = {ADDED: added, SPECIAL: _new_names(json_object(folder / SPECIAL), settings, known)}
    return {name: new for name, new in said.items() if new}


def _new_tokens(decoder: Any, known: list[dict[str, Any]]) -> dict[str, str]:
    """The tokens of a decoder, by their numbers, that are not known with the same properties."""
    as_known = set(map(_properties, known))
    new = {}
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if _properties(token) not in as_known:
            new[number] = _properties(token)
    return new


def _new_names(
    named: Mapping[str, Any], settings: Mapping[str, Any], known: list[dict[str, Any]]
) -> dict[str, Any]:
    """The special tokens, by their names, that the settings name otherwise or not at all.

    The properties of a token that is known stand with it, so its content is enough.
    """
    contents = [token.get("content") for token in known]
    new = {}
    for name, value in _without(dict(named), SETS_UP).items():
        stated = settings.get(name)
        is_same = value == stated or (
            _content(value) == _content(stated) and _content(value) in contents
        )
        if not is_same:
            new[name] = value
    return new


def _content(token: Any) -> Any:
    """The text of a token that is an object with properties; anything else as it is."""
    return token.get("content", token) if isinstance(token, dict) else token


def _properties(token: Any) -> str:
    """What a token is and how it is found in a text; absent properties have their defaults."""
    if not isinstance(token, dict):
        return json.dumps(token)
    special = token.get("special", False)
    properties = {"content": token.get("content"), "special": special}
    properties["normalized"] = token.get("normalized", not special)
    for name in ("lstrip", "rstrip", "single_word"):
        properties[name] = token.get(name, False)
    return json.dumps(properties, sort_keys=True)


def chat_template(folder: Path) -> Any:
    """The chat template of a model: a text, several by name where none is the default, or None."""
    return _template(folder, json_object(folder / SETTINGS))


def _template_files(folder: Path) -> dict[str, Path]:
    """The files of the chat templates that are used, by name: the default, else all there are."""
    files = {file.stem: file for file in sorted((folder / FURTHER_TEMPLATES).glob("*.jinja"))}
    if "default" not in files and (folder / TEMPLATE).is_file():
        files["default"] = folder / TEMPLATE
    return {"default": files["default"]} if "default" in files else files


def _template(folder: Path, settings: Mapping[str, Any]) -> Any:
    """The chat template that is used: that of a file of its own, else that of the settings.

    Of several by name it is the default.
    """
    files = _template_files(folder)
    if "default" in files:
        return _text(files["default"])
    if files:
        return {name: _text(file) for name, file in files.items()}
    template = settings.get("chat_template") or of_processor(folder)
    if not isinstance(template, list):
        return template
    if not all(isinstance(item, dict) for item in template):
        return template  # whoever loads the tokenizer hears of it
    by_name = {item.get("name"): item.get("template") for item in template if item}
    return by_name.get("default", by_name)


def of_processor(folder: Path) -> Any:
    """The chat template in the file that older processors wrote, which no tokenizer reads."""
    return json_object(folder / OF_PROCESSOR).get("chat_template")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
