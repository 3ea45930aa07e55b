"""What a command and a stage are: their names, their settings, and where their functions lie."""

from dataclasses import dataclass
from typing import Literal

Group = Literal["do", "check", "study", "look", "internal"]
GROUPS: dict[Group, str] = {
    "do": "Do it",
    "check": "Check data",
    "study": "Study claims",
    "look": "Look",
}
"""Titles of the groups of public commands, in the order of the help."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of the command line."""

    name: str
    """What one types."""
    config: type
    """The dataclass whose fields are the flags; each command has one of its own."""
    run: str
    """module:function of (config, output) -> result, below the package."""
    help: str
    """One line."""
    group: Group
    """Where the help lists it; internal ones are typed as `traitscope stage NAME`."""
    subject: tuple[str, ...] = ()
    """Fields that the first words stand for; without any, the first word is a config file."""
    file_alone: bool = False
    """Whether a first word that names a config file stands for the second of these fields."""
    next: str = ""
    """What one would type next. {run} stands for the run's directory. {model} stands for the flags
    that its model needs and the folder of runs, {out} for that folder alone. {student} stands for
    the run's student, {steering} for its first vector at a block in the middle, {trait} for the
    trait of its vector or teacher, the usual one where none is known. A command whose
    next step depends on its result says it there, under the key `next`."""

    @property
    def words(self) -> str:
        """What one types behind `traitscope`."""
        return f"stage {self.name}" if self.group == "internal" else self.name


@dataclass(frozen=True, kw_only=True)
class Stage(Command):
    """A command whose result is a run directory."""

    inputs: str = ""
    """module:function of (config) -> further inputs that the config does not name as paths."""
    resumable: bool = False
    """Whether an interrupted run continues in its own directory."""
    replay: str = ""
    """module:function of (config, inputs, output) -> run, for a stage whose inputs its config does
    not name: computes a run again from the folders of its recorded inputs, by name."""
    only_run: bool = True
    """Whether the run is all that the command gives, so that a sealed one is its answer. False for
    a command that also prints, or whose config does not determine the address."""
    formerly: tuple[str, ...] = ()
    """Names that the stage had in earlier versions; runs under them are still found and read."""
