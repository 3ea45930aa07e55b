"""Writes docs/reference/cli.md from the commands and their config classes.

python scripts/make_cli.py
"""

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

from traitscope.config import common
from traitscope.config.command_types import GROUPS, Command
from traitscope.config.entries import COMMANDS
from traitscope.config.fields import flag_of, texts_under_fields

HEAD = """# The command line

`traitscope COMMAND [CONFIG.yaml|CONFIG.json] [--flags]`.
This page is made from the code by `python scripts/make_cli.py`.

A config file comes first and holds the fields below, with `_` for `-` and a block for `recipe`,
`rules` and `endpoint`; flags go over it. `--flag` and `--no-flag` set what is true or false.
Flags marked `...` take several values. stdout carries results, stderr progress.
Exit codes: 0 fine, 1 a check failed, 2 cannot answer, 3 a defect of traitscope.

`--help` shows the usual flags of a command, `--help-all` every flag, as this page does.
"""
INTERNAL = """## Stages behind other commands

Typed as `traitscope stage NAME`; `traitscope stage` lists them.
"""


TABLE = "| flag | default | meaning |\n| --- | --- | --- |\n"


def rows(config: type) -> Iterator[str]:
    """A table row for each flag; a block's fields follow it."""
    hints, text = get_type_hints(config), texts_under_fields(config)
    for field in dataclasses.fields(config):
        kind = next(
            (o for o in get_args(hints[field.name]) if dataclasses.is_dataclass(o)),
            hints[field.name],
        )
        if dataclasses.is_dataclass(kind):
            yield from rows(kind)
            continue
        several = get_origin(kind) is tuple
        default = field.default_factory() if field.default is dataclasses.MISSING else field.default
        shown = "" if default in (None, ()) else f"`{default}`" if default != "" else "empty"
        yield (
            f"| `{flag_of(field.name)}{' ...' if several else ''}` | {shown} |"
            f" {_one_line(text[field.name])} |"
        )


def _one_line(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def section(command: Command, title: str) -> list[str]:
    """A command's heading and its flags."""
    words = " and ".join(word.replace("_", " ") for word in command.subject)
    first = f" {words.capitalize()} may come first, without a flag." if words else ""
    parts = [f"### {title}\n\n{inspect.getdoc(command.config)}{first}\n"]
    flags = "\n".join(rows(command.config))
    if flags:
        parts.append(f"{TABLE}{flags}\n")
    return parts


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        parts.append(f"## {title}\n")
        for command in COMMANDS.values():
            if command.group == group:
                parts += section(command, f"traitscope {command.name}")
    parts.append(INTERNAL)
    for command in COMMANDS.values():
        if command.group == "internal":
            parts += section(command, f"traitscope stage {command.name}")
    parts.append("## Flags of every command\n\n" + TABLE + "\n".join(rows(common.Output)) + "\n")
    named = [row for row in rows(common.NamedOutput) if row not in set(rows(common.Output))]
    parts.append("## Flags of every stage but `study`\n\n" + TABLE + "\n".join(named) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("docs/reference/cli.md").write_text(page(), encoding="utf-8")
