"""The command `traitscope VERB [config.yaml] [--flags]`.

stdout carries results, stderr progress; `--json FILE` writes a summary with a stable `status`. Exit
codes: 0 fine, 1 a check failed, 2 cannot answer. A user's error prints its message without a
traceback. Nothing heavy is imported before the verb is known.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitscope import distributed
from traitscope.config import common, parsing
from traitscope.errors import ConfigError, TraitscopeError
from traitscope.stages.registry import COMMANDS, Command, function


def usage() -> str:
    """The text of `traitscope --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {verb.help}" for name, verb in COMMANDS.items()]
    return "\n".join(
        [
            "usage: traitscope VERB [CONFIG.yaml|CONFIG.json] [--flags]",
            "",
            "Subliminal learning: make it happen, measure it, explain it with steering vectors.",
            "",
            *lines,
            "",
            "traitscope VERB --help lists the flags of a verb, with defaults and units.",
            "Exit codes: 0 fine, 1 a check failed, 2 cannot answer.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exits with the code above."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0)
    if args[0] == "--version":
        from traitscope import __version__

        print(f"traitscope {__version__}")
        sys.exit(0)
    sys.exit(_guarded(args))


def _guarded(args: list[str]) -> int:
    """Run a verb and write its `--json` summary; returns the exit code."""
    try:
        summary = _answered(args)
        if distributed.first() and (target := _json_target(args)):
            _write_summary(target, summary)
    except TraitscopeError as error:
        _explain(error)
        return 2
    except KeyboardInterrupt:
        print("traitscope: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    return (
        1
        if summary.get("gate") == "failed"
        else {"failed": 1, "error": 2}.get(summary["status"], 0)
    )


def _explain(error: TraitscopeError) -> None:
    who = "traitscope" if distributed.first() else f"traitscope, process {distributed.rank()}"
    print(f"{who}: {error}", file=sys.stderr)


def _answered(args: list[str]) -> dict:
    """The summary of a verb; a user's error becomes a message and the status `error`."""
    try:
        return _run(args)
    except TraitscopeError as error:
        _explain(error)
        return {"status": "error", "error": type(error).__name__, "message": str(error)}
    except (
        SystemExit
    ) as stop:  # the flags: help was asked for, or one was not understood and the reason is printed
        if not stop.code:
            raise
        return {
            "status": "error",
            "error": "ConfigError",
            "message": f"flags that cannot work: {' '.join(args)}",
        }


def _json_target(args: list[str]) -> Path | None:
    for i, arg in enumerate(args):
        if arg == "--json" and i + 1 < len(args):
            return Path(args[i + 1])
        if arg.startswith("--json="):
            return Path(arg.removeprefix("--json="))
    return None


def _write_summary(path: Path, summary: dict) -> None:
    from traitscope import atomic_files

    atomic_files.write_json(path, summary)


def _run(args: list[str]) -> dict:
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        raise ConfigError(f"unknown verb {name!r}; expected one of {', '.join(COMMANDS)}")
    verb = COMMANDS[name]
    if distributed.world() > 1 and name != "train":
        raise ConfigError(
            f"{name} runs in one process, torchrun started {distributed.world()}; only train shares"
            " a model among several: leave torchrun out"
        )
    config, out = parse(name, verb, rest)
    if distributed.first():
        print(
            json.dumps({"verb": name, **dataclasses.asdict(config)}, default=str), file=sys.stderr
        )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return summary_of(function(verb.run)(config, out))


def parse(name: str, verb: Command, args: list[str]) -> tuple[Any, common.Output]:
    """Config and output settings of a verb: a file first, if named, then the flags over it."""
    import tyro

    default, first = verb.config(), args[0] if args and not args[0].startswith("-") else None
    if first and verb.subject:
        words = [
            word for word, _ in zip(args, verb.subject, strict=False) if not word.startswith("-")
        ]
        named = [
            [f"--{flag.replace('_', '-')}", word]
            for flag, word in zip(verb.subject, words, strict=False)
        ]
        args = [part for pair in named for part in pair] + args[len(words) :]
    elif first and first.endswith((".yaml", ".yml", ".json")):
        default, args = parsing.from_dict(verb.config, read_config(Path(first)), first), args[1:]
    fields = [
        ("config", verb.config, dataclasses.field(default=default)),
        ("out", common.Output, dataclasses.field(default=common.Output())),
    ]
    command = dataclasses.make_dataclass(name, fields)
    flat = (tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands)
    parsed = tyro.cli(
        command, args=args, prog=f"traitscope {name}", description=verb.config.__doc__, config=flat
    )
    return parsed.config, parsed.out


def read_config(path: Path) -> dict:
    """A YAML or JSON config file.  Raises ConfigError where it is missing or broken."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config file {path}: {error}") from error


def summary_of(result: Any) -> dict:
    """What a verb prints and writes: a run's place and numbers, or the dict that the verb made
    itself."""
    if isinstance(result, dict):
        return result
    from traitscope.cli import inspection

    return inspection.describe(result)


if __name__ == "__main__":
    main()
