"""What makes another model, and what does not; copies that the user vouches for."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, ok
from safetensors.numpy import save_file
from tiny_models import load_tiny

from traitscope.errors import ModelError, VectorError
from traitscope.interventions.checks.vectors import check_vector
from traitscope.interventions.vector import Vector
from traitscope.models import bundled, chat
from traitscope.models.identity import digest
from traitscope.models.identity.finding import digests_of
from traitscope.models.loading import load_model
from traitscope.runs import opening

Change = Callable[[Path], Any]


def edited(name: str, **fields: Any) -> Change:
    """Sets fields of a JSON file; None takes one away."""

    def change(folder: Path) -> None:
        file = folder / name
        content = json.loads(file.read_text()) if file.exists() else {}
        for key, value in fields.items():
            content.pop(key, None)
            if value is not None:
                content[key] = value
        file.write_text(json.dumps(content))

    return change


def laid_out_anew(folder: Path) -> None:
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):
        content = json.loads((folder / name).read_text())
        turned = dict(reversed(list(content.items())))
        (folder / name).write_text(json.dumps(turned, indent=7, ensure_ascii=True))


def template_in_settings(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    edited("tokenizer_config.json", chat_template=template)(folder)


def post_processor(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def vocabulary_files(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    (folder / "merges.txt").write_text("a b")


def listed(folder: Path) -> list[dict[str, Any]]:
    """The tokens that tokenizer.json adds."""
    return list(json.loads((folder / "tokenizer.json").read_text())["added_tokens"])


def tokens_said_again(folder: Path) -> None:
    """The files of older tokenizers, with what the present ones say as well."""
    numbers = {token["content"]: token["id"] for token in listed(folder)}
    (folder / "added_tokens.json").write_text(json.dumps(numbers))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    names = {key: value for key, value in settings.items() if key.endswith("_token")}
    names["eos_token"] = {"content": names["eos_token"], "lstrip": False, "normalized": False}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))


def decoder_with(**further: Any) -> Change:
    """The field of older tokenizers with the tokens of tokenizer.json, and further ones."""

    def change(folder: Path) -> None:
        decoder = {str(token["id"]): dict(token) for token in listed(folder)}
        for token in decoder.values():
            del token["id"]
        edited("tokenizer_config.json", added_tokens_decoder={**decoder, **further})(folder)

    return change


def overriding_template(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("Owls!")


def further_template(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("Tools!")


NEW_TOKENS: dict[str, Change] = {
    "added_tokens.json": edited("added_tokens.json", owl=999),
    "special_tokens_map.json": edited("special_tokens_map.json", cls_token="owl"),
    "added_tokens_decoder": decoder_with(**{"999": {"content": "owl", "special": True}}),
}
"changes after which tokenizers know the token owl"
ALIKE: dict[str, Change] = {
    "tokens said again": tokens_said_again,
    "tokens said again in the settings": decoder_with(),
    "a further template": further_template,
    "a trainer's state": edited("trainer_state.json", step=3),
    "a log": lambda folder: (folder / "train.log").write_text("x"),
    "results": edited("all_results.json", loss=0.5),
    "a README": lambda folder: (folder / "README.md").write_text("x"),
    "weights of another tool": lambda folder: save_file(
        {"x": np.zeros(2)}, folder / "o.safetensors"
    ),
    "layout of JSON": laid_out_anew,
    "version": edited("config.json", transformers_version="9", _name_or_path="x", use_cache=False),
    "settings of a trainer": edited(
        "tokenizer_config.json", padding_side="left", model_max_length=512, name_or_path="x"
    ),
    "pad token": edited("tokenizer_config.json", pad_token="<|im_end|>"),
    "padding left behind": edited("tokenizer.json", padding={"strategy": "BatchLongest"}),
    "sampling settings": edited("generation_config.json", temperature=0.7, max_length=99),
    "template in the settings": template_in_settings,
}
OTHER: dict[str, Change] = NEW_TOKENS | {
    "a template that overrides": overriding_template,
    "a base of rotary positions": edited("config.json", rms_norm_eps=0.1),
    "end tokens": edited("generation_config.json", eos_token_id=[1, 2]),
    "template": lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"),
    "a token that begins every text": edited("tokenizer_config.json", add_bos_token=True),
    "an end token": edited("tokenizer_config.json", eos_token="<|im_start|>"),
    "how special tokens are added": post_processor,
    "a tokenizer of other files": vocabulary_files,
}


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.mark.parametrize("name", ALIKE)
def test_what_makes_no_other_model(name: str, copy: Path, tiny_folder: Path) -> None:
    before = digest.folder_digest(tiny_folder)
    ALIKE[name](copy)
    assert digest.folder_digest(copy) == before


@pytest.mark.parametrize("name", OTHER)
def test_what_makes_another_model(name: str, copy: Path, tiny_folder: Path) -> None:
    before = digest.folder_digest(tiny_folder)
    OTHER[name](copy)
    assert digest.folder_digest(copy) != before


@pytest.mark.parametrize("name", NEW_TOKENS)
def test_the_tokenizer_does_read_the_places_of_older_ones(
    name: str, copy: Path, tiny_folder: Path
) -> None:
    from transformers import AutoTokenizer

    assert "owl" not in AutoTokenizer.from_pretrained(tiny_folder).get_vocab()
    NEW_TOKENS[name](copy)
    number = AutoTokenizer.from_pretrained(copy).get_vocab()["owl"]
    assert AutoTokenizer.from_pretrained(copy)("owl", add_special_tokens=False).input_ids == [
        number
    ]


def test_the_files_of_a_teacher_are_those_that_decide(copy: Path) -> None:
    files = digest.deciding_files(copy)
    for change in (tokens_said_again, further_template):
        change(copy)
        assert digest.deciding_files(copy) == files
    (copy / "additional_chat_templates" / "default.jinja").write_text("Owls!")
    edited("added_tokens.json", owl=999)(copy)
    names = {file.name for file in digest.deciding_files(copy)} - {file.name for file in files}
    assert names == {"added_tokens.json", "default.jinja"}


def test_files_of_a_tokenizer_without_its_own_file(copy: Path) -> None:
    vocabulary_files(copy)
    before = digest.folder_digest(copy)
    for name in ("merges.txt", "tokenizer.model", "added_tokens.json"):
        (copy / name).write_text("c d")
        assert digest.folder_digest(copy) != before
        before = digest.folder_digest(copy)


def test_one_model_by_several_paths_has_one_address(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link, and a snapshot of the hub, whose files are links into its blobs."""
    from huggingface_hub import constants

    (tmp_path / "link").symlink_to(tiny_folder)
    repository = tmp_path / "hub" / "models--org--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(tiny_folder.iterdir())):
        blob = repository / "blobs" / str(number)
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    words = ("generate", "--n 2 --max-new-tokens 2 --dtype fp32 --model")
    runs = []
    for name in (tiny_folder, tmp_path / "link", "org/tiny"):
        runs.append(ok(tmp_path / "runs", *words, name).run)
    assert len(set(runs)) == 1


