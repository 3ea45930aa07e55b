"""The command `traitscope COMMAND [config.yaml] [--flags]`.

stdout carries results, stderr progress and what one would type next. `--json FILE` writes a summary
with a stable `status`. While a command runs, an older summary there is replaced by `error`. So it
never passes for the answer of a command that was killed. Exit codes: 0 fine, 1 a check failed,
2 cannot answer, 3 a defect of this program. A user's error prints its message, and a defect its
traceback. A reader of the output that has gone, as `head` does, ends a command quietly. Nothing
heavy is imported before the command is known.
"""

import os
import select
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from traitscope import deferred_imports, distributed
from traitscope.cli import flags, usage
from traitscope.config.command_types import Command, Stage
from traitscope.config.common import Output
from traitscope.config.entries import COMMANDS, STAGES
from traitscope.errors import ConfigError, TraitscopeError
from traitscope.stages import registry
from traitscope.stages.registry import function

FINE, FAILED, CANNOT_ANSWER, DEFECT, INTERRUPTED, CLOSED = 0, 1, 2, 3, 130, 141
"""Exit codes; the last two are those of a shell for the signals SIGINT and SIGPIPE."""
UNFINISHED = {
    "status": "error",
    "error": "Unfinished",
    "message": "the command has not ended; run it again",
}
"""The summary of a command that is running, or was killed."""
STAGE = "stage"
"""The word before the name of an internal stage."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exits with one of the codes above.

    Without `argv` the process is that of the command, and may do without imports that it needs not.
    """
    if argv is None:
        deferred_imports.enable()
    output = _UntilClosed(sys.stdout)
    try:
        with redirect_stdout(output):  # type: ignore[type-var]
            code = _exit_code(list(sys.argv[1:] if argv is None else argv))
            sys.stdout.flush()
        if output.is_closed and code == FINE:
            code = CLOSED
    except Exception as error:
        is_broken_pipe = isinstance(error, BrokenPipeError)
        if is_broken_pipe and (_reader_has_gone(sys.stdout) or _reader_has_gone(sys.stderr)):
            _discard(sys.stdout, sys.stderr)
            code = CLOSED
        else:
            traceback.print_exc()
            print(
                "traitscope: this is a defect of traitscope, not of your input; please report it"
                " with the lines above",
                file=sys.stderr,
            )
            code = DEFECT
    sys.exit(code)


def _help(words: list[str]) -> str:
    """The text that the words ask for instead of a command; empty if they name a command."""
    if not words or words[0] in ("-h", "--help", "help"):
        return usage.usage()
    if words[0] == flags.HELP_ALL:
        return usage.whole_usage()
    if words[0] == "--version":
        from traitscope import __version__

        return f"traitscope {__version__}"
    if words[0] == STAGE and (len(words) == 1 or words[1] in ("-h", "--help", flags.HELP_ALL)):
        return usage.stage_usage()
    return ""


def _reader_has_gone(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads."""
    poll = select.poll()
    try:
        poll.register(stream, 0)
    except OSError:  # a stream in memory
        return False
    events = [event for _, event in poll.poll(0)]
    return any(event & (select.POLLERR | select.POLLHUP) for event in events)


def _discard(*streams: TextIO) -> None:
    """Send what is still in the buffers to nowhere, so that the end of the program is quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())


