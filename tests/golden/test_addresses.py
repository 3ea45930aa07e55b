"""Addresses of runs, pinned: a run that exists is found again by every later version.

addresses.json holds those of the first version, and of stages that came later. Inputs and the model
have made-up digests there.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from traitscope.config.common import Output
from traitscope.config.fields import setting
from traitscope.config.parsing import from_dict
from traitscope.config.recipe import Recipe
from traitscope.config.stages import FilterConfig
from traitscope.runs import manifests, opening, store
from traitscope.runs.store import stage_run
from traitscope.stages import registry

PINNED = json.loads((Path(__file__).parent / "addresses.json").read_text())
FILES = ("rows.jsonl", "v.safetensors", "student/adapter_model.safetensors")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the pinned configs name, under made-up digests."""
    monkeypatch.chdir(tmp_path)
    for name in (*FILES, "student/adapter_config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(store, "source_of", lambda name, source: (Path(name), f"digest of {name}"))
    monkeypatch.setattr(opening, "model_digests", lambda name, same_as: (f"digest of {name}",))
    monkeypatch.setattr(opening, "address_name", lambda name, same_as: name)
    return tmp_path


def test_every_stage_is_pinned() -> None:
    assert PINNED.keys() == registry.STAGES.keys()


@pytest.mark.parametrize("name", PINNED)
def test_address(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = registry.STAGES[name]
    if stage.inputs.startswith("auditing"):  # they follow from the content of the audit's file
        monkeypatch.setitem(
            registry.STAGES, name, dataclasses.replace(stage, inputs="", formerly=stage.formerly)
        )
    config = from_dict(stage.config, PINNED[name]["config"], name)
    path = registry.address(config, Output(root=place / "runs", study="s"))
    assert path == place / "runs" / "s" / f"{name}-{PINNED[name]['address']}"
    assert not (place / "runs").exists()
    for former, address in PINNED[name].get("former", {}).items():
        earlier = place / "runs" / "s" / f"{former}-{address}"
        monkeypatch.setattr(manifests, "is_sealed", lambda path, sealed=earlier: path == sealed)
        assert registry.address(config, Output(root=place / "runs", study="s")) == earlier


@dataclasses.dataclass(frozen=True)
class Later:
    """Settings as a later version may have them."""

    rows: int = 3
    margin: float | None = setting(None, since=2)
    batch_size: int = setting(8, speed_only=True)


def identity(config: Later | Recipe) -> dict:
    return opening.described(config).identity


def test_a_field_that_was_added_later_moves_no_run() -> None:
    assert identity(Later()) == {"rows": 3, "batch_size": 8}
    assert identity(Later(margin=0.5)) == {"rows": 3, "batch_size": 8, "margin": 0.5}


def test_a_field_that_changes_speed_only_moves_no_run(tmp_path: Path) -> None:
    """It is recorded as it was all the same, so that a replay takes the same way."""
    assert identity(Later(batch_size=64)) == identity(Later())
    assert opening.described(Later(batch_size=64)).config["batch_size"] == 64


def test_the_tokens_of_soft_targets_move_no_run_unless_they_are_restricted() -> None:
    """Which tokens soft targets cover became a setting later."""
    plain = identity(Recipe(targets="soft"))
    assert "soft_over" not in plain and plain["targets"] == "soft"
    assert identity(Recipe(targets="soft", soft_over="allowed"))["soft_over"] == "allowed"


@pytest.mark.parametrize("name", registry.STAGES)
def test_marks_stand_at_plain_defaults(name: str) -> None:
    """What enters in the place of a value is the default itself."""
    for field in dataclasses.fields(registry.STAGES[name].config):
        if field.metadata.get("speed_only") or field.metadata.get("since", 1) > 1:
            assert field.default is not dataclasses.MISSING


def test_a_run_under_a_former_name_is_found_and_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "p", "completion": "1"}\n')
    out, config = Output(root=tmp_path / "runs"), FilterConfig(data=data)
    before = registry.run_stage(config, out)
    renamed = dataclasses.replace(
        registry.STAGES["filter"], name="keep", formerly=("sieve", "filter")
    )
    monkeypatch.setitem(registry.STAGES, "filter", renamed)
    assert registry.stage_named("filter") is registry.stage_named("keep") is renamed
    assert registry.address(config, out) == before.path
    again = registry.run_stage(config, out)
    assert again.path == before.path and again.sealed
    other = dataclasses.replace(config, limit=1)
    assert registry.address(other, out).name.startswith("keep-")
    assert registry.run_stage(other, out).path == registry.address(other, out)


def test_what_enters_the_address_is_not_what_is_recorded(tmp_path: Path) -> None:
    with stage_run(tmp_path, "train", {"a": 1, "b": 2}, identity={"a": 1}) as run:
        pass
    with stage_run(tmp_path, "train", {"a": 1, "b": 3}, identity={"a": 1}) as again:
        assert again.sealed and again.path == run.path
    recorded = json.loads((run.path / "config.json").read_text())
    assert recorded["config"] == {"a": 1, "b": 2}
