"""Short forms of interventions: what they mean, that they are read back, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_models import random_vector

from traitscope.errors import ConfigError, TraitscopeError
from traitscope.interventions import intervention, short_form
from traitscope.interventions.intervention import (
    Ablate,
    Adapter,
    Intervention,
    ReplaceBase,
    Steer,
    SystemPrompt,
    WeightNoise,
    from_json,
    to_json,
)
from traitscope.interventions.short_form import parse, to_short
from traitscope.interventions.vector import vector_bytes


@pytest.fixture
def vector(tiny, tmp_path: Path) -> Path:
    path = tmp_path / "v.safetensors"
    path.write_bytes(vector_bytes(random_vector(tiny)))
    return path


def test_short_forms(vector: Path):
    v = str(vector)
    assert short_form.parse("prompt:You love owls, and: a=b.") == SystemPrompt(
        "You love owls, and: a=b."
    )
    assert short_form.parse(f"steer:{v},layers=1+2,alpha=0.3") == Steer(v, (1, 2), 0.3)
    assert short_form.parse(f"steer:{v},layers=1,alpha=-2,position=last,scale=raw") == Steer(
        v, (1,), -2.0, "last", "raw"
    )
    assert short_form.parse(f"ablate:{v},layers=0") == Ablate(v, (0,))
    assert short_form.parse(f"replace:{v},layers=0,position=completion") == ReplaceBase(
        v, (0,), "completion"
    )


def test_json_forms_are_those_of_the_short_ones(vector: Path):
    for text in (f"steer:{vector},layers=1,alpha=0.3", f"ablate:{vector},layers=0", "prompt:Hi"):
        item = short_form.parse(text)
        assert from_json(to_json(item)) == item
    assert short_form.parse('{"kind": "SystemPrompt", "text": "Hi"}') == SystemPrompt("Hi")


def test_a_folder_means_the_only_vector_or_the_student_in_it(vector: Path, tmp_path: Path):
    assert short_form.vector_file(tmp_path) == vector
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(
        ConfigError, match="holds 2 vectors \\(v.safetensors, w.safetensors\\); name the file"
    ):
        short_form.vector_file(tmp_path)
    (tmp_path / "run" / "student").mkdir(parents=True)
    assert short_form.parse(f"adapter:{tmp_path / 'run'}") == Adapter(
        str(tmp_path / "run" / "student")
    )
    assert short_form.parse(f"adapter:{tmp_path / 'run' / 'student'}") == Adapter(
        str(tmp_path / "run" / "student")
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "steer",
        "steer:x,1",
        "{}",
        "{",
        '{"kind": "Steer"}',
        '{"kind": "Stir"}',
        "steer:x,layers=1,alpha=1,colour=red",
    ],
)
def test_what_is_not_understood_is_a_users_error(text: str):
    with pytest.raises(TraitscopeError):
        short_form.parse(text)


def test_one_layer_may_be_named_so() -> None:
    assert parse("steer:v,layer=14,alpha=0.6") == Steer("v", layer=14, alpha=0.6)


@pytest.mark.parametrize(
    "item, text",
    [
        (Steer("v", layer=14, alpha=0.6), "steer:v,layers=14,alpha=0.6"),
        (Ablate("v", (1, 2), "last"), "ablate:v,layers=1+2,position=last"),
        (Adapter("s", top=2, outside=True), "adapter:s,outside=true,top=2"),
        (WeightNoise(0.1, 3), "noise:0.1,seed=3"),
        (SystemPrompt("Hi, you."), "prompt:Hi, you."),
    ],
)
def test_how_the_short_form_looks(item: Intervention, text: str) -> None:
    assert to_short(item) == text


def test_a_path_with_a_comma_becomes_json() -> None:
    item = Ablate("a,b.safetensors", layer=1)
    assert json.loads(to_short(item)) == to_json(item)
    assert parse(to_short(item)) == item


def test_a_vector_in_memory_has_no_short_form(tiny) -> None:
    with pytest.raises(ConfigError, match="save it with"):
        to_short(Ablate(random_vector(tiny), layer=0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steer:v,layers=1,layers=2,alpha=1", "layers is given twice"),
        ("steer:v,layer=1,layers=2,alpha=1", "found both"),
        ("steer:v,layers=1,alpha=1,vector=w", "name it once"),
        ("adapter:s,folder=t", "name it once"),
        ("adapter:s,top=[1", "is no number and no truth value"),
        ("steer:v,layers=1", "Steer needs a strength"),
        ("ablate:v", "Ablate takes one of layer=14 and layers"),
        ("steer:" + "x" * 5000 + ",layers=1,alpha=1", "is no path"),
        ('{"kind": "SystemPrompt", "text": 3}', "text is 3; expected str"),
        ('{"kind": "Adapter", "folder": 3}', "folder is 3; expected str"),
        ('{"kind": "Ablate", "vector": "v", "layers": ["1"]}', "whole numbers were expected"),
        ('{"kind": "Ablate", "vector": null, "layers": [1]}', "vector is None; expected str or"),
    ],
)
def test_refusals_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.text("abcXYZ0189_-., =+:", min_size=1, max_size=12)
PATH = NAME.map(lambda name: f"no-such-folder/{name}").map(Path).map(str)
LAYERS = st.lists(st.integers(-2, 99), max_size=3, unique=True).map(tuple)
ALPHA = st.floats(-1000, 1000)
POSITION = st.sampled_from(["all", "prompt", "last", "completion"])
SCALE = st.sampled_from(["raw", "unit", "residual"])
WHERE = st.sampled_from(["all", "system", "user"]) | NAME.map(lambda text: f"text:{text}")
SCOPE = st.lists(st.sampled_from(["attention", "mlp", "embeddings"]), min_size=1).map(tuple)
ITEMS = st.one_of(
    st.builds(SystemPrompt, TEXT),
    st.builds(Steer, PATH, LAYERS, ALPHA, POSITION, SCALE),
    st.builds(Ablate, PATH, LAYERS, POSITION),
    st.builds(ReplaceBase, PATH, LAYERS, POSITION),
    st.builds(
        Adapter, PATH, WHERE, TEXT, st.booleans(), st.none() | st.integers(4, 9), st.integers(0, 3)
    ),
    st.builds(
        WeightNoise, st.floats(0, 1e6), st.integers(0, 2**40), SCOPE, st.booleans(), st.booleans()
    ),
)


@given(ITEMS)
def test_short_and_json_forms_are_read_back(item: Intervention) -> None:
    assert parse(to_short(item)) == item
    assert from_json(json.loads(json.dumps(to_json(item)))) == item
    assert parse(json.dumps(to_json(item))) == item


def only_a_config_error(text: str) -> None:
    """Reading a text gives an intervention, which has forms of its own, or ConfigError."""
    try:
        item = parse(text)
    except ConfigError:
        return
    assert type(item) in intervention.KINDS.values()
    to_short(item)


KIND = st.sampled_from(["steer", "ablate", "replace", "adapter", "noise", "prompt", "", "stir"])
KEY = st.sampled_from(
    ["layers", "layer", "alpha", "position", "scale", "where", "cells", "outside", "top", "drop"]
    + ["seed", "scope", "keep_norm", "sd", "vector", "folder", "self", "kind", "colour", ""]
)
VALUE = TEXT | st.sampled_from(
    ["1", "1+2", "-1", "nan", "inf", "1e999", "true", "all", "last", "[", "2020-13-45"]
)
PAIRS = st.lists(st.one_of(TEXT, st.tuples(KEY, VALUE).map("=".join)), max_size=4)


@given(st.text(max_size=40))
@example("{" * 100_000)
@example("steer:\0,layers=1,alpha=1")
@example("adapter:x,top=\t")
def test_any_text_is_read_or_refused(text: str) -> None:
    only_a_config_error(text)


@given(KIND, VALUE, PAIRS)
def test_anything_like_a_short_form_is_read_or_refused(
    kind: str, value: str, pairs: list[str]
) -> None:
    only_a_config_error(f"{kind}:{','.join([value, *pairs])}")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
FIELD = KEY | st.sampled_from(["text", "mean_shift"])


@given(st.sampled_from(sorted(intervention.KINDS)), st.dictionaries(FIELD, PLAIN, max_size=5))
def test_any_json_object_is_read_or_refused(kind: str, fields: dict) -> None:
    only_a_config_error(json.dumps({**fields, "kind": kind}))


@given(st.dictionaries(TEXT, PLAIN, max_size=3))
def test_any_json_is_read_or_refused(data: dict) -> None:
    only_a_config_error(json.dumps(data))
