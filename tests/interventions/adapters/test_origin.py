"""The base of an adapter by content: another model is refused, what cannot be compared is said."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import call, ok
from lora_students import randomise, write
from tiny_models import load_tiny, save_tiny, tiny_tokenizer

from traitscope import distributed
from traitscope.errors import VectorError
from traitscope.interventions import lora, partial_lora, peft_folder
from traitscope.interventions.adapters import origin
from traitscope.interventions.lora import LoraShape
from traitscope.models.identity import finding
from traitscope.models.loading import load_model
from traitscope.models.model import Model

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft calls a deprecated name


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the shapes of the tiny one, and other weights."""
    return save_tiny("llama", tmp_path_factory.mktemp("other") / "llama", seed=1)


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    """An adapter that peft made on the tiny model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_pretrained(tiny_folder)
    lora_config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(lm, lora_config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture(autouse=True)
def _said_anew() -> Iterator[None]:
    """What was said in this process may be said again."""
    distributed.say.cache_clear()
    yield


def names(folder: Path, **changes: object) -> Path:
    """The adapter with other settings; None takes one away."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def notes(folder: Path, model: Model) -> tuple[str, ...]:
    """The notes on an adapter, which are also said once where it is mounted."""
    return origin.notes_on(folder, model.name, (model.digest, *model.known_as))


def test_the_same_model_is_silent_by_whatever_path(
    adapter: Path, tiny: Model, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM

    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_folder)
    (tmp_path / "link").symlink_to(tiny_folder)
    shutil.copytree(tiny_folder, tmp_path / "copy")
    (tmp_path / "copy/README.md").write_text("a copy")
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(
        tmp_path / "shards", max_shard_size="20KB"
    )
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    places = [tmp_path / name for name in ("link", "copy", "shards")]
    for base in (tiny_folder, f"{tiny_folder}/", *places):
        with partial_lora.mounted(tiny, names(adapter, base_model_name_or_path=str(base))):
            pass
    assert capsys.readouterr().err == ""
    noisy = f"{tiny_folder}+noise:0.1,seed=3"
    assert origin.notes_on(adapter, noisy, finding.digests_of(noisy)) == ()


def test_another_model_of_the_same_shapes_is_refused_unless_vouched_for(
    adapter: Path, tiny_folder: Path, other_folder: Path
) -> None:
    other = load_tiny(other_folder)
    expected = (
        f"{adapter} was trained on {tiny_folder}, whose weights are not those of {other_folder};"
        f" expected an adapter of {other_folder}; name its base: --model {tiny_folder}, or vouch"
        f" that {other_folder} is a copy: --same-as {tiny_folder}"
    )
    with pytest.raises(VectorError) as raised, partial_lora.mounted(other, adapter):
        pass
    assert str(raised.value) == expected
    for same_as in (str(tiny_folder), finding.digest_of(str(tiny_folder))):
        vouched = load_model(other_folder, device="cpu", dtype="fp32", same_as=same_as)
        with partial_lora.mounted(vouched, adapter):
            assert notes(adapter, vouched) == ()


def test_the_command_refuses_before_it_loads_the_model(
    adapter: Path,
    tiny_folder: Path,
    other_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("generate", "--n 2", "--max-new-tokens 2", "--interventions", f"adapter:{adapter}")
    with monkeypatch.context() as patched:
        patched.setattr("traitscope.models.loading.load_model", None)
        done = call(tmp_path / "runs", *words, "--model", other_folder)
    err = capsys.readouterr().err
    assert done.code == 2 and f"vouch that {other_folder} is a copy: --same-as {tiny_folder}" in err
    assert not (tmp_path / "runs").exists()
    vouched = (*words, "--model", other_folder, "--same-as", tiny_folder)
    assert "remarks" not in ok(tmp_path / "runs", *vouched).summary


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("/gone/base", "was trained on /gone/base, which is not on this machine, and is used on"),
        ("org/llama", "was trained on org/llama, which is not on this machine, and is used on"),
        ("a name\nof two lines", "was trained on a name of two lines, which is not on this machin"),
        ("", "does not say which model it was trained on (base_model_name_or_path is missing in"),
        (None, "does not say which model it was trained on"),
        (7, "does not say which model it was trained on"),
    ],
)
def test_a_base_that_is_not_here_is_a_remark_on_the_terminal_and_in_the_run(
    adapter: Path,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    base: object,
    says: str,
) -> None:
    names(adapter, base_model_name_or_path=base)
    words = ("generate", "--n 2", "--max-new-tokens 2", "--interventions", f"adapter:{adapter}")
    done = ok(tmp_path / "runs", *words, "--model", tiny_folder)
    captured = capsys.readouterr()
    assert captured.err.count(says) == 1 and says not in captured.out
    (remark,) = json.loads((done.run / "manifest.json").read_text())["remarks"]
    assert remark.startswith(f"{adapter} {says}") and done.summary["remarks"] == [remark]
    again = ok(tmp_path / "runs", *words, "--model", tiny_folder)
    assert f"remark: {remark}\n" in capsys.readouterr().out and again.run == done.run
    ok(tmp_path / "runs", "show", done.run)
    assert f"remark: {remark}\n" in capsys.readouterr().out


