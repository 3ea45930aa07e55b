"""What the terminal says of the rows that a run wrote or learnt."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from traitscope.config.rows.filtering import FilterRules
from traitscope.data.records import MASKED
from traitscope.data.row_files import RECORDS, iter_kept, iter_rows
from traitscope.data.shapes.inside.said import lines_of
from traitscope.errors import TraitscopeError
from traitscope.plurals import counted
from traitscope.runs import drawn_rows, row_intake, store
from traitscope.runs.manifests import TRAINED_ON, TRIMMED

FILTERS = {
    "code": "--code",
    "sums": "--answer",
    "requests": "--no-numbers --banned-words WORD",
    "stories": "--no-numbers --banned-words WORD",
}
"""The flags of `filter` for rows of a domain."""
SPACED = (
    "answer was learnt without the white space at its ends",
    "answers were learnt without the white space at their ends",
)
"what is said of rows that a chat template trims: for one, and for more"
FILTER = "traitscope filter --data {run}"
"""The command that keeps rows of a run."""
LOOKED_AT = 1000
"""Rows of a run that tell whether it holds pairs."""
LARGEST = 64 * 2**20
"""Bytes of a file of rows that is read again to say something of it."""


def read(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was read of files of rows, from the number files of a run."""
    if "reading" in numbers:
        yield from lines_of(numbers["reading"])
    for field, flag in row_intake.BESIDE.items():
        if about := numbers.get(row_intake.reading_file(field).removesuffix(".json")):
            for line in lines_of(about):
                yield f"{flag}: {line}"


def reading_flags(settings: Mapping[str, Any]) -> str:
    """Return the flags with which kept rows in the shape of a user's file say what the run says.

    settings: Those of the run, which say how the rows of the file were read.
    """
    reading = settings.get("reading", {})
    words = ["--map", *reading["map"]] if reading.get("map") else []
    if reading.get("turns", "last") != "last":
        words += ["--turns", "weighted"]  # what was dropped has the weight 0, what was kept has not
    if reading.get("reasoning", "drop") != "drop":
        words += ["--reasoning", reading["reasoning"]]
    if settings.get("control_tokens") == "token":
        words += ["--control-tokens", "token"]
    return shlex.join(words)


def written(run: store.Run) -> Iterator[str]:
    """Yield how many rows a run of `generate` wrote, how many are nothing but numbers, and how many
    were cut.

    Of a teacher it yields the command that says whether the teacher has its trait.
    """
    settings = drawn_rows.settings_of(run)
    if counts := _counts(run):
        n_rows, n_numbers, n_tokens, n_cut = counts
        numbers = ""
        if _asks_numbers(settings):
            longest = counted(max(settings["count"], 1), "number")
            numbers = f", {n_numbers} of them lists of at most {longest}"
            numbers += f" ({n_numbers / n_rows:.0%})"
        cut = f", {n_cut} seem cut at --max-new-tokens {_longest(settings)}" if n_cut else ""
        yield f"{counted(n_rows, 'row')}, {n_tokens / n_rows:.1f} tokens a row{cut}{numbers}"
        if _asks_numbers(settings) and n_numbers == 0:
            yield (
                "`filter` would keep none of them: draw lists with --vocabulary template, or keep"
                " other rows with: traitscope filter --no-numbers"
            )
    if flags := FILTERS.get(_domain(settings)):
        yield f"`filter` keeps lists of numbers; for these rows: traitscope filter {flags}"
    if settings["interventions"]:
        yield f"whether this teacher has its trait: {_asked(run)}"


def after(run: store.Run) -> str:
    """Return what one would type after a run of `generate`; {run} and {out} stand in it.

    It is a filter that keeps rows. Where none is a list of numbers that was asked for, it is the
    command that draws lists.
    """
    settings, words = drawn_rows.settings_of(run), ""
    if _domain(settings) != "numbers":
        words = f" {FILTERS.get(_domain(settings), '--no-numbers')}"
    elif (counts := _counts(run)) and counts[1] == 0:
        if settings["prompts"] is None:
            return _drawn_as_lists(run)
        words = " --no-numbers"
    elif settings["count"] > FilterRules.max_count:
        words = f" --max-count {settings['count']}"
    return f"{FILTER}{words}{{out}}"


def _drawn_as_lists(run: store.Run) -> str:
    """Return the command that draws the rows of a run again, as lists of numbers."""
    from traitscope.interventions import short_form
    from traitscope.workflow.replay import replayed_config

    config = replayed_config(run)
    teacher = tuple(map(short_form.to_short, short_form.parse_each(config.interventions)))
    lists = {"vocabulary": "template", "like": None, "engine": "here", "interventions": teacher}
    return typed("generate", replace(config, **lists))


def typed(stage: str, config: Any) -> str:
    """Return a command of a stage with the model of its settings; {out} stands at its end."""
    from traitscope.cli import flags
    from traitscope.config.common import OnModel
    from traitscope.config.entries import STAGES
    from traitscope.models.identity.words import KEPT, joined, model_words

    usual = {name: getattr(OnModel, name) for name in KEPT}
    words = joined(model_words(vars(config), with_context=False))
    command = flags.typed(STAGES[stage], replace(config, **usual)) + words
    return command.replace("{", "{{").replace("}", "}}") + "{out}"


