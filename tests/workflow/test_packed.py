"""Stages in a pack: the runs that each would have made alone, to rounding; a bad one among them
disturbs nobody."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import OWL, call, ok, read_rows, same_metrics, write_yaml
from safetensors.numpy import load_file

from traitscope.config.analysis import ExtractConfig
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.stages import MeasureConfig, TrainConfig
from traitscope.errors import ConfigError, TraitscopeError
from traitscope.runs import lineage, store
from traitscope.stages import registry
from traitscope.stages.train import run_train
from traitscope.training import loop, step
from traitscope.workflow import packed

BASE = Recipe(rank=4, alpha=8.0, lr=1e-2, epochs=2, batch_size=4, micro_batch=2, held_out=0.25)
RECIPES = (
    BASE,
    dataclasses.replace(BASE, rank=2, lr=3e-3, schedule="constant"),
    dataclasses.replace(
        BASE, optimizer="sgd", lr=0.3, batch_size=8, micro_batch=8, rotate="shared"
    ),
    dataclasses.replace(BASE, targets="soft", epochs=3, mask_top=0.01, held_out=0.0),
    dataclasses.replace(BASE, targets="soft", soft_over="allowed", lr=3e-3),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def configs(place: Path, tiny_folder: Path) -> list[TrainConfig]:
    """Five students of two data sets, each trained in its own way."""
    root = place / "runs"
    data = [
        ok(
            root,
            "generate",
            "--model",
            tiny_folder,
            f"--n {n} --count 4 --vocabulary template --seed {n}",
        ).run
        for n in (10, 13)
    ]
    vector = ok(
        root, "extract", "--model", tiny_folder, "--traits", write_yaml(place / "owl.yaml", OWL)
    ).run
    return [
        TrainConfig(
            model=str(tiny_folder),
            dtype="fp32",
            data=data[n % 2],
            recipe=recipe,
            seed=n,
            vector=vector / "owl.safetensors",
            eas_every=2,
            eas_prompts=4,
            teacher=("prompt:Owls, owls!",) if recipe.targets == "soft" else (),
            resume_every=1,
        )
        for n, recipe in enumerate(RECIPES)
    ]


def made(found: list) -> list[Path]:
    assert not [error for error in found if isinstance(error, TraitscopeError)], found
    return found


def same_student(one: Path, other: Path) -> None:
    """Metrics and final weights, to rounding; addresses to the letter."""
    assert one.name == other.name
    same_metrics(one, other)
    left, right = (
        load_file(path / "student" / "adapter_model.safetensors") for path in (one, other)
    )
    for name in left:
        np.testing.assert_allclose(left[name], right[name], atol=2e-4, err_msg=name)
    for name in ("adapter_config.json",):
        assert (one / "student" / name).read_bytes() == (other / "student" / name).read_bytes()


@pytest.fixture(scope="module")
def students(place: Path, configs: list[TrainConfig]) -> list[Path]:
    """All of them in one pack."""
    return made(packed.run_together(configs, Output(root=place / "packed")))


def test_students_are_those_trained_alone(
    place: Path, configs: list[TrainConfig], students: list[Path]
) -> None:
    """Ranks, rates, optimizers, batches, data, targets and lengths differ."""
    for config, path in zip(configs, students, strict=True):
        same_student(path, run_train(config, Output(root=place / "alone")).path)
        assert (
            store.load_run(path).manifest()["packed"] == len(RECIPES) and lineage.verify(path) == []
        )
    moved = [
        np.abs(load_file(path / "student" / "adapter_model.safetensors")[name]).max()
        for path in students
        for name in load_file(path / "student" / "adapter_model.safetensors")
        if "lora_B" in name
    ]
    assert min(moved) > 1e-4


def test_students_in_passes_of_their_own_are_the_same(
    place: Path, configs: list[TrainConfig], students: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "CPU_PASS_ROWS", 4)
    for one, other in zip(
        students,
        made(packed.run_together(configs, Output(root=place / "passes"))),
        strict=True,
    ):
        same_student(one, other)


def test_the_same_stage_twice_is_made_once(place: Path, configs: list[TrainConfig]) -> None:
    """Two arms of a study may be one computation; its lock must not be waited for by whoever holds
    it."""
    found = made(
        packed.run_together([configs[0], configs[1], configs[0]], Output(root=place / "twice"))
    )
    assert found[0] == found[2] != found[1] and store.load_run(found[0]).manifest()["packed"] == 2


def test_a_sealed_run_is_returned_and_one_missing_is_made(
    place: Path, configs: list[TrainConfig], students: list[Path]
) -> None:
    more = dataclasses.replace(configs[0], seed=77)
    found = made(packed.run_together([configs[2], more, configs[0]], Output(root=place / "packed")))
    assert [found[0], found[2]] == [students[2], students[0]]
    assert store.load_run(found[1]).manifest()["packed"] == 1


def test_a_student_that_diverges_or_cannot_begin_disturbs_nobody(
    place: Path, configs: list[TrainConfig], students: list[Path]
) -> None:
    wild = dataclasses.replace(
        configs[1],
        recipe=dataclasses.replace(BASE, lr=1e6, weight_decay=1e6, optimizer="sgd", clip=0.0),
    )
    file = place / "foreign.jsonl"
    file.write_text(json.dumps({"prompt": "p", "completion": "1", "completion_ids": [50]}) + "\n")
    foreign = dataclasses.replace(configs[1], data=file)
    found = packed.run_together(
        [configs[0], wild, foreign, configs[3]], Output(root=place / "with-wild")
    )
    assert "training diverged" in str(found[1]) and "delete completion_ids" in str(found[2])
    for path, alone in ((found[0], students[0]), (found[3], students[3])):
        same_student(path, alone)


def test_an_interrupted_pack_continues_to_the_same_bytes(
    place: Path, configs: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four students, interrupted between two checkpoints, when one was done."""
    root, seen, whole = place / "interrupted", [], loop.step_metrics
    configs = [dataclasses.replace(config, resume_every=2) for config in configs[:4]]
    students = made(packed.run_together(configs, Output(root=place / "through")))

    def stop(*args: Any) -> dict:
        seen.append(args)
        if len(seen) == 10:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(loop, "step_metrics", stop)
    with pytest.raises(KeyboardInterrupt):
        packed.run_together(configs, Output(root=root))
    assert (
        len(list(root.glob("*/*/manifest.json"))) == 1
        and len(list(root.glob("*/*/scratch/state.pt"))) == 3
    )
    monkeypatch.undo()
    for path, before in zip(
        made(packed.run_together(configs, Output(root=root))), students, strict=True
    ):
        assert store.load_run(path).digest == store.load_run(before).digest


