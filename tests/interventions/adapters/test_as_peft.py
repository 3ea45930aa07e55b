"""Every kind of peft adapter that is read gives peft's own logits; every other one is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_kinds import (
    KINDS,
    LLAMA,
    REFUSED,
    adapter_of_peft,
    loaded_by_peft,
    with_settings,
)
from lora_students import logits_of
from safetensors.torch import load_file, save_file
from tiny_models import (
    eager_lm,
    load_tiny,
    parameters_of,
    random_rows,
    random_vector,
    row_logits,
    save_tiny_of_images,
)
from torch import Tensor

from traitscope.errors import ConfigError, VectorError
from traitscope.interventions import peft_folder
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Adapter, ReplaceBase
from traitscope.models.model import Model
from traitscope.stages import export

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:::peft"),
    pytest.mark.filterwarnings("ignore:.*tied.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`.*:UserWarning"),
]
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def check_as_peft(model: Model, folder: Path, expected: Tensor) -> None:
    before = parameters_of(model)
    base = logits_of(model.lm)
    assert (expected - base).abs().max() > 0.05
    with applied(model, [Adapter(str(folder))]):
        torch.testing.assert_close(logits_of(model.lm), expected, **CLOSE)
    after = parameters_of(model)
    assert before.keys() == after.keys() and torch.equal(logits_of(model.lm), base)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["llama", "qwen2"])
def test_logits_are_those_of_peft(
    families: dict[str, Model], tmp_path: Path, kind: str, base: str
) -> None:
    """On a model whose head is tied to its embedding (llama), and on one with biases (qwen2)."""
    model = families[base]
    check_as_peft(model, tmp_path, adapter_of_peft(model, tmp_path, **KINDS[kind]))


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases(families: dict[str, Model], tmp_path: Path, bias: str) -> None:
    for name, maps in (("qwen2", ["q_proj"]), ("gpt2", ["c_attn", "c_proj"])):
        settings = {"target_modules": maps, "bias": bias, "fan_in_fan_out": name == "gpt2"}
        folder = tmp_path / name
        check_as_peft(families[name], folder, adapter_of_peft(families[name], folder, **settings))


@pytest.mark.parametrize("further", [{}, {"use_dora": True}, {"rank_pattern": {"c_attn": 2}}])
def test_maps_that_store_their_weights_transposed(
    families: dict[str, Model], tmp_path: Path, further: dict
) -> None:
    settings = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True} | further
    expected = adapter_of_peft(families["gpt2"], tmp_path, **settings)
    check_as_peft(families["gpt2"], tmp_path, expected)


def test_older_files_of_dora(tiny: Model, tmp_path: Path) -> None:
    """peft 0.9 wrote the magnitudes as [1, O]; some versions under another ending."""
    expected = adapter_of_peft(tiny, tmp_path, **KINDS["dora"])
    ending = ".lora_magnitude_vector"
    renamed(tmp_path, lambda key: key.replace(ending, f"{ending}.default.weight"))
    check_as_peft(tiny, tmp_path, expected)


@pytest.mark.parametrize("kind", ["pissa", "olora", "pissa_niter_4"])
def test_converted_initialisations_are_read_and_others_refused(
    tiny: Model, tmp_path: Path, kind: str
) -> None:
    """peft's own conversion gives a plain LoRA of twice the rank; without it the base is another
    one."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=4, init_lora_weights=kind, **LLAMA)
    theirs = peft.get_peft_model(eager_lm(tiny), config)
    start, folder = tmp_path / "start", tmp_path / "converted"
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(start)
    theirs.peft_config["default"].init_lora_weights = kind
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    trained = logits_of(theirs.eval())
    theirs.save_pretrained(tmp_path / "alone")
    with pytest.raises(VectorError, match=f"init_lora_weights is '{kind}', which changes the"):
        peft_folder.read_adapter(tmp_path / "alone", tiny)
    theirs.save_pretrained(folder, path_initial_model_for_weight_conversion=str(start))
    check_as_peft(tiny, folder, loaded_by_peft(tiny, folder))
    with applied(tiny, [Adapter(str(folder))]):
        torch.testing.assert_close(logits_of(tiny.lm), trained, atol=2e-4, rtol=2e-4)