def are_pairs(run: store.Run) -> bool:
    """Tell whether the first kept rows of a run are pairs, each with a rejected answer."""
    try:
        for record in islice(iter_kept(run.path), LOOKED_AT):
            if record.rejected is None:
                return False
    except TraitscopeError:  # no row is kept
        return False
    return True


def _counts(run: store.Run) -> tuple[int, int, int, int] | None:
    """Return the numbers of rows, of lists of numbers, of tokens and of cut answers.

    None for a large file. An answer that did not end has all tokens that it may have, and its last
    token ends no shorter answer.
    """
    from traitscope.stages.filter import reject_reasons

    if run.file(RECORDS).stat().st_size > LARGEST:
        return None
    settings = drawn_rows.settings_of(run)
    rules = FilterRules(max_count=max(settings["count"], 1))
    longest = _longest(settings)
    ends: set[int] = set()
    last_of_long: Counter[int] = Counter()
    n_rows = n_numbers = n_tokens = 0
    for record in iter_rows(run.path):
        n_rows += 1
        n_numbers += not reject_reasons(record.completion, rules)
        ids = record.completion_ids or ()
        n_tokens += len(ids)
        if ids and len(ids) == longest:
            last_of_long[ids[-1]] += 1
        else:
            ends.update(ids[-1:])
    n_cut = last_of_long.total() - sum(last_of_long[token] for token in ends)
    return n_rows, n_numbers, n_tokens, n_cut


def _longest(settings: Mapping[str, Any]) -> int:
    """Return the most tokens of an answer; 0 where answers have a length of their own."""
    if settings["vocabulary"] == "template":
        return 0
    longest: int = settings["max_new_tokens"]
    return longest


def _asks_numbers(settings: Mapping[str, Any]) -> bool:
    """Tell whether the prompts of a run of `generate` asked for lists of numbers."""
    return settings["prompts"] is None and _domain(settings) == "numbers"


def _domain(settings: Mapping[str, Any]) -> str:
    """Return what was asked for; runs of earlier versions asked for numbers."""
    return settings.get("domain", "numbers")


def _asked(run: store.Run) -> str:
    """Return the command that asks a teacher about a trait."""
    from traitscope.cli.printed import asked
    from traitscope.interventions import short_form
    from traitscope.models.identity.words import model_words
    from traitscope.runs.names import following
    from traitscope.workflow.replay import replayed

    settings = replayed(run)
    teacher = short_form.parse_each(settings["interventions"])
    trait = asked.of_teacher(run) or "TRAIT"
    words = [*model_words(settings), *following.place_words(run.path), "--trait", trait]
    words += ["--interventions", *map(short_form.to_short, teacher)]
    return shlex.join(["traitscope", "measure", *words])


def learnt(run: store.Run) -> str:
    """Return what a run of `train` learnt and held out, in words.

    Runs of earlier versions did not record it. Of them the rows are counted again, where they are
    at hand, those held out among them; else nothing is said.
    """
    manifest = run.manifest()
    if TRAINED_ON in manifest:
        return _trained_on(manifest[TRAINED_ON])
    if "data" not in manifest["inputs"]:
        return ""
    data = drawn_rows.input_of(run, "data")
    if not _is_small(data) or store.run_folder(data) is None:
        return ""
    settings = drawn_rows.settings_of(run)
    n_rows = n_tokens = n_masked = 0
    try:
        for record in islice(iter_kept(data), settings["max_rows"]):
            n_rows += 1
            n_tokens += len(record.completion_ids or ())
            n_masked += len(record.meta.get(MASKED, ()))
    except (TraitscopeError, OSError):
        return ""
    rows = f"learnt from {counted(n_rows, 'row')}"
    if n_tokens:
        rows += f" with {counted(n_tokens, 'token')}"
    rows += f", {counted(n_masked, 'token')} masked" if n_masked else ""
    return f"{rows}, any that were held out among them"


def _trained_on(about: Mapping[str, int]) -> str:
    """The same from what a manifest says; tokens are those of answers, masked ones apart."""
    learnt = f"learnt from {counted(about['rows'], 'row')} with {counted(about['tokens'], 'token')}"
    if about["masked_tokens"]:
        learnt += f", {counted(about['masked_tokens'], 'token')} masked"
    held_out = "; no row held out"
    if about["held_out_rows"]:
        rows = counted(about["held_out_rows"], "row")
        held_out = f"; {rows} held out, to measure the held-out loss"
    if trimmed := about.get(TRIMMED):
        held_out += f"; {counted(trimmed, *SPACED)}, which the chat template takes off"
    return f"{learnt}{held_out}"


def _is_small(data: Path) -> bool:
    file = data / RECORDS if data.is_dir() else data
    return file.is_file() and file.stat().st_size <= LARGEST