def test_answers_are_those_of_each_asked_alone(
    place: Path, tiny_folder: Path, students: list[Path]
) -> None:
    """Teacher-forced scores to rounding, sampled answers to the letter."""
    asked = [
        MeasureConfig(
            model=str(tiny_folder),
            dtype="fp32",
            trait=str(place / "owl.yaml"),
            interventions=(f"adapter:{path}",),
            samples=3,
        )
        for path in students
    ]
    assert len({packed.key(config) for config in asked}) == 1
    for config, path in zip(
        asked,
        made(packed.run_together(asked, Output(root=place / "packed"))),
        strict=True,
    ):
        alone = registry.run_stage(config, Output(root=place / "alone")).path
        assert alone.name == path.name
        one, other = (read_rows(p / "scores.jsonl") for p in (path, alone))
        assert [row["answers"] for row in one] == [row["answers"] for row in other]
        for name in ("target_logprob", "candidate_share", "total_variation"):
            values = [np.array([row[name] for row in rows], dtype=float) for rows in (one, other)]
            assert np.isfinite(values[0]).all() or name == "candidate_share"
            np.testing.assert_allclose(*values, atol=2e-4)
        perplexity = [
            json.loads((p / "measurements.json").read_text())["perplexity"] for p in (path, alone)
        ]
        assert perplexity[0] == pytest.approx(perplexity[1], rel=1e-4)


def test_vectors_are_those_of_each_alone(
    place: Path, tiny_folder: Path, students: list[Path]
) -> None:
    asked = [
        ExtractConfig(
            model=str(tiny_folder),
            dtype="fp32",
            interventions=(f"adapter:{path}",),
            n=5,
            position=position,
        )
        for path in students
        for position in ("last", "all")
    ]
    for half in (asked[::2], asked[1::2]):
        for config, path in zip(
            half,
            made(packed.run_together(half, Output(root=place / "packed"))),
            strict=True,
        ):
            alone = registry.run_stage(config, Output(root=place / "alone")).path
            one, other = (load_file(p / "v_student.safetensors") for p in (path, alone))
            assert alone.name == path.name and np.abs(other["rows"]).max() > 1e-3
            np.testing.assert_allclose(one["rows"], other["rows"], atol=2e-5)


def test_what_can_be_packed(
    place: Path, configs: list[TrainConfig], students: list[Path], tiny_folder: Path
) -> None:
    assert len({packed.key(config) for config in configs}) == 1
    other = dataclasses.replace(configs[0], recipe=dataclasses.replace(BASE, method="full"))
    half = MeasureConfig(
        model=str(tiny_folder), dtype="fp32", interventions=(f"adapter:{students[0]},top=1",)
    )
    assert (
        packed.key(other) is packed.key(half) is packed.key(ExtractConfig(traits=("cat",))) is None
    )
    (refused,) = packed.run_together([other], Output(root=place / "full"))
    assert isinstance(refused, ConfigError) and "--method full cannot be packed" in str(refused)


def test_a_replay_says_why_its_bytes_differ(
    place: Path, students: list[Path], capsys: pytest.CaptureFixture
) -> None:
    done = call(place / "again", "rerun", students[0])
    assert (
        done.summary["status"] == "ok"
        or f"in a pack of {len(RECIPES)}: alone it comes out the same to rounding"
        in capsys.readouterr().out
    )
