"""The settings of a command from its words: a config file, flags over it, and help.

Plain --help leaves out the flags of fields that are marked as advanced (config/fields.py);
--help-all shows every flag.
"""

import dataclasses
import inspect
import io
import re
import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from traitscope.cli import wrong_values
from traitscope.config import parsing
from traitscope.config.command_types import Command, Stage
from traitscope.config.common import NamedOutput, Output
from traitscope.config.fields import changed_flags, flag_of, is_advanced
from traitscope.errors import ConfigError, TraitscopeError
from traitscope.plain_values import NotPlainError, from_yaml
from traitscope.plurals import counted

HELP, HELP_ALL = ("-h", "--help"), "--help-all"
CONFIG_FILES = (".yaml", ".yml", ".json")
CORNER = "╭"
"begins a box that the parser draws around what it says, and the line with its title"
NO_VALUE = re.compile(r"Missing value for argument '(--[^']+)'")
"what the parser says of a flag at the end, or before another flag"
BORDERS = (CORNER, "─", "╰", "----")
"begin the lines between paragraphs"


def parse(command: Command, words: Sequence[str]) -> tuple[Any, Output]:
    """The settings of a command and where its output goes.

    The words that are no flags name the command's subject, or a config file; flags go over it.
    Asking for help prints it and raises SystemExit(0). Raises ConfigError for settings that cannot
    work, and for flags that are not understood.
    """
    import tyro

    words = words_first(command, words)
    settings = command.config()
    first_is_word = bool(words) and not words[0].startswith("-")
    if first_is_word and command.subject:
        words = _with_subject(command, words)
    elif first_is_word and words[0].endswith(CONFIG_FILES):
        settings = parsing.from_dict(command.config, read_config(Path(words[0])), words[0])
        words = words[1:]
    elif first_is_word:
        raise _stray_word(command, words[0])
    config_type, output_type = command.config, output_type_of(command)
    about = inspect.getdoc(command.config)
    if HELP_ALL in words:
        words = ["--help"]
    elif any(word in HELP for word in words):
        config_type, hidden = _plain_help(command.config)
        output_type, hidden_outputs = _plain_help(output_type)
        hidden += hidden_outputs
        settings = config_type()
        if hidden:
            more = counted(hidden, "more flag")
            about += f"\n{more}: traitscope {command.words} {HELP_ALL}"
    config_type, settings = _with_flag_names(config_type, settings)
    without_title = Annotated[config_type, tyro.conf.arg(name="", help="")]
    fields = [
        ("config", without_title, dataclasses.field(default=settings)),
        ("out", output_type, dataclasses.field(default=output_type())),
    ]
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            parsed = tyro.cli(
                dataclasses.make_dataclass(command.name, fields),
                args=words,
                prog=f"traitscope {command.words}",
                description=about,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        refusal = _refusal(stop) or ConfigError(_parser_message(said.getvalue(), command, words))
        raise refusal from None
    if type(parsed.config) is not command.config:
        return command.config(**vars(parsed.config)), parsed.out
    return parsed.config, parsed.out


def words_first(command: Command, words: Sequence[str]) -> list[str]:
    """The words with those before the flags that belong to none.

    A flag of one value takes the word behind it. One of several values takes all words up to the
    next flag, and so does a flag that the command has not. One that is on or off takes none.
    """
    takes_one: dict[str, bool] = {}
    for config_type in (command.config, output_type_of(command)):
        takes_one.update(_flags_of_few(config_type))
    leading: list[str] = []
    rest: list[str] = []
    flag, is_free = "", True
    for word in words:
        if word.startswith("--") or word in HELP:
            flag, sign, _ = word.replace("_", "-").partition("=")
            is_free = flag in takes_one and (bool(sign) or not takes_one[flag])
        elif is_free:
            leading.append(word)
            continue
        else:
            is_free = flag in takes_one
        rest.append(word)
    return leading + rest


def _flags_of_few(config_type: type) -> dict[str, bool]:
    """The flags of settings that take one value (True) or none (False), nested settings too."""
    flags: dict[str, bool] = {}
    hints = get_type_hints(config_type)
    for field in dataclasses.fields(config_type):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            flags.update(_flags_of_few(hint))
        elif hint is bool:
            flags[flag_of(field.name)] = flags[flag_of(f"no_{field.name}")] = False
        elif not any(get_origin(part) is tuple for part in (hint, *get_args(hint))):
            names = (field.name, field.metadata.get("alias") or field.name)
            flags.update(dict.fromkeys(map(flag_of, names), True))
    return flags


def output_type_of(command: Command) -> type[Output]:
    """The type of a command's output: a stage's run may have a name and a note.

    The flag `--name` of a stage with such a setting of its own stands for that.
    """
    is_named = isinstance(command, Stage) and "name" not in command.config.__dataclass_fields__
    return NamedOutput if is_named else Output


def _stray_word(command: Command, word: str) -> ConfigError:
    """What to say of a first word that is no flag and no config file."""
    has_data = "data" in command.config.__dataclass_fields__
    hint = f"did you mean --data {word}? " if has_data else ""
    return ConfigError(
        f"{command.name} cannot use the word {word!r}; {hint}expected flags, or first a config file"
        f" ({', '.join(CONFIG_FILES)}); {_see_help(command)}"
    )


def _see_help(command: Command) -> str:
    return f"see: traitscope {command.words} --help"


def _refusal(stop: SystemExit) -> TraitscopeError | None:
    """What a config says of its own values; None where the parser itself refused the words."""
    error: BaseException | None = stop
    while error is not None and not isinstance(error, TraitscopeError):
        error = error.__context__
    return error


def _parser_message(box: str, command: Command, words: Sequence[str]) -> str:
    """What the parser says on the terminal as one sentence: its first paragraph, and the flags that
    it suggests. Of a value that does not fit, it is what was expected."""
    paragraphs: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip(" │")
        if text.startswith(BORDERS):
            paragraphs.append([])
        else:
            paragraphs[-1].append(text)
    paragraphs = [lines for lines in paragraphs if lines]
    if not box.startswith(CORNER):  # without a box, as on a terminal of ASCII, the title is first
        paragraphs = paragraphs[1:]
    if not paragraphs:
        return f"{command.name}: flags that cannot work; {_see_help(command)}"
    message = " ".join(paragraphs[0]).strip().removesuffix(".")
    if match := NO_VALUE.match(message):
        message = f"{match[1]} has no value behind it; expected one"
    types = (command.config, output_type_of(command))
    if explained := wrong_values.explained(message, types, words):
        return f"{explained}; {_see_help(command)}"
    near = []
    for lines in paragraphs[1:]:
        if lines[0].startswith("Perhaps you meant"):
            near += [line.split()[0] for line in lines if line.startswith("--")]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{message}; {hint}{_see_help(command)}"


def typed(command: Command, config: Any) -> str:
    """The command as one would type it: with the flags that do not stand at their defaults, and
    with the trait that it asks about."""
    words, trait = changed_flags(config), getattr(config, "trait", "")
    is_read = "trait" not in getattr(config, "not_read", ((), ""))[0]
    if isinstance(trait, str) and trait and "--trait" not in words and is_read:
        words += ["--trait", trait]
    return shlex.join(["traitscope", *command.words.split(), *words])


def output_of(words: Sequence[str]) -> Output:
    """Where the output of a command goes, whatever its other words are.

    It is known even where other flags cannot work, so that a summary can say so. Where the flags of
    the output themselves cannot work, it is the default.
    """
    import tyro

    asked = [word for word in words if word not in (*HELP, HELP_ALL)]
    try:
        output, _ = tyro.cli(
            Output, args=asked, prog="traitscope", return_unknown_args=True, console_outputs=False
        )
    except SystemExit:
        return Output()
    return output


def read_config(path: Path) -> dict:
    """A YAML or JSON config file. Raises ConfigError where it is missing or broken."""
    try:
        return from_yaml(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise ConfigError(
            f"config file {path} does not exist; expected a YAML or JSON file with settings; check"
            " the path, or give the settings as flags"
        ) from error
    except (OSError, UnicodeDecodeError, NotPlainError) as error:
        raise ConfigError(
            f"config file {path} is no YAML or JSON: {error}; mend the file, or give flags"
        ) from None


def _with_subject(command: Command, words: list[str]) -> list[str]:
    """The words with flags put before the leading ones, which stand for the subject's fields.

    A field of several values takes all words up to the first flag. Raises ConfigError where the
    first field is named by its flag, too.
    """
    named_by = flag_of(command.subject[0])
    if any(word.partition("=")[0] == named_by for word in words):
        raise ConfigError(
            f"{words[0]} and {named_by} both name what {command.name} is to read; expected one of"
            f" the two; put all names before the flags, or all behind {named_by}"
        )
    flags = (place for place, word in enumerate(words) if word.startswith("-"))
    leading = words[: next(flags, len(words))]
    if get_origin(get_type_hints(command.config)[command.subject[0]]) is tuple:
        return [flag_of(command.subject[0]), *words]
    named: list[str] = []
    taken = 0
    subject = command.subject
    if command.file_alone and words[0].endswith(CONFIG_FILES):
        subject = (*subject[1:], subject[0])  # the file alone, or before the action
    for field, word in zip(subject, leading, strict=False):
        named += [flag_of(field), word]
        taken += 1
    return named + words[taken:]


def _with_flag_names(config_type: type, settings: Any) -> tuple[type, Any]:
    """The type of settings whose fields that end in _ have flags without it, and the settings.

    Fields with an alias also have a flag of that name.
    """
    import tyro

    hints = get_type_hints(config_type, include_extras=True)
    annotations: dict[str, Any] = {}
    for field in dataclasses.fields(config_type):
        name, alias = field.name, field.metadata.get("alias")
        if name.endswith("_"):
            named = tyro.conf.arg(name=flag_of(name).removeprefix("--"))
        elif alias:
            named = tyro.conf.arg(aliases=(flag_of(alias),))
        else:
            continue
        annotations[name] = Annotated[hints[name], named]
    if not annotations:
        return config_type, settings
    members: dict[str, Any] = {"__annotations__": annotations, "__doc__": config_type.__doc__}
    for name in annotations:
        members[name] = config_type.__dataclass_fields__[name].default
    renamed = type(config_type.__name__, (config_type,), members)
    renamed = dataclasses.dataclass(frozen=True)(renamed)
    return renamed, renamed(**vars(settings))


def _plain_help(config_type: type) -> tuple[type, int]:
    """The type of settings whose help leaves out what is advanced, and how many flags that is."""
    import tyro

    hints = get_type_hints(config_type)
    annotations: dict[str, Any] = {}
    members: dict[str, Any] = {"__annotations__": annotations, "__doc__": config_type.__doc__}
    hidden = 0
    for field in dataclasses.fields(config_type):
        if is_advanced(field):
            annotations[field.name] = Annotated[hints[field.name], tyro.conf.Suppress]
            members[field.name] = dataclasses.field(default=field.default)
            hint = hints[field.name]
            hidden += len(dataclasses.fields(hint)) if dataclasses.is_dataclass(hint) else 1
        elif dataclasses.is_dataclass(hints[field.name]):
            inner, inner_hidden = _plain_help(hints[field.name])
            annotations[field.name] = inner
            members[field.name] = dataclasses.field(default_factory=inner)
            hidden += inner_hidden
    plain = type(config_type.__name__, (config_type,), members)
    return dataclasses.dataclass(frozen=True)(plain), hidden