def test_a_model_of_the_hub_that_is_here_is_compared(
    adapter: Path,
    tiny: Model,
    tiny_folder: Path,
    other_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the layout of the hub's cache; a half of a model there proves nothing."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, folder in (("same", tiny_folder), ("other", other_folder), ("half", tiny_folder)):
        place = tmp_path / f"hub/models--org--{name}"
        shutil.copytree(folder, place / "snapshots/0a1b")
        (place / "refs").mkdir()
        (place / "refs/main").write_text("0a1b")
    (tmp_path / "hub/models--org--half/snapshots/0a1b/model.safetensors").unlink()
    assert notes(names(adapter, base_model_name_or_path="org/same"), tiny) == ()
    (note,) = notes(names(adapter, base_model_name_or_path="org/half"), tiny)
    assert "org/half, which is not on this machine" in note
    with pytest.raises(VectorError, match="trained on org/other, whose weights are not those of"):
        notes(names(adapter, base_model_name_or_path="org/other"), tiny)


def test_the_embedded_model_by_its_names(
    adapter: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(finding.OFFERED, "smollm2-135m", tiny_folder)
    digests = finding.digests_of("smollm2-135m")
    names(adapter, base_model_name_or_path="smollm2-135m")
    assert origin.notes_on(adapter, "smollm2-135m", digests) == ()
    names(adapter, base_model_name_or_path="HuggingFaceTB/SmolLM2-135M-Instruct")
    (note,) = origin.notes_on(adapter, "smollm2-135m", digests)
    assert note.endswith(
        "smollm2-135m holds the weights of that model in 4 bits; it is used on these"
    )


def test_our_own_adapter_says_both_names_and_how_to_insist(
    tiny: Model, other_folder: Path, tmp_path: Path
) -> None:
    with lora.adapted(tiny, LoraShape(2, 4.0)) as layers:
        randomise(layers)
        folder = write(tmp_path / "a", peft_folder.adapter_files(tiny, layers))
    other = load_tiny(other_folder)
    expected = (
        f"{folder} was trained on {tiny.name}, a model with digest {tiny.digest}, but {other.name}"
        f" has {other.digest}; name that model with --model, or train again on this one, or vouch"
        f" that {other.name} is a copy of it: --same-as {tiny.digest}"
    )
    with pytest.raises(VectorError) as raised:
        peft_folder.read_adapter(folder, other)
    assert str(raised.value) == expected
    vouched = load_model(other_folder, device="cpu", dtype="fp32", same_as=tiny.digest)
    peft_folder.read_adapter(folder, vouched)


def test_an_equal_tokenizer_beside_the_adapter_is_silent(
    adapter: Path, tiny: Model, tiny_folder: Path
) -> None:
    """As it was saved, and as trainers save it: with padding and truncation."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.save_pretrained(adapter)
    assert notes(adapter, tiny) == ()
    tokenizer(["Why?", "Why not?"], padding=True, truncation=True, max_length=8)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(adapter)
    assert notes(adapter, tiny) == ()


@pytest.mark.parametrize("what", ["chat template", "tokenizer", "chat template and tokenizer"])
def test_another_tokenizer_beside_the_adapter_is_a_remark(
    adapter: Path, tiny: Model, tiny_folder: Path, what: str, capsys: pytest.CaptureFixture
) -> None:
    tokenizer = tiny_tokenizer()
    if "template" in what:
        tokenizer.chat_template = tokenizer.chat_template.replace("helpful", "kind")
    if "tokenizer" in what:
        tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(adapter)
    expected = (
        f"{adapter} carries a {what} of its own, and {tiny.name} has another; that of {tiny.name}"
        f" is used; to use the adapter's, put its files into a copy of {tiny_folder}, and name"
        " that copy with --model"
    )
    assert notes(adapter, tiny) == (expected,)
    for _ in range(2):
        with partial_lora.mounted(tiny, adapter):
            pass
    assert capsys.readouterr().err == f"traitscope: {expected}\n"


def test_the_way_of_the_remark_works(
    adapter: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A copy of the model with the adapter's template has the same weights, so it is the base."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("helpful", "kind")
    tokenizer.save_pretrained(adapter)
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(adapter / name, copy / name)
    model = load_tiny(copy)
    with partial_lora.mounted(model, adapter):
        assert model.tokenizer.chat_template == tokenizer.chat_template
    assert capsys.readouterr().err == ""


def test_a_model_without_a_template_and_an_adapter_with_one(
    adapter: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(tiny_folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    tiny_tokenizer().save_pretrained(adapter)
    (note,) = notes(adapter, load_tiny(bare))
    assert "carries a chat template of its own" in note


def test_a_tokenizer_that_is_damaged_is_no_reason_to_fail(adapter: Path, tiny: Model) -> None:
    (adapter / "tokenizer.json").write_text("{")
    (note,) = notes(adapter, tiny)
    assert "carries a tokenizer of its own" in note