def renamed(folder: Path, rename: Any) -> None:
    """The file with other names of its tensors; those that become empty are left out."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = {rename(key): value for key, value in load_file(path).items()}
    tensors.pop("", None)
    save_file(tensors, path, metadata={"format": "pt"})


PREFIX = "base_model.model."
RENAMED = {
    "without_prefix": lambda key: key.removeprefix(PREFIX),
    "adapter_name": lambda key: key.replace(".weight", ".default.weight"),
    "own_adapter_name": lambda key: key.replace(".weight", ".mine.weight"),
    "distributed": lambda key: key.replace(".mlp.", "._fsdp_wrapped_module.mlp.").replace(
        ".self_attn.", "._checkpoint_wrapped_module.self_attn."
    ),
    "in_several_ways": lambda key: key.removeprefix(PREFIX) if "layers.1." in key else key,
    "compiled": lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."),
    "reads_images": lambda key: key.replace("model.layers", "model.language_model.layers"),
    "without_model": lambda key: key.replace(f"{PREFIX}model.", PREFIX),
}


@pytest.mark.parametrize("kind", RENAMED)
def test_other_names_of_the_same_tensors(
    tiny: Model, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture
) -> None:
    """They are read as peft's names, and the terminal says so."""
    expected = adapter_of_peft(tiny, tmp_path, **LLAMA)
    renamed(tmp_path, RENAMED[kind])
    check_as_peft(tiny, tmp_path, expected)
    said = capsys.readouterr().err
    n_renamed = 4 if kind == "in_several_ways" else 12
    assert f"{n_renamed} tensors are read under peft's names, such as" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (
            lambda key: key if "layers.0." in key else "",
            "2 of 6 maps that target_modules names are",
        ),
        (
            lambda key: key.removeprefix(PREFIX) if "layers.0." in key else "",
            "2 of 6 maps that target_modules names are in the file, model.layers.1.mlp.down_proj, ",
        ),
        (
            lambda key: (
                key.replace("model.layers", "model.language_model.layers")
                if "q_proj" in key
                else ""
            ),
            "3 of 6 maps that target_modules names are in the file, model.layers.0.mlp.down_proj, ",
        ),
        (
            lambda key: key.replace(".weight", ".one.weight" if "q_proj" in key else ".two.weight"),
            r"holds several adapters by the names in it \(one, two\); expected one; save each in a",
        ),
        (lambda key: "" if "1.self_attn.q_proj.lora_B" in key else key, "lora_B.weight is missing"),
        (lambda key: key.replace("model.layers", "vision_tower.layers"), "does not fit"),
        (lambda key: key.replace("lora_A", "lora_C"), "is not of a LoRA that is read"),
    ],
)
def test_files_that_lack_a_part(tiny: Model, tmp_path: Path, rename: Any, message: str) -> None:
    adapter_of_peft(tiny, tmp_path, **LLAMA)
    renamed(tmp_path, rename)
    with pytest.raises(VectorError, match=message), applied(tiny, [Adapter(str(tmp_path))]):
        pass


