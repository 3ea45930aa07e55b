"""Peft folders: written and read back, exchanged with peft, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from lora_students import logits_of, randomise, write
from tiny_models import eager_lm, random_rows
from torch import Tensor

from traitscope.errors import VectorError
from traitscope.interventions import lora, partial_lora, peft_folder
from traitscope.interventions.lora import LoraShape
from traitscope.models import linear_maps
from traitscope.models.model import Model

PEFT = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft calls a deprecated name
CLOSE = {"atol": 3e-5, "rtol": 1e-4}


def saved(model: Model, folder: Path, rank: int = 3, alpha: float = 7.0) -> tuple[Path, Tensor]:
    """A folder with a random adapter, and the logits of the adapted model."""
    with lora.adapted(model, LoraShape(rank, alpha)) as layers:
        randomise(layers)
        return write(folder, peft_folder.adapter_files(model, layers)), logits_of(model.lm)


def edit_digest(folder: Path, digest: str | None) -> None:
    """The digest of the base in the metadata of the weights; None: no metadata of ours."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    ours = {} if digest is None else {"traitscope_base_digest": digest}
    save_file(load_file(path), path, metadata={"format": "pt"} | ours)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_own_folder_is_read_back(family: Model, tmp_path: Path) -> None:
    base = logits_of(family.lm)
    folder, expected = saved(family, tmp_path / "a")
    with partial_lora.mounted(family, folder) as layers:
        assert torch.equal(logits_of(family.lm), expected)
        assert not any(p.requires_grad for p in family.lm.parameters())
        assert peft_folder.adapter_files(family, layers) == {
            p.name: p.read_bytes() for p in folder.iterdir()
        }
    assert torch.equal(logits_of(family.lm), base)


@PEFT
def test_peft_loads_our_folder(family: Model, tmp_path: Path) -> None:
    from peft import PeftModel

    folder, expected = saved(family, tmp_path / "a")
    theirs = PeftModel.from_pretrained(eager_lm(family), str(folder)).eval()
    torch.testing.assert_close(logits_of(theirs), expected, **CLOSE)


@PEFT
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("all_linear", [False, True])
def test_we_load_a_folder_of_peft(
    family: Model, tmp_path: Path, rslora: bool, all_linear: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    gpt2 = "h.0.attn.c_attn" in str(linear_maps.linear_names(family))
    some = ["c_attn"] if gpt2 else ["q_proj", "down_proj"]
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        init_lora_weights=False,
        fan_in_fan_out=gpt2,
        task_type="CAUSAL_LM",
        target_modules="all-linear" if all_linear else some,
    )
    torch.manual_seed(0)
    theirs = get_peft_model(eager_lm(family), config).eval()
    theirs.save_pretrained(tmp_path)
    base, expected = logits_of(family.lm), logits_of(theirs)
    assert (expected - base).abs().max() > 0.1
    with partial_lora.mounted(family, tmp_path) as layers:
        assert len(layers) == (
            len(linear_maps.linear_names(family)) if all_linear else family.n_layers * len(some)
        )
        torch.testing.assert_close(logits_of(family.lm), expected, **CLOSE)


@PEFT
def test_an_adapter_trained_by_peft_gives_the_same_logits(tiny: Model, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    theirs = get_peft_model(
        eager_lm(tiny), LoraConfig(r=2, lora_alpha=8, target_modules=["v_proj", "up_proj"])
    )
    ids = torch.tensor(random_rows(tiny, [9, 9]))
    optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=0.05)
    for _ in range(5):
        theirs(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    theirs.eval().save_pretrained(tmp_path)
    base, expected = logits_of(tiny.lm), logits_of(theirs)
    assert (expected - base).abs().max() > 0.1
    with partial_lora.mounted(tiny, tmp_path):
        torch.testing.assert_close(logits_of(tiny.lm), expected, **CLOSE)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"use_dora": True}, "DoRA with magnitudes of 0 of 21 maps; expected those of every map"),
        ({"peft_type": "IA3"}, "adapter of the kind IA3; expected LORA; train"),
        ({"peft_type": "VERA", "r": None}, "^(?!.*damaged).*adapter of the kind VERA; expected"),
        ({"bias": "some"}, "bias is 'some'; expected one of none, all, lora_only; copy"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save names lm_head, whose weights are not"),
        ({"rank_pattern": {"q_proj": 2}}, "expected A .2, inputs. and B .outputs, 2., as the"),
        ({"rank_pattern": {"q_(": 2}}, "holds a damaged adapter: rank_pattern holds .*, which is"),
        ({"rank_pattern": 3}, "rank_pattern is 3, expected values by name"),
        ({"alpha_pattern": {"q_proj": -1}}, "alpha_pattern has -1, expected a number above 0"),
        ({"layers_to_transform": "1", "target_modules": ["q_proj"]}, "expected numbers of layers"),
        ({"target_modules": [3]}, "target_modules is .3., expected names of modules"),
        ({"target_modules": ["q_proj"]}, "is of a map that target_modules does not name, so peft"),
        ({"layer_replication": [[0, 2]]}, "settings layer_replication are not understood; expec"),
        ({"lora_bias": True}, "settings lora_bias are not understood"),
        ({"trainable_token_indices": [5]}, "settings trainable_token_indices are not understood"),
        ({"a_later_setting": {"x": 1}}, "settings a_later_setting are not understood"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the weights"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion=START"),
        ({"init_lora_weights": "olora"}, "convert it where it was trained, by peft's"),
        ({"init_lora_weights": "loftq"}, "which changes the weights of the base at the start"),
        ({"init_lora_weights": "corda"}, "which changes the weights of the base at the start"),
        ({"init_lora_weights": ["x"]}, "init_lora_weights is .*x.*, which changes the weights"),
    ],
)
def test_other_bases_and_kinds_are_refused(
    tiny: Model, tmp_path: Path, changes: dict, message: str
) -> None:
    folder, _ = saved(tiny, tmp_path / "a")
    edit_config(folder, **changes)
    with pytest.raises(VectorError, match=message), partial_lora.mounted(tiny, folder):
        pass


