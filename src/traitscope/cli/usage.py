"""The text of `traitscope --help` and `traitscope stage`, and the message for an unknown
command."""

from difflib import get_close_matches

from traitscope.config.entries import COMMANDS, GROUPS, STAGES, Command, Group

INTERNAL: Group = "internal"


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
        "traitscope stage lists the stages that other commands run.",
        "Exit codes: 0 fine, 1 a check failed, 2 cannot answer.",
    ]
    return "\n".join(lines)


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
        return f"{name} is a stage that other commands run; type: traitscope stage {name}"
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
    width = max(len(name) for name in COMMANDS)
    lines = []
    for command in COMMANDS.values():
        if command.group == group:
            lines.append(_line(command, width))
    return lines


def _line(command: Command, width: int) -> str:
    return f"  {command.name:<{width}}  {command.help}"
