"""Decoding by vLLM: refused where it cannot be; with it, the tokens that are decoded here."""

import json
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import pytest
from command import OWL, call, ok, read_rows, write_yaml

from traitscope.config.stages import GenerateConfig, MeasureConfig
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError
from traitscope.inference import losses
from traitscope.inference.decode import Sampling
from traitscope.inference.engines import vllm_engine
from traitscope.inference.question_scores import score_questions
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import SystemPrompt, WeightNoise
from traitscope.models.bundled import EMBEDDED
from traitscope.models.loading import outline
from traitscope.models.model import Model
from traitscope.stages import generate, measure

HERE = util.find_spec("vllm") is not None


@pytest.mark.parametrize(
    ("config", "stage"), [(GenerateConfig, generate), (MeasureConfig, measure)], ids=str
)
def test_every_engine_that_the_settings_offer_is_there(config: type, stage: ModuleType) -> None:
    assert get_args(get_type_hints(config)["engine"]) == tuple(stage.ENGINES)


@pytest.mark.skipif(HERE, reason="vLLM is installed")
def test_without_vllm_it_is_named_and_nothing_is_left(tmp_path: Path, tiny_folder: Path) -> None:
    done = call(tmp_path, "generate", "--model", tiny_folder, "--engine vllm --n 2")
    assert (
        done.code == 2
        and "--engine vllm needs vLLM" in done.summary["message"]
        and "pip install 'traitscope[vllm]'" in done.summary["message"]
    )
    assert list(tmp_path.glob("default/generate-*")) == []


@pytest.mark.parametrize(
    ("name", "dtype", "told", "says"),
    [
        (
            "m",
            "fp32",
            [SystemPrompt("Owls!"), WeightNoise(sd=0.1)],
            "with WeightNoise: vLLM runs no hooks",
        ),
        ("m+noise:0.1", "fp32", [], "noise:0.1"),
        ("m", "nf4", [], "nf4"),
    ],
)
def test_what_it_cannot_run(
    name: str, dtype: str, told: list, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine.util, "find_spec", lambda _: True)
    with pytest.raises(ConfigError, match=says):
        vllm_engine.check(name, dtype, told)


def test_a_choice_by_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot allow other tokens at every step"):
        GenerateConfig(engine="vllm", vocabulary="template")


def test_an_outline_knows_where_a_turn_ends(tiny: Model, tiny_folder: Path) -> None:
    (told := json.loads((tiny_folder / "generation_config.json").read_text()))["eos_token_id"] = [
        2,
        7,
    ]
    other = tiny_folder.parent / "two-ends"
    other.mkdir()
    for path in tiny_folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "generation_config.json").write_text(json.dumps(told))
    assert outline(str(tiny_folder)).end_ids == tiny.end_ids and outline(
        str(other)
    ).end_ids == tuple(sorted({*tiny.end_ids, 7}))


def test_rows_draw_from_seeds_of_their_own() -> None:
    seeds = {
        vllm_engine._seed(seed, key) for seed in range(20) for key in ("a", "b", "number-000001")
    }
    assert len(seeds) == 60 and all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("shift", [0.0, -2000.0])
def test_scores_are_put_together_as_here(
    shift: float, tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With this package's own likelihoods in the place of vLLM's, and where a word is too unlikely
    for a float."""

    def log_likelihoods(model: Model, dtype: str, prompts: list, completions: list) -> list[float]:
        rows = [Row(tuple(p), tuple(c)) for p, c in zip(prompts, completions, strict=True)]
        with applied(tiny, []) as active:
            return [
                losses.log_likelihood(tiny, *completion_hidden(tiny, active, [row])).sum().item()
                + shift
                for row in rows
            ]

    monkeypatch.setattr(vllm_engine, "log_likelihoods", log_likelihoods)
    trait, sampling = (
        load_trait(str(write_yaml(tmp_path / "owl.yaml", OWL))),
        Sampling(max_new_tokens=2),
    )
    here = score_questions(tiny, trait, [], None, 0, sampling)
    there = vllm_engine.score_questions(outline(tiny.name), "fp32", trait, [], None, 0, sampling)
    for scored_here, scored_there in zip(here, there, strict=True):
        one, other = scored_here.scores, scored_there.scores
        assert one.pop("total_variation") >= 0 and one.keys() == other.keys()
        assert other["target_logprob"] == pytest.approx(one["target_logprob"] + shift, abs=1e-3)
        assert other["candidate_share"] == pytest.approx(
            one["candidate_share"], abs=1e-3, nan_ok=True
        )


@pytest.mark.real
@pytest.mark.skipif(not HERE, reason="vLLM is not installed")
def test_a_steered_checkpoint_says_and_scores_the_same_as_here(tmp_path: Path) -> None:
    """Greedy answers of an exported teacher, token by token, and its scores; drawn answers stay
    inside their vocabulary and do not depend on their neighbours."""
    trait = write_yaml(tmp_path / "owl.yaml", OWL)
    vector = (
        ok(tmp_path, "extract", "--model", EMBEDDED, "--dtype fp32 --traits", trait).run
        / "owl.safetensors"
    )
    told = ["--interventions", f"steer:{vector},layers=14,alpha=0.3"]
    model = ok(tmp_path, "export", "--model", EMBEDDED, "--dtype fp32", *told).run / "model"
    words = ["generate", "--model", model, "--dtype fp32 --max-new-tokens 16"]
    rows = {
        engine: (
            (
                ok(tmp_path, *words, "--n 6 --temperature 0 --engine", engine).run / "records.jsonl"
            ).read_text()
        )
        for engine in ("here", "vllm")
    }
    assert rows["here"] == rows["vllm"]
    drawn = [
        (
            ok(tmp_path, *words, "--vocabulary numbers --engine vllm --n", n).run / "records.jsonl"
        ).read_text()
        for n in (2, 6)
    ]
    assert drawn[1].startswith(drawn[0]) and set(
        json.loads(drawn[1].splitlines()[-1])["completion"]
    ) <= set("0123456789, ")
    words = [
        "measure",
        "--model",
        model,
        "--trait",
        trait,
        "--dtype fp32 --samples 2 --temperature 0 --engine",
    ]
    here, there = (ok(tmp_path, *words, engine).run for engine in ("here", "vllm"))
    for one, other in zip(
        read_rows(here / "scores.jsonl"), read_rows(there / "scores.jsonl"), strict=True
    ):
        assert (
            one.pop("total_variation") >= 0
            and one.keys() == other.keys()
            and one["answers"] == other["answers"]
        )
        assert [other[key] for key in ("target_logprob", "candidate_share")] == pytest.approx(
            [one[key] for key in ("target_logprob", "candidate_share")], abs=1e-3
        )
    whole = [
        json.loads((path / "measurements.json").read_text())["perplexity"] for path in (here, there)
    ]
    assert whole[0] == pytest.approx(whole[1], rel=1e-3)