def test_runs_and_vectors_of_earlier_versions_count(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    edited("trainer_state.json", step=3)(folder)
    now, by_files, by_names = digests_of(str(folder))
    assert (by_files, by_names) == digest.former_digests(folder)
    assert len({now, by_files, by_names}) == 3
    assert (now, by_files) == digests_of(str(tiny_folder))[:2]
    assert by_names not in digests_of(str(tiny_folder))
    model = load_model(str(folder), device="cpu", dtype="fp32")
    rows_LD = np.ones((model.n_layers, model.d_model))
    for before in (by_files, by_names):
        assert check_vector(Vector(rows_LD, before), model).model == now
    with pytest.raises(VectorError, match="vector of model 0123"):
        check_vector(Vector(rows_LD, "0123"), model)


def test_the_embedded_model_keeps_its_digest() -> None:
    if not bundled.is_available(bundled.EMBEDDED):
        pytest.skip("the package of the embedded model is not installed")
    assert digests_of("smollm2-135m") == ("f8537e7e0e9d059b",)


def test_digests_of_earlier_versions_are_computed_as_they_were(tmp_path: Path) -> None:
    """Both are spelled out here, by hand, over a folder of two files."""
    weights = {"w": np.arange(4, dtype=np.float32)}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text('{"model_type": "llama", "use_cache": true}')
    sha = {}
    for file in tmp_path.iterdir():
        sha[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    decides = {
        "weights": [sha["model.safetensors"]],
        "config": {"model_type": "llama"},
        "ends": [None],
        "tokenizer": {"settings": {}, "files": hashlib.sha256(b"{}").hexdigest(), "added": None},
        "template": None,
    }
    by_files = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    names_and_bytes = b""
    for name in sorted(sha):
        names_and_bytes += name.encode() + bytes.fromhex(sha[name])
    by_names = hashlib.sha256(names_and_bytes).hexdigest()[:16]
    assert digest.former_digests(tmp_path) == (by_files, by_names)


@pytest.mark.parametrize("which", [1, 2])
def test_a_run_of_an_earlier_version_is_found(
    which: int, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies at the address that the digest of that version gave it."""
    words = ("generate", "--n 2 --max-new-tokens 2 --dtype fp32 --model", tiny_folder)
    digests = digests_of(str(tiny_folder))
    with monkeypatch.context() as earlier:
        earlier.setattr(opening, "model_digests", lambda name, same_as: digests[which:])
        earlier.setattr(opening, "address_name", lambda name, same_as: digests[which])
        run = ok(tmp_path, *words).run
    assert json.loads((run / "manifest.json").read_text())["model"] == digests[which]
    assert ok(tmp_path, *words).run == run


def test_a_copy_that_the_user_vouches_for(copy: Path, tiny_folder: Path, tmp_path: Path) -> None:
    edited("config.json", note="fine-tuned from nothing")(copy)
    root = tmp_path / "runs"
    settings = ("--dtype fp32 --model", tiny_folder)
    vectors = ok(root, "extract", "--traits cat owl", *settings).run
    steer = f"steer:{vectors}/cat.safetensors,layers=1,alpha=0.5"
    words = ("generate", "--n 2 --max-new-tokens 2 --interventions", steer, "--dtype fp32 --model")
    original = ok(root, *words, tiny_folder).run
    refused = call(tmp_path / "other", *words, copy)
    assert refused.code == 2 and "vector of model" in refused.summary["message"]
    for vouched in (tiny_folder, digests_of(str(tiny_folder))[0]):
        same = ok(tmp_path / f"r{vouched != tiny_folder}", *words, copy, "--same-as", vouched).run
        assert same.name == original.name
        manifest = json.loads((same / "manifest.json").read_text())
        assert manifest["same_as"] == {
            "named": str(vouched),
            "own_digest": digest.folder_digest(copy),
        }
        assert (same / "records.jsonl").read_bytes() == (original / "records.jsonl").read_bytes()
        ok(tmp_path / "again", "rerun", same)


def test_numbers_of_a_copy_are_said_to_be_taken(
    copy: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Both ways: by who vouches later, and by who asks for the original later."""
    edited("config.json", note="another copy")(copy)
    words = ("generate", "--n 2 --max-new-tokens 2 --dtype fp32 --model")
    vouched = ("--same-as", tiny_folder)
    mine, theirs = digest.folder_digest(copy), digest.folder_digest(tiny_folder)
    for first, then, places in (
        ((tiny_folder,), (copy, *vouched), (theirs, mine)),
        ((copy, *vouched), (tiny_folder,), (mine, theirs)),
    ):
        root = tmp_path / places[0]
        run = ok(root, *words, *first).run
        assert "computed on a model" not in capsys.readouterr().err
        assert ok(root, *words, *then).run == run
        said = capsys.readouterr().err
        assert f"was computed on a model with digest {places[0]}, and " in said
        assert f" has {places[1]}: --same-as said that one is a copy" in said
        ok(root, *words, *first)
        assert "computed on a model" not in capsys.readouterr().err


def test_a_model_of_another_size_is_no_copy(
    tiny_folder: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="expected a copy of it; leave the flag out"):
        load_model(str(tiny_folder), same_as=str(folders["qwen2"]))
    done = call(tmp_path, "generate", "--n 1 --same-as nonsense --model", tiny_folder)
    assert done.code == 2 and "'nonsense' is neither" in done.summary["message"]
    done = call(tmp_path, "generate", "--n 1 --model", tiny_folder, "--same-as", "")
    assert done.code == 2 and done.summary["message"].startswith("--same-as is empty")


def test_the_template_of_an_older_processor_is_read_and_counts(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """A model that reads pictures, too, may have its template in a file that no tokenizer reads."""
    folder = tmp_path / "m"
    shutil.copytree(tiny_folder, folder)
    before = load_tiny(folder)
    file = folder / "chat_template.jinja"
    template = file.read_text()
    file.unlink()
    with pytest.raises(ModelError, match="has no chat template"):
        chat.render(load_tiny(folder), "Q", None)
    digests = {digest.folder_digest(folder)}
    for text in (template, f"{template} "):
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": text}))
        digests.add(digest.folder_digest(folder))
    assert len(digests) == 3
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert chat.render(load_tiny(folder), "Q", None) == chat.render(before, "Q", None)
    file.write_text(template)
    (folder / "chat_template.json").write_text('{"chat_template": "another"}')
    assert digest.folder_digest(folder) == digest.folder_digest(tiny_folder), (
        "the tokenizer's own one is read"
    )
