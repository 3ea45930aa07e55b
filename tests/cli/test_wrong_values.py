"""A flag answers a value that does not fit with what was expected, in words."""

import pytest

from traitscope.cli import flags
from traitscope.cli.wrong_values import _hints, _kinds
from traitscope.config.entries import COMMANDS
from traitscope.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("generate --n 1o", "--n is '1o'; expected a whole number; see: traitscope generate"),
        ("generate --n=1e3", "--n is '1e3'; expected a whole number"),
        ("train --lr abc", "--lr is 'abc'; expected a number; see: traitscope train --help"),
        ("train --train_layers 1 b", "--train-layers holds 'b'; expected whole numbers"),
        ("steer_scan --alphas 0.3 x", "--alphas holds 'x'; expected numbers"),
        ("filter --limit x", "--limit is 'x'; expected a whole number"),
        ("train --skip-bad few", "--skip-bad is 'few'; expected a whole number or all"),
        (
            "generate --vocabulary templat",
            "--vocabulary is 'templat'; did you mean template? expected free, numbers, template"
            " or seen",
        ),
        ("measure --sets positive of", "--sets holds 'of'; expected positive, negative or"),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_expected(words: str, says: str) -> None:
    name, *rest = words.split()
    with pytest.raises(ConfigError) as refused:
        flags.parse(COMMANDS[name], rest)
    assert says in str(refused.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_flag_answers_in_the_words_of_the_parser(name: str) -> None:
    """Every flag that takes numbers or some words of a list."""
    command = COMMANDS[name]
    types = (command.config, flags.output_type_of(command))
    for flag, hint in (_hints(types[0]) | _hints(types[1])).items():
        kinds, _ = _kinds(hint)
        if not all(kind in (int, float) or "Literal" in str(kind) for kind in kinds):
            continue
        with pytest.raises(ConfigError) as refused:
            flags.parse(command, [flag, "wr0ng"])
        said = str(refused.value)
        assert said.startswith((f"{flag} is 'wr0ng'; ", f"{flag} holds 'wr0ng'; "))
