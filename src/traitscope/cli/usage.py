"""The text of `traitscope --help` and `traitscope stage`, and the message for an unknown
command."""

import dataclasses
import textwrap
from difflib import get_close_matches
from typing import get_type_hints

from traitscope.config.command_types import GROUPS, Group
from traitscope.config.entries import COMMANDS, STAGES
from traitscope.config.fields import flag_of, is_advanced

COLUMNS = 100
"Width of the help."

INTERNAL: Group = "internal"
LOOK: Group = "look"


def usage() -> str:
    """The text of `traitscope --help`: every public command, in groups."""
    lines = [
        "usage: traitscope COMMAND [CONFIG.yaml|CONFIG.json] [--flags]",
        "",
        "Subliminal learning: make it happen, measure it, explain it with steering vectors, and"
        " audit",
        "data for it.",
    ]
    for group, title in GROUPS.items():
        lines += ["", f"{title}:", *_listed(group)]
    lines += [
        "",
        "traitscope COMMAND --help lists the flags of a command, --help-all also the rare ones.",
        "traitscope --help-all lists the stages that other commands run, and all rare flags.",
        "Exit codes: 0 fine, 1 a check failed, 2 cannot answer, 3 a defect of traitscope.",
    ]
    return "\n".join(lines)


def whole_usage() -> str:
    """The text of `traitscope --help-all`: that of --help, with internal stages and rare flags."""
    lines = [usage(), "", "Stages that other commands run (traitscope stage NAME):"]
    lines += _listed(INTERNAL)
    lines += ["", "Rare flags, which the plain help of a command leaves out:"]
    for command in COMMANDS.values():
        rare = rare_flags(command.config)
        if rare:
            text = f"{command.name:<{_width()}}  {' '.join(rare)}"
            lines += textwrap.wrap(
                text,
                COLUMNS,
                initial_indent="  ",
                subsequent_indent=" " * (_width() + 4),
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def rare_flags(config: type) -> list[str]:
    """The flags that are marked as advanced, those of blocks among them."""
    hints = get_type_hints(config)
    rare = []
    for field in dataclasses.fields(config):
        if is_advanced(field):
            rare.append(flag_of(field.name))
        elif dataclasses.is_dataclass(hints[field.name]):
            rare += rare_flags(hints[field.name])
    return rare


def stage_usage() -> str:
    """The text of `traitscope stage`: the stages that are no public commands."""
    lines = [
        "usage: traitscope stage NAME [CONFIG.yaml|CONFIG.json] [--flags]",
        "",
        "Stages that other commands run; the public stages can be named here, too.",
        "",
        *_listed(INTERNAL),
    ]
    return "\n".join(lines)


def unknown_command(name: str) -> str:
    """What to say of a word that is no public command."""
    if name in COMMANDS:
        return f"{name} is a stage that other commands run; type: traitscope {COMMANDS[name].words}"
    public = [command.name for command in COMMANDS.values() if command.group != INTERNAL]
    return f"unknown command {name!r}; {_nearest(name, public)}expected one of {', '.join(public)}"


def unknown_stage(name: str) -> str:
    """What to say of a word behind `traitscope stage` that is no stage."""
    return f"unknown stage {name!r}; {_nearest(name, list(STAGES))}expected one of" + (
        f" {', '.join(STAGES)}"
    )


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _listed(group: Group) -> list[str]:
    """A line for every command of a group."""
    lines = []
    for command in COMMANDS.values():
        if command.group == group:
            lines.append(f"  {command.name:<{_width()}}  {command.help}")
    return lines


def _width() -> int:
    """Characters of the longest name of a command."""
    return max(map(len, COMMANDS))
