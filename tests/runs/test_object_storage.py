"""Runs that are exchanged through a storage: the same to the byte, whole or not there; a node that
shares no disk computes."""

from pathlib import Path

import pytest
from command import ok

from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.stages import MeasureConfig, TrainConfig
from traitscope.errors import ConfigError, StoreError
from traitscope.runs import lineage, store
from traitscope.runs.object_storage import Storage
from traitscope.workflow import ray_executor


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A sealed run of `generate`, in <root>/default."""
    return ok(
        tmp_path_factory.mktemp("made") / "runs",
        "generate",
        "--model",
        tiny_folder,
        "--n 6 --count 3 --vocabulary template",
    ).run


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Storage:
    """A storage for a root of its own, where a copy of that run lies."""
    root = tmp_path / "runs"
    (root / "default" / made.name).mkdir(parents=True)
    for path in made.iterdir():
        (root / "default" / made.name / path.name).write_bytes(path.read_bytes())
    return Storage(f"file://{tmp_path}/far/away", root)


def test_a_run_comes_back_as_it_was(place: Storage, made: Path) -> None:
    run = place.root / "default" / made.name
    place.upload(run)
    sealed = (
        (place.root.parent / "far/away/default" / made.name / "manifest.json").stat().st_mtime_ns
    )
    place.upload(run)
    assert (
        place.root.parent / "far/away/default" / made.name / "manifest.json"
    ).stat().st_mtime_ns == sealed, "put there twice"
    place.download(run)
    run.rename(place.root / "default" / "aside")
    place.download(run)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == {
        p.name: p.read_bytes() for p in made.iterdir()
    }
    assert lineage.verify(run) == [] and [p.name for p in run.parent.glob(".*")] == []


def test_what_is_half_there_is_not_there(place: Storage, made: Path) -> None:
    run, far = (
        place.root / "default" / made.name,
        place.root.parent / "far/away/default" / made.name,
    )
    place.upload(run)
    run.rename(place.root / "aside")
    (far / "records.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match=r"came damaged from file://.*records\.jsonl changed"):
        place.download(run)
    for name in ("records.jsonl", "manifest.json"):
        (far / name).unlink()
        with pytest.raises(StoreError, match="is not here and could not be had from"):
            place.download(run)
    assert list(run.parent.iterdir()) == []


def test_the_inputs_of_a_config_are_found(place: Storage, tiny_folder: Path) -> None:
    """Paths and what interventions name, below the root only."""
    root, model = place.root, str(tiny_folder)
    train, filtered, other = (f"{stage}-{'0a' * 8}" for stage in ("train", "filter", "train"))
    config = MeasureConfig(
        model=model,
        interventions=(
            f"adapter:{root}/s/{train},where=system",
            f"steer:/else/s/{other}/v.safetensors,layers=1,alpha=1",
        ),
    )
    assert list(place._named(config)) == [root / "s" / train]
    assert list(
        place._named(
            TrainConfig(
                model=model,
                data=root / "s" / filtered,
                vector=root / "t" / train / "owl.safetensors",
            )
        )
    ) == [root / "s" / filtered, root / "t" / train]


def test_a_node_that_shares_no_disk_makes_the_same_run(
    place: Storage, made: Path, tiny_folder: Path
) -> None:
    """The command's root is away while the node works, so nothing but the storage can have brought
    its input."""
    root, out = place.root, Output(root=place.root)
    config = TrainConfig(
        model=str(tiny_folder),
        device="cpu",
        dtype="fp32",
        data=root / "default" / made.name,
        recipe=Recipe(epochs=1, rank=2, micro_batch=4),
    )
    place.upload_inputs(config)
    root.rename(root.parent / "command")
    (run,) = ray_executor.Worker(out, "mark", 1, place).run([config], None)
    assert run.is_relative_to(root) and {p.name for p in (root / "default").iterdir()} >= {
        made.name,
        run.name,
    }
    root.rename(root.parent / "node")
    (root.parent / "command").rename(root)
    place.download(run)
    alone = ok(
        root.parent / "alone",
        "train",
        "--model",
        tiny_folder,
        "--data",
        config.data,
        "--epochs 1 --rank 2 --micro-batch 4 --device cpu --dtype fp32",
    )
    assert store.load_run(run).digest == alone.summary["digest"] and run.name == alone.run.name


@pytest.mark.parametrize(("url", "says"), [("nowhere://x", "nowhere"), ("s3://bucket/x", "s3")])
def test_an_address_that_cannot_be_opened(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, StoreError), match=says):
        Storage(url, tmp_path).check()
