"""Students of some blocks: the others stay as they are."""

from dataclasses import replace

import pytest
from safetensors.torch import load

from traitscope.config.recipe import Recipe
from traitscope.data.records import Record
from traitscope.errors import ConfigError
from traitscope.inference.token_rows import completion_hidden, rows_from
from traitscope.interventions.applied import applied
from traitscope.training.loop import train
from traitscope.training.student import packed_students

RECIPE = Recipe(epochs=2, batch_size=4, micro_batch=4, lr=3e-3, held_out=0.0)
RECORDS = [Record(f"r{i}", f"Count on from {i}.", f"{i}, {i + 1}, {i + 7}") for i in range(4)]


def weights(student) -> dict:
    (content,) = [data for name, data in student.files.items() if name.endswith(".safetensors")]
    return load(content)


def test_all_layers_named_are_none_named(family):
    every = tuple(range(family.n_layers))
    plain = train(family, RECORDS, RECIPE, 1)
    named = train(family, RECORDS, replace(RECIPE, train_layers=every), 1)
    assert dict(named.files) == dict(plain.files)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_other_blocks_stay(family, method):
    student = train(family, RECORDS, replace(RECIPE, method=method, train_layers=(1,)), 1)
    rows = rows_from(family, RECORDS[:1], None)
    with applied(family, []) as active:
        before, _ = completion_hidden(family, active, rows)
    with applied(family, [student.intervention()]) as active:
        after, _ = completion_hidden(family, active, rows)
    assert (after - before).abs().max() > 1e-4
    changed = set()
    for name, value in weights(student).items():
        block = name.split(".lora_")[0].split(".")
        number = next(part for part in block if part.isdigit())
        if method == "lora":
            changed.add(number)
        elif not value.equal(family.lm.get_parameter(name).float()):
            changed.add(number)
    assert changed == {"1"}


def test_a_student_of_some_blocks_is_that_of_all_with_the_others_masked(tiny):
    """One step of SGD: each block's change is the same with and without the others."""
    recipe = replace(RECIPE, method="full", optimizer="sgd", epochs=1, clip=0.0, warmup=0.0)
    every = weights(train(tiny, RECORDS, recipe, 1))
    some = weights(train(tiny, RECORDS, replace(recipe, train_layers=(0, 2)), 1))
    for name, value in some.items():
        expected = tiny.lm.get_parameter(name) if ".layers.1." in name else every[name]
        assert value.equal(expected), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "vector", "layer": 1}, "name it by --layer alone"),
        ({"rotate": "shared"}, "drop one of them"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(RECIPE, train_layers=(1,), **changes)


def test_layers_that_are_not_there_are_refused(tiny):
    with pytest.raises(ConfigError, match="has layers 0 to 2"):
        train(tiny, RECORDS, replace(RECIPE, train_layers=(1, 3)), 1)
    recipe = replace(RECIPE, train_layers=(1,))
    with pytest.raises(ConfigError, match="cannot be packed"):
        with packed_students(tiny, [recipe], [0], [None]):
            pass
