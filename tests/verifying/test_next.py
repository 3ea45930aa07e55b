"""What a verification says comes next names the base as it was given."""

from types import SimpleNamespace

import pytest

from traitscope.config.students.verify import VerifyConfig
from traitscope.verifying.sentences import _next

GIVEN = "--model a/b --template enable_thinking=false --control-tokens token"


@pytest.mark.parametrize(
    ("state", "commands"),
    [
        ({"status": "trait"}, ("audit DATA", "export")),
        ({"copies": True}, ("generate", "defend")),
        ({}, ("train",)),
    ],
)
def test_commands_keep_the_flags_of_the_base(
    state: dict[str, object], commands: tuple[str, ...]
) -> None:
    config = VerifyConfig(
        students=("RUN",),
        model="a/b",
        template=("enable_thinking=false",),
        control_tokens="token",
    )
    usual = {"status": "no-verdict", "copies": False, "broken_controls": [], "broken": []}
    said = _next(config, SimpleNamespace(**usual | state))
    for command in commands:
        assert f"traitscope {command} {GIVEN} " in said or f"{command} {GIVEN};" in said