class _UntilClosed:
    """A stream whose reader may go, as `head` does: the command then goes on without it.

    So its files are written as if somebody had read to the end.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_closed = False

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            if not _reader_has_gone(self.stream):
                raise
            self._close()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            if not _reader_has_gone(self.stream):
                raise
            self._close()

    def _close(self) -> None:
        self.is_closed = True
        _discard(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _exit_code(words: list[str]) -> int:
    """Print the help that the words ask for, or run a command and write its summary where --json
    says."""
    from traitscope.cli.checks import written_paths

    if text := _help(words):
        print(text)
        return FINE
    target = None
    try:
        target = flags.output_of(words).json if distributed.first() else None
        written_paths.check_summary(target, words)
        command, summary = _answered(words)
        _write_summary(target, summary)
        if command is not None and distributed.first():
            from traitscope.cli.printed import next_step

            next_step.print_next(command, summary)
    except SystemExit as stop:  # the help of a command was printed
        return int(stop.code or FINE)
    except TraitscopeError as error:
        _explain(error)
        return CANNOT_ANSWER
    except KeyboardInterrupt:
        print("traitscope: interrupted; run the same command again to continue", file=sys.stderr)
        _write_summary(target, UNFINISHED | {"error": "Interrupted"})
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        with suppress(TraitscopeError):
            message = f"{type(error).__name__}: {error}"
            _write_summary(target, {"status": "error", "error": "Defect", "message": message})
        raise
    if summary.get("gate") == "failed" or summary["status"] == "failed":
        return FAILED
    return CANNOT_ANSWER if summary["status"] == "error" else FINE


def _answered(words: list[str]) -> tuple[Command | None, dict]:
    """The command that was run, and its summary.

    A user's error becomes a message and the status `error`. So does a machine that has no more
    space or handles.
    """
    from traitscope import atomic_files
    from traitscope.cli.checks.written_paths import SummaryRefusedError

    try:
        return _run(words)
    except SummaryRefusedError:
        raise
    except TraitscopeError as error:
        explained = error
    except Exception as error:
        explained = atomic_files.exhausted(error)
        if explained is None:
            raise
    _explain(explained)
    return None, {
        "status": "error",
        "error": type(explained).__name__,
        "message": str(explained),
    }


def _explain(error: TraitscopeError) -> None:
    who = "traitscope" if distributed.first() else f"traitscope, process {distributed.rank()}"
    print(f"{who}: {error}", file=sys.stderr)


def _write_summary(target: Path | None, summary: dict) -> None:
    from traitscope import atomic_files
    from traitscope.cli.checks.own_results import TOOL

    if target is not None:
        atomic_files.write_json(target, {"tool": TOOL, **summary})


def command_of(words: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that the first words name, and the words behind it; `-` may stand for `_`.

    Raises ConfigError.
    """
    name, rest = words[0].replace("-", "_"), list(words[1:])
    if name == STAGE:
        name, rest = rest[0].replace("-", "_"), rest[1:]
        if name not in STAGES:
            raise ConfigError(usage.unknown_stage(name))
        return STAGES[name], rest
    if name not in COMMANDS or COMMANDS[name].group == usage.INTERNAL:
        raise ConfigError(usage.unknown_command(name))
    return COMMANDS[name], rest


def _run(words: list[str]) -> tuple[Command, dict]:
    from traitscope.cli import early_checks, naming
    from traitscope.cli.checks import written_paths
    from traitscope.cli.tracking import tracker
    from traitscope.runs.names import lookup

    command, rest = command_of(words)
    if distributed.world() > 1 and command.name != "train":
        raise ConfigError(
            f"{command.name} runs in one process, torchrun started {distributed.world()}; only"
            " train shares a model among several: leave torchrun out"
        )
    rest = flags.words_first(command, rest)
    config, out = flags.parse(command, rest)
    config = lookup.with_runs(config, out.root)
    written_paths.check_written(config, out, rest)
    naming.check(config, out)
    if distributed.world() == 1:  # of several processes the first one speaks for all, later
        early_checks.check_settings(config, out)
    if distributed.first() and out.json is not None and out.json.is_file():
        _write_summary(out.json, UNFINISHED)
    if distributed.first() and command.group != usage.LOOK:
        print(flags.typed(command, config), file=sys.stderr)
    if distributed.world() == 1:
        for sentence in early_checks.advice(config):
            print(f"traitscope: {sentence}", file=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    track = out.track if distributed.first() else ""
    with tracker.tracking(track, tracker.run_name(command.name), config):
        summary = summary_of(_result(command, config, out))
        tracker.send_result(summary)
    if distributed.first():
        naming.name_run(summary, out)
    return command, summary


def _result(command: Command, config: Any, out: Output) -> Any:
    """What a command gives: its sealed run where there is one, found without importing torch."""
    if isinstance(command, Stage) and distributed.world() == 1:
        run = registry.finished(config, out)
        if run is not None:
            return run
    if distributed.world() > 1:
        return function(command.run)(config, out)
    with deferred_imports.deferred(("torch._dynamo",)):  # nothing is compiled
        return function(command.run)(config, out)


def summary_of(result: Any) -> dict:
    """What a command prints and writes: the numbers of a run, or the dict that it made itself."""
    if isinstance(result, dict):
        return result
    from traitscope.cli import show

    return show.describe(result)