def test_an_adapter_without_our_digest_is_checked_by_shape(
    families: dict[str, Model], tmp_path: Path
) -> None:
    folder, expected = saved(families["llama"], tmp_path / "a")
    edit_digest(folder, None)
    edit_config(folder, base_model_name_or_path="/gone")
    with partial_lora.mounted(families["llama"], folder):
        assert torch.equal(logits_of(families["llama"].lm), expected)
    for other in ("qwen2", "gpt2"):  # one block less; other names
        with (
            pytest.raises(VectorError, match="does not fit"),
            partial_lora.mounted(families[other], folder),
        ):
            pass


def test_another_base(tiny: Model, tmp_path: Path) -> None:
    """By the digest in the metadata, or in the settings, where earlier versions wrote it."""
    folder, _ = saved(tiny, tmp_path / "a")
    edit_digest(folder, "0123")
    with pytest.raises(VectorError, match="trained on .*llama, a model with digest 0123, but .*"):
        peft_folder.read_adapter(folder, tiny)
    edit_digest(folder, None)
    edit_config(folder, traitscope_base_digest="4567")
    with pytest.raises(VectorError, match="a model with digest 4567, but"):
        peft_folder.read_adapter(folder, tiny)
    edit_config(folder, traitscope_base_digest=tiny.digest)
    peft_folder.read_adapter(folder, tiny)


SETTINGS_OF_PEFT_0_10 = (
    "peft_type auto_mapping base_model_name_or_path revision task_type inference_mode r"
    " target_modules lora_alpha lora_dropout fan_in_fan_out bias use_rslora modules_to_save"
    " init_lora_weights layers_to_transform layers_pattern rank_pattern alpha_pattern"
    " megatron_config megatron_core loftq_config use_dora layer_replication"
)
"what LoraConfig of peft 0.10 takes; it raises TypeError for anything else"


