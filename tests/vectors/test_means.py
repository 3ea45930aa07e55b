"""v_teacher over number prompts: what two halves of the prompts say, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import CAT, OWL, call, ok, write_yaml

from traitscope.config.analysis import ExtractConfig
from traitscope.data.prompts import number_prompts
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError
from traitscope.interventions.vector import COMMON, load_vector
from traitscope.vectors import means

PROMPTS = number_prompts(7, seed=7)


@pytest.fixture
def traits(tmp_path: Path):
    return [load_trait(write_yaml(tmp_path / f"{t['name']}.yaml", t)) for t in (OWL, CAT)]


def test_halves_agree_as_much_as_vectors_of_two_lists_of_prompts(tiny, traits) -> None:
    """The oracle extracts twice: over every second prompt, and over the others."""
    vectors = means.extract_vectors(tiny, traits, PROMPTS, split_half=True, batch_size=3)
    first = means.extract_vectors(tiny, traits, PROMPTS[::2])
    second = means.extract_vectors(tiny, traits, PROMPTS[1::2])
    assert {"owl", "raw/owl", COMMON} < vectors.keys()
    for name, vector in vectors.items():
        expected = first[name].cosine(second[name])
        np.testing.assert_allclose(vector.about[means.SPLIT_HALF], expected, atol=1e-4)


def test_halves_change_no_vector(tiny, traits) -> None:
    halved = means.extract_vectors(tiny, traits, PROMPTS, split_half=True)
    whole = means.extract_vectors(tiny, traits, PROMPTS)
    assert halved.keys() == whole.keys()
    for name, vector in whole.items():
        np.testing.assert_allclose(halved[name].rows_LD, vector.rows_LD, atol=1e-6)
        assert means.SPLIT_HALF not in vector.about
    np.testing.assert_allclose(
        halved["raw/owl"].about["residual_norms"], whole["raw/owl"].about["residual_norms"]
    )


def test_halves_need_two_prompts_and_the_last_token(tiny, traits) -> None:
    with pytest.raises(ConfigError, match="1 prompt has no two halves"):
        means.extract_vectors(tiny, traits, PROMPTS[:1], split_half=True)
    with pytest.raises(ConfigError, match="at position 'all'; expected last"):
        means.extract_vectors(tiny, traits, PROMPTS, position="all", split_half=True)


def test_the_published_vector_on_the_command_line(tmp_path, tiny, tiny_folder) -> None:
    owl, cat = (write_yaml(tmp_path / f"{t['name']}.yaml", t) for t in (OWL, CAT))
    words = ["extract", "--model", tiny_folder, "--traits", owl, cat]
    run = ok(tmp_path, *words, "--prompt-set", "numbers", "--n", 7).run
    questions = ok(tmp_path, *words).run
    assert run != questions
    vector = load_vector(run / "raw" / "owl.safetensors")
    expected = means.extract_vectors(tiny, [load_trait(owl)], PROMPTS)["owl"]
    np.testing.assert_allclose(vector.rows_LD, expected.rows_LD, atol=1e-5)
    assert vector.about["prompts"] == "7 number prompts, seed 7"
    split_half = json.loads((run / "split_half.json").read_text())
    assert split_half["raw/owl"] == vector.about[means.SPLIT_HALF]
    assert len(split_half) == 5 and len(split_half["owl"]) == tiny.n_layers
    assert not (questions / "split_half.json").exists()
    assert ok(tmp_path, "rerun", run).summary["different"] == []
    everywhere = ok(tmp_path, *words, "--prompt-set numbers --n 3 --position all").run
    assert not (everywhere / "split_half.json").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "--traits missing"),
        ({"interventions": ("prompt:Owls!",)}, "name traits, and no file"),
        ({"traits": ("cat",), "prompts": Path("p.txt")}, "--prompts p.txt"),
        ({"traits": ("cat",), "n": 1}, "--n 1; expected 2 or more"),
    ],
)
def test_number_prompts_that_would_not_be_read_are_refused(settings, says) -> None:
    with pytest.raises(ConfigError, match=says):
        ExtractConfig(prompt_set="numbers", **settings)


def test_an_unknown_prompt_set_is_refused(tmp_path, tiny_folder) -> None:
    words = ["extract", "--model", tiny_folder, "--traits", "cat", "--prompt-set", "words"]
    assert call(tmp_path, *words).code == 2