def changed(folder: Path, **settings: Any) -> None:
    """The settings file with other values."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


UNNAMED = "holds A and B of .*, and adapter_config.json names no target_modules"


@pytest.mark.parametrize(
    ("settings", "said", "message"),
    [
        (LLAMA, {"target_modules": None}, f'{UNNAMED}.*put in .*"down_proj", "q_proj"'),
        (LLAMA, {"target_modules": []}, UNNAMED),
        (KINDS["embedding"], {"target_modules": None}, UNNAMED),
        (LLAMA, {"target_modules": "all-linear"}, "6 of 21 maps that target_modules names"),
        (
            {"target_modules": r".*(_proj|lm_head)"},
            {"target_modules": "all-linear"},
            "the adapter on lm_head is of a map that target_modules does not name",
        ),
        (
            LLAMA | {"modules_to_save": ["lm_head", "embed_tokens"]},
            {"modules_to_save": None},
            "lm_head.weight.* two values, are one weight of .*, and are not named by modules_to_s",
        ),
    ],
)
def test_what_the_file_has_and_the_settings_do_not_name_is_refused(
    tiny: Model, tmp_path: Path, settings: dict, said: dict, message: str
) -> None:
    """peft would choose other maps, leave them out, or take the last of two values."""
    adapter_of_peft(tiny, tmp_path, **settings)
    changed(tmp_path, **said)
    with pytest.raises(VectorError, match=message):
        peft_folder.read(tmp_path, tiny)


@pytest.mark.parametrize("saved", [["lm_head"], ["embed_tokens"], ["norm", "k_proj"]])
def test_weights_that_no_setting_names_are_read_as_peft_reads_them(
    tiny: Model, tmp_path: Path, saved: list
) -> None:
    """Into the base, with what is tied to them."""
    adapter_of_peft(tiny, tmp_path, **LLAMA, modules_to_save=saved)
    changed(tmp_path, modules_to_save=None)
    check_as_peft(tiny, tmp_path, loaded_by_peft(tiny, tmp_path))


def test_a_new_value_of_a_weight_whose_twin_has_a_lora_is_refused(
    tiny: Model, tmp_path: Path
) -> None:
    """peft adds the LoRA to the value from before; the model's own value changes nothing."""
    adapter_of_peft(tiny, tmp_path, **LLAMA | {"target_modules": ["q_proj", "lm_head"]})
    expected = loaded_by_peft(tiny, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors, own = load_file(file), tiny.lm.model.embed_tokens.weight.detach()
    for value in (own.clone(), torch.randn_like(own)):
        save_file(tensors | {"base_model.model.model.embed_tokens.weight": value}, file)
        if torch.equal(value, own):
            check_as_peft(tiny, tmp_path, expected)
            continue
        with pytest.raises(VectorError, match="embed_tokens.weight and a LoRA of lm_head.weight"):
            peft_folder.read(tmp_path, tiny)


def test_settings_under_the_names_of_the_file(tiny: Model, tmp_path: Path) -> None:
    """A pattern of the program that wrote the file names its modules, not the model's."""
    expected = adapter_of_peft(tiny, tmp_path, **LLAMA)
    renamed(tmp_path, RENAMED["reads_images"])
    pattern = r"model\.language_model\.layers\.\d+\.(mlp\.down|self_attn\.q)_proj"
    changed(tmp_path, target_modules=pattern)
    check_as_peft(tiny, tmp_path, expected)
    changed(tmp_path, target_modules=pattern.replace("q)_proj", "[qk])_proj"))
    with pytest.raises(VectorError, match="6 of 9 maps that target_modules names .*0.self_attn.k_"):
        peft_folder.read(tmp_path, tiny)


def test_a_part_of_a_saved_module_that_is_not_in_the_file(tiny: Model, tmp_path: Path) -> None:
    adapter_of_peft(tiny, tmp_path, **KINDS["saved_attention"])
    renamed(tmp_path, lambda key: "" if "1.self_attn.k_proj" in key else key)
    with pytest.raises(VectorError, match="names model.layers.1.self_attn.k_proj, whose"):
        peft_folder.read(tmp_path, tiny)


def test_the_way_for_each_changed_base(tiny: Model, tmp_path: Path) -> None:
    """peft converts some initialisations; the base of LoftQ is another one, and is merged."""
    folder = with_settings(tiny, tmp_path, {"init_lora_weights": "loftq"})
    with pytest.raises(VectorError, match=r"plain LoRA; merge it into the base .*unload\(\)"):
        peft_folder.read(folder, tiny)
    for kind in ("pissa_niter_4", "corda", "olora", "lora_ga"):
        changed(folder, init_lora_weights=kind)
        with pytest.raises(VectorError, match="plain LoRA; convert it where it was trained, by"):
            peft_folder.read(folder, tiny)
    changed(folder, init_lora_weights="Gaussian")
    assert peft_folder.read(folder, tiny).factors


def test_a_whole_adapter_on_all_linear_maps_by_that_word(tiny: Model, tmp_path: Path) -> None:
    expected = adapter_of_peft(tiny, tmp_path, **KINDS["all_linear"])
    changed(tmp_path, target_modules="all-linear")
    check_as_peft(tiny, tmp_path, expected)


def test_a_weight_beside_its_factors_is_refused(tiny: Model, tmp_path: Path) -> None:
    """peft reads it under another name alone."""
    from safetensors.torch import load_file, save_file

    adapter_of_peft(tiny, tmp_path, **LLAMA)
    path, name = tmp_path / "adapter_model.safetensors", "model.layers.0.self_attn.q_proj"
    weight = 2 * tiny.lm.get_submodule(name).weight.detach()
    save_file({**load_file(path), f"{PREFIX}{name}.weight": weight}, path)
    with pytest.raises(VectorError, match=rf"{name}\.weight stands beside A and B of that map"):
        peft_folder.read(tmp_path, tiny)


@pytest.mark.parametrize(("bias", "n_biases"), [("all", 6), ("lora_only", 2)])
def test_biases_that_are_not_in_the_file_are_said(
    families: dict[str, Model],
    tmp_path: Path,
    bias: str,
    n_biases: int,
    capsys: pytest.CaptureFixture,
) -> None:
    """Those of the base stay, as in peft. A model without biases lacks none."""
    model = families["qwen2"]
    adapter_of_peft(model, tmp_path, **LLAMA, bias=bias)
    capsys.readouterr()
    for part, n_missing in (("layers.9.", 0), ("layers.0.", n_biases // 2), ("", n_biases)):
        renamed(tmp_path, lambda key, part=part: "" if part in key and "bias" in key else key)
        check_as_peft(model, tmp_path, loaded_by_peft(model, tmp_path))
        said = capsys.readouterr().err
        assert said.count("biases are not in the file, such as model.layers.") == bool(n_missing)
        assert f"says bias {bias}, and {n_missing} of {n_biases} biases" in said or not n_missing
    adapter_of_peft(families["llama"], tmp_path / "llama", **LLAMA, bias=bias)
    peft_folder.read(tmp_path / "llama", families["llama"])
    assert "biases" not in capsys.readouterr().err


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_followed_is_refused(tiny: Model, tmp_path: Path, name: str) -> None:
    settings = REFUSED[name]
    folder = with_settings(tiny, tmp_path / "a", settings)
    key = next(iter(settings))
    message = f"settings {key} are not understood"
    if key == "init_lora_weights":
        message = f"init_lora_weights is '{settings[key]}', which changes the"
    with pytest.raises(VectorError, match=message):
        peft_folder.read_adapter(folder, tiny)


@pytest.mark.parametrize("kind", ["dora", "saved_head", "head", "saved_embedding"])
def test_an_adapter_of_weights_is_used_whole_and_alone(
    tiny: Model, tmp_path: Path, kind: str
) -> None:
    expected = adapter_of_peft(tiny, tmp_path, **KINDS[kind])
    folder = str(tmp_path)
    with pytest.raises(VectorError, match="use it as a whole and alone"):
        peft_folder.read_adapter(tmp_path, tiny)
    with pytest.raises(ConfigError, match="only one can act in part"):
        with applied(tiny, [Adapter(folder, cells="mlp")]):
            pass
    written = export.export(tiny, [Adapter(folder)])
    torch.testing.assert_close(logits_of(written.lm), expected, **CLOSE)


def component(model: Model, interventions: list, unit_D: Tensor) -> Tensor:
    """Components of the residuals behind block 1 along a direction, at each token."""
    kept: list[Tensor] = []
    with applied(model, interventions) as active:
        handle = model.blocks[2].register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        row_logits(model, active, random_rows(model, [6]), [6])
        handle.remove()
    return kept[-1] @ unit_D


def test_the_base_below_an_adapter_of_weights(tiny: Model, tmp_path: Path) -> None:
    """ReplaceBase takes the component of the base without the adapter's weights."""
    adapter_of_peft(tiny, tmp_path, **KINDS["dora_and_patterns"])
    vector = random_vector(tiny)
    unit_D = torch.from_numpy(vector.unit().rows_LD[1])
    student = Adapter(str(tmp_path))
    base, changed = component(tiny, [], unit_D), component(tiny, [student], unit_D)
    replaced = component(tiny, [student, ReplaceBase(vector, layer=1)], unit_D)
    torch.testing.assert_close(replaced, base, atol=1e-5, rtol=1e-5)
    assert (changed - base).abs().max() > 0.01


def test_weights_of_another_base_are_found(
    tiny: Model, families: dict[str, Model], tmp_path: Path
) -> None:
    """peft saves the base's head beside an adapter on it."""
    from safetensors.torch import load_file, save_file

    adapter_of_peft(tiny, tmp_path, **KINDS["head"])
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    (key,) = [key for key in tensors if key.endswith("base_layer.weight")]
    tensors[key] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(VectorError, match="holds lm_head.weight of the model that it was trained"):
        peft_folder.read(tmp_path, tiny)


def test_maps_that_only_images_pass(tmp_path: Path) -> None:
    """A list of target_modules also means maps of the part that reads images."""
    model = load_tiny(save_tiny_of_images(tmp_path / "base"))
    adapter_of_peft(model, tmp_path / "both", target_modules=["q_proj"])
    message = r"changes model.vision_tower.*q_proj of .*, which is no map of the language model's"
    with pytest.raises(VectorError, match=message):
        peft_folder.read(tmp_path / "both", model)
    pattern = r".*language_model.*\.(q_proj|down_proj)"
    expected = adapter_of_peft(model, tmp_path / "text", target_modules=pattern)
    check_as_peft(model, tmp_path / "text", expected)