def test_older_versions_of_peft_know_all_settings(family: Model, tmp_path: Path) -> None:
    folder, _ = saved(family, tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config.keys() <= set(SETTINGS_OF_PEFT_0_10.split())


def test_missing_files(tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(
        VectorError, match="adapter_config.json and adapter_model.safetensors missing"
    ):
        peft_folder.read_adapter(tmp_path, tiny)


@pytest.mark.parametrize(
    "key, shape, message",
    [
        ("lm_head.lora_{}.weight", 420, "0 of 21 maps that target_modules names are in the file"),
        ("model.layers.0.mlp.up_proj.lora_embedding_{}", 48, "does not fit"),
        ("model.layers.0.mlp.up_proj.lora_{}.bias", 48, "is not of a LoRA that is read"),
        ("model.layers.0.mlp.up_proj.{}_twice", 48, "is not of a LoRA that is read"),
        ("model.layers.0.mlp.up_proj.{}.weight", 48, "is .*no weight of the model here"),
    ],
)
def test_tensors_that_would_be_dropped_or_break_the_head(
    tiny: Model, tmp_path: Path, key: str, shape: int, message: str
) -> None:
    """An adapter outside the blocks, on an embedding, or with a bias is refused rather than read in
    part."""
    from safetensors.torch import save_file

    folder, _ = saved(tiny, tmp_path / "a")
    tensors = {"A": torch.zeros(3, 32), "B": torch.zeros(shape, 3)}
    save_file(
        {"base_model.model." + key.format(x): t for x, t in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    with pytest.raises(VectorError, match=message):
        peft_folder.read_adapter(folder, tiny)


MAP = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
"a map of the tiny model that takes 32 values and gives 32"
PAIR = {MAP.format("A"): torch.ones(3, 32), MAP.format("B"): torch.ones(32, 3)}


def with_tensors(model: Model, folder: Path, tensors: dict[str, Tensor]) -> Path:
    """A folder with an adapter of rank 3 that holds these tensors."""
    from safetensors.torch import save_file

    saved(model, folder)
    edit_config(folder, target_modules=["q_proj"], layers_to_transform=[0])
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    "changes, message",
    [
        ({MAP.format("B"): None}, r"q_proj.lora_B.weight is missing; expected a matrix for A and"),
        ({MAP.format("A"): None}, r"q_proj.lora_A.weight is missing"),
        ({MAP.format("A"): torch.ones(3)}, r"q_proj.lora_A.weight has the shape \[3\]"),
        ({MAP.format("B"): torch.ones(())}, r"q_proj.lora_B.weight has the shape \[\]"),
        ({MAP.format("B"): torch.ones(32, 2)}, r"\[32, 2\] of .*q_proj; .* have r 3; copy or tr"),
        (
            {MAP.format("A"): torch.ones(2, 32)},
            r"A \[2, 32\] and B \[32, 3\] of .*q_proj; expected A",
        ),
        ({MAP.format("A"): torch.ones(3, 31)}, r"q_proj \[32, 31\] does not fit"),
        ({MAP.format("A"): torch.full((3, 32), float("nan"))}, "numbers that are not finite"),
        (
            {MAP.format("A"): torch.full((3, 32), 1e300, dtype=torch.float64)},
            "numbers that are not finite",
        ),
        (
            {MAP.format("B"): torch.ones(32, 3, dtype=torch.int8)},
            "is int8, expected one of float16",
        ),
        (
            {MAP.format("A").removeprefix("base_model.model."): torch.ones(3, 32)},
            "q_proj.lora_A.weight is there twice under two names; expected it once",
        ),
    ],
)
def test_factors_that_do_not_multiply_or_fit(
    tiny: Model, tmp_path: Path, changes: dict, message: str
) -> None:
    tensors = {name: value for name, value in (PAIR | changes).items() if value is not None}
    folder = with_tensors(tiny, tmp_path / "a", tensors)
    with pytest.raises(VectorError, match=message) as raised:
        peft_folder.read_adapter(folder, tiny)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_an_adapter_of_half_precision_is_read(tiny: Model, tmp_path: Path) -> None:
    low = {name: value.bfloat16() for name, value in PAIR.items()}
    _, factors = peft_folder.read_adapter(with_tensors(tiny, tmp_path / "a", low), tiny)
    ((a_RI, b_OR),) = factors.values()
    assert a_RI.dtype == b_OR.dtype == torch.float32 and a_RI.sum() == 96


def test_an_adapter_of_no_map(tiny: Model, tmp_path: Path) -> None:
    folder = with_tensors(tiny, tmp_path / "a", {})
    with pytest.raises(VectorError, match="holds no tensor; expected A and B of one linear map"):
        peft_folder.read_adapter(folder, tiny)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"r": 2.5}, "r is 2.5 in adapter_config.json, expected a whole number of 1 or more"),
        ({"r": 0}, "r is 0 in"),
        ({"r": True}, "r is True in"),
        ({"r": None}, "r is None in"),
        ({"r": "3"}, "r is '3' in"),
        ({"r": 10**400}, "r or rank_pattern has 1000"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"lora_alpha": {}}, "lora_alpha is {} in"),
        ({"alora_invocation_tokens": [1]}, "settings alora_invocation_tokens are not understood"),
    ],
)
def test_settings_that_no_adapter_has(
    tiny: Model, tmp_path: Path, changes: dict, message: str
) -> None:
    folder = with_tensors(tiny, tmp_path / "a", PAIR)
    edit_config(folder, **changes)
    with pytest.raises(VectorError, match=message):
        peft_folder.read_adapter(folder, tiny)


@pytest.mark.parametrize(
    "text", ['{"r": 1e999, "lora_alpha": 4}', '{"r": NaN}', "[]", "{", "[" * 9999]
)
def test_a_config_that_is_none(tiny: Model, tmp_path: Path, text: str) -> None:
    folder = with_tensors(tiny, tmp_path / "a", PAIR)
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(VectorError, match="holds a damaged adapter: .*; copy or train it again"):
        peft_folder.read_adapter(folder, tiny)


def test_a_damaged_adapter_is_refused_wherever_it_is_used(tiny: Model, tmp_path: Path) -> None:
    """Alone, among packed students, and when it is written into a checkpoint."""
    from traitscope.interventions import multi_lora
    from traitscope.interventions.intervention import Adapter
    from traitscope.interventions.pass_state import CurrentPass
    from traitscope.stages import export

    folder = with_tensors(tiny, tmp_path / "a", {MAP.format("A"): PAIR[MAP.format("A")]})
    modules = [type(module) for module in tiny.lm.modules()]
    for use in (
        lambda: partial_lora.mounted(tiny, folder).__enter__(),
        lambda: multi_lora.mounted(tiny, [folder], CurrentPass()).__enter__(),
        lambda: export.export(tiny, [Adapter(str(folder))]),
    ):
        with pytest.raises(VectorError, match="lora_B.weight is missing"):
            use()
    assert [type(module) for module in tiny.lm.modules()] == modules
