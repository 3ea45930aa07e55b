"""What makes the address of a run."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import random_vector

from traitscope.config.common import Output
from traitscope.config.stages import FilterConfig, GenerateConfig, MeasureConfig
from traitscope.errors import DataError, VectorError
from traitscope.interventions.vector import vector_bytes
from traitscope.runs import model_cache, opening
from traitscope.stages import registry


@pytest.fixture
def vector(tiny, tmp_path: Path) -> Path:
    path = tmp_path / "v.safetensors"
    path.write_bytes(vector_bytes(random_vector(tiny)))
    return path


def addresses(config, out: Output, **inputs) -> str:
    with registry.opened(opening.settled(config), out, inputs) as run:
        (run.path / "done.txt").write_text("x")
        return run.address


def test_the_address_changes_with_every_setting_and_with_nothing_else(
    tiny_folder: Path, tmp_path: Path
):
    base = GenerateConfig(model=str(tiny_folder), device="cpu", dtype="fp32")
    changed = {
        "seed": 1,
        "n": 3,
        "prompt_seed": 1,
        "count": 3,
        "context": "",
        "interventions": ("prompt:Hi",),
        "dtype": "bf16",
        "vocabulary": "numbers",
        "separator": " ",
        "temperature": 0.5,
        "max_new_tokens": 3,
        "batch_size": 3,
    }
    out = Output(root=tmp_path)
    first = addresses(base, out)
    assert addresses(base, Output(root=tmp_path / "elsewhere", study="other")) == first
    assert addresses(replace(base, device="auto", dtype="auto"), out) in (
        first,
        addresses(replace(base, dtype="bf16"), out),
    )
    found = {
        name: addresses(replace(base, **{name: value}), out) for name, value in changed.items()
    }
    assert len({first, *found.values()}) == 1 + len(changed)


def test_files_count_by_their_content_not_by_their_place(
    vector: Path, tiny_folder: Path, tmp_path: Path
):
    copy = tmp_path / "sub" / "copy.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(vector.read_bytes())
    out = Output(root=tmp_path / "runs")

    def address(path: Path) -> str:
        teacher = (f"steer:{path},layers=1,alpha=1",)
        return addresses(GenerateConfig(model=str(tiny_folder), interventions=teacher), out)

    first = address(vector)
    assert address(copy) == first
    copy.write_bytes(copy.read_bytes()[:-4] + b"\x00\x00\x00\x01")
    assert address(copy) != first


def test_a_model_counts_by_its_files(tiny_folder: Path, folders, tmp_path: Path):
    (tmp_path / "link").symlink_to(tiny_folder)
    found = [
        model_cache.model_digest(str(folder))
        for folder in (tiny_folder, tmp_path / "link", folders["gpt2"])
    ]
    assert found[0] == found[1] != found[2]


def test_a_refused_run_leaves_no_directory_but_a_begun_one_stays(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    config, out = FilterConfig(rows), Output(root=tmp_path / "runs")
    for error in (DataError("refused"), KeyboardInterrupt(), KeyError("a bug")):
        with pytest.raises(type(error)), registry.opened(config, out):
            raise error
        assert not (tmp_path / "runs").exists()
    with pytest.raises(DataError), registry.opened(config, out) as run:
        run.file("partial.txt").write_text("work")
        raise DataError("refused")
    assert run.file("partial.txt").read_text() == "work"


def test_inputs_must_be_there(tiny_folder: Path, tmp_path: Path):
    out = Output(root=tmp_path / "runs")
    with pytest.raises(DataError, match="does not exist"):
        addresses(FilterConfig(data=tmp_path / "none.jsonl"), out)
    with pytest.raises(VectorError, match="no vector file"):
        addresses(
            MeasureConfig(
                model=str(tiny_folder), interventions=(f"steer:{tmp_path}/no,layers=1,alpha=1",)
            ),
            out,
        )
    assert not (tmp_path / "runs").exists()


def test_settled_says_what_this_machine_computes(tiny_folder: Path):
    config = opening.settled(GenerateConfig(model=str(tiny_folder)))
    assert config.device in ("cpu", "cuda")
    assert config.dtype in ("fp32", "bf16")
    assert opening.settled(FilterConfig()) == FilterConfig()


def test_files_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo: str, file: str, repo_type: str) -> str:
        asked.append((repo, file, repo_type))
        return str(tmp_path / "x.csv")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    config = GenerateConfig(
        prompts=Path("hub:JailbreakBench/JBB-Behaviors/data/harmful-behaviors.csv"), device="cpu"
    )
    assert opening.settled(config).prompts == tmp_path / "x.csv"
    assert asked == [("JailbreakBench/JBB-Behaviors", "data/harmful-behaviors.csv", "dataset")]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hub:owner", "expected hub:OWNER/NAME@SPLIT or hub:OWNER/NAME/FILE"),
        ("hub:owner/name/file.csv", "could not be fetched from the hub .ConnectionError."),
    ],
)
def test_a_file_of_the_hub_that_cannot_be_had(
    name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(DataError, match=says):
        opening.settled(GenerateConfig(prompts=Path(name), device="cpu"))
