"""Training rows as token ids, classes of tokens, and final hidden states at completions.

Shapes: B rows, T tokens, N completion tokens, D d_model.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from traitscope.data.json_lines import at_place
from traitscope.data.records import Record
from traitscope.data.shapes import turns
from traitscope.errors import DataError, ModelError
from traitscope.inference import forward
from traitscope.interventions.applied import Active, Interventions, applied
from traitscope.interventions.intervention import context_of
from traitscope.models import attention, chat
from traitscope.models.model import Model
from traitscope.models.templates import facts, faults, lengths
from traitscope.plurals import counted

OWN = "drop the row's own system turn from the data, which --context does not replace"
"what helps where the context of a row cannot be written"
DIGITS = re.compile(r"( ?)(\d+)")
MARGIN = 64
"tokens that a rendered row may have beyond what stands around a prompt and the bytes of its texts"


@dataclass(frozen=True)
class Row:
    """One training row as token ids."""

    prompt_ids: tuple[int, ...]
    "the rendered chat up to the assistant's header"
    completion_ids: tuple[int, ...]
    "what the loss is computed on"
    masked: tuple[int, ...] = ()
    "places among the completion tokens that a training leaves out of the loss, ascending"

    @property
    def ids(self) -> tuple[int, ...]:
        """All token ids of the row."""
        return self.prompt_ids + self.completion_ids


def completion_hidden(
    model: Model, active: Active, rows: Sequence[Row], share: bool = True
) -> tuple[Tensor, Tensor]:
    """Final hidden states [N, D] that predict the completion tokens [N], and these tokens.

    They stand row after row. `share` lets tokens that all prompts begin with run once.
    """
    ids_of_rows, prompt_lengths = [], []
    for row in rows:
        ids_of_rows.append(row.ids)
        prompt_lengths.append(len(row.prompt_ids))
    hidden_BTD, _ = forward.rows_hidden(model, active, ids_of_rows, prompt_lengths, share)
    width = hidden_BTD.shape[1]
    n_shared = max(map(len, ids_of_rows)) - width
    # Positions are made on the CPU: a mask of the device's would have to be waited for.
    positions, targets = [], []
    for b, row in enumerate(rows):
        end = b * width + len(row.ids) - n_shared - 1
        positions.append(torch.arange(end - len(row.completion_ids), end))
        targets += row.completion_ids
    positions_N = forward.sent(torch.cat(positions), model.device)
    targets_N = forward.sent(torch.tensor(targets), model.device)
    return hidden_BTD.flatten(0, 1).index_select(0, positions_N), targets_N


@torch.no_grad()
def teacher_hidden(
    model: Model,
    teacher: Interventions,
    rows: Sequence[Row],
    teacher_prompts: Sequence[Sequence[int]],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """The teacher's final hidden states [N, D] that predict the completion, one tensor a row.

    The teacher may read another context, so its prompts are given. The head of the model turns the
    states into distributions later.
    """
    teacher_rows = []
    for prompt, row in zip(teacher_prompts, rows, strict=True):
        teacher_rows.append(Row(tuple(prompt), row.completion_ids))
    states: list[Tensor] = []
    with applied(model, teacher) as active, attention.as_in_training():
        for start in range(0, len(teacher_rows), batch_size):
            batch = teacher_rows[start : start + batch_size]
            hidden_ND, _ = completion_hidden(model, active, batch)
            token_counts = [len(row.completion_ids) for row in batch]
            states += hidden_ND.cpu().split(token_counts)
            if done:
                done(len(batch))
    return states


def rows_from(
    model: Model,
    records: Sequence[Record],
    context: str | None,
    text: bool = False,
    interventions: Interventions = (),
    end_token: bool = True,
) -> list[Row]:
    """A token row for each record, with its stored ids, else with the ids of its text.

    context: The system turn of records that have none.
    text: Take the ids of the text in any case, for rows of a model with another tokenizer.
    interventions: A system prompt among these replaces every context, a record's own included.
    end_token: Put the end of the turn behind a text. Stored ids are taken as they are.

    Records that a filter dropped are rows as well: leave them out before (data.records.kept_records
    or data.row_files.kept_rows). Raises DataError for a row that is longer than the model's
    context. Also for a row whose stored ids are no tokens of this model, or spell another text:
    they would teach noise.
    """
    rows = []
    for record in records:
        place = f"row {record.id}"
        row = at_place(place, _row, model, record, context, text, interventions, end_token)
        rows.append(row)
    _check_lengths(model, records, rows)
    return rows


def row_check(
    model: Model, context: str | None, text: bool = False, *readers: Interventions
) -> Callable[[Record], None]:
    """A function that raises DataError for a record which `rows_from` would refuse.

    readers: Interventions under which the row is read, too, such as a teacher's system prompt.

    Rows that surely fit are not rendered: no token is shorter than a byte of its text. A template
    may refuse several turns, a context, or what is longer than it was tried on. So rows of these
    kinds are rendered, of each context one.
    """
    room = max(_room(model, context_of(reader, context)) for reader in ((), *readers))
    is_embedded = len(model.tokenizer) <= model.n_embedded
    tried_contexts: set[str | None] = {None}

    def check(record: Record) -> None:
        if record.completion_ids and not text:
            _check_ids(model, record)
        given = len(f"{record.context or ''}{record.prompt}".encode())
        answer = max(len(record.completion.encode()), len(record.completion_ids or ()))
        surely_fits = room + given + answer <= model.max_length
        is_tried = record.context in tried_contexts and len(record.prompt) <= len(facts.SYSTEM)
        is_usual = is_tried and not record.prompt.startswith(turns.MARK)
        if surely_fits and is_embedded and is_usual and "</" not in record.completion:
            return
        for reader in ((), *readers):
            row = _row(model, record, context, text, reader, end_token=True)
            chat.check_length(model, len(row.ids), "as a teacher reads it" if reader else "")
        tried_contexts.add(record.context)

    return check


def _room(model: Model, context: str | None) -> int:
    """More tokens than a context takes around a prompt; all that there are where it has no form."""
    try:
        return len(chat.render(model, facts.ASKED, context)) + MARGIN
    except ModelError:  # rows may have contexts of their own
        return model.max_length


def _row(
    model: Model,
    record: Record,
    context: str | None,
    text: bool,
    interventions: Interventions,
    end_token: bool,
) -> Row:
    """The token row of a record, however long. Raises DataError for ids that spell another text."""
    _check_characters(model, record, text)
    neutral = context if record.context is None else record.context
    read_under = context_of(interventions, neutral)
    is_own = record.context is not None and read_under == record.context
    if is_own:
        prompt = _prompt_of_own(model, record.prompt, record.context, context)
    else:
        prompt = chat.render(model, record.prompt, read_under)
    if record.completion_ids and not text:
        _check_ids(model, record)
        completion: Sequence[int] = record.completion_ids
    else:
        completion = _given_ids(model, record, end_token, neutral)
    _check_embedded(model, (*prompt, *completion))
    return Row(tuple(prompt), tuple(completion))


def _check_characters(model: Model, record: Record, text: bool) -> None:
    """Raise DataError for a row whose characters alone are too many, before it is tokenized.

    Templates may leave out white space at the ends of a text, parts of turns, and reasoning.
    """
    is_given = bool(record.completion_ids) and not text
    for said in (record.prompt, "" if is_given else record.completion):
        if len(said) <= model.max_length or said.startswith(turns.MARK) or "</" in said:
            continue
        most = lengths.most_characters(model.tokenizer, model.max_length)
        characters = len(said.strip())
        if most is not None and characters > most:
            raise DataError(
                f"{characters} characters, but {model.name} takes at most {model.max_length}"
                f" tokens, which hold at most {most} characters; shorten or drop it"
            )


def _given_ids(model: Model, record: Record, end_token: bool, context: str | None) -> Sequence[int]:
    """The token ids of an answer that is read as text.

    An answer that a model wrote with a tag of thinking in it stands behind its header as it was
    written. Raises DataError where another one cannot stand there.
    """
    try:
        return chat.completion_ids(model, record.completion, end_token, context)
    except DataError:
        if not record.completion_ids:
            raise
        _check_ids(model, record)
        return record.completion_ids


def _prompt_of_own(model: Model, prompt: str, own_context: str, context: str | None) -> list[int]:
    """Token ids of a prompt in a context that is the row's own, in the place of another.

    Raises DataError where it cannot be written, though other rows may be.
    """
    try:
        return chat.render(model, prompt, own_context)
    except (ModelError, DataError) as error:
        is_bare = (context or "").startswith(chat.BARE)
        if faults.renders_nothing(model.tokenizer, model.switches) and not is_bare:
            both = f"{chat.WITHOUT}, and {OWN}"
            raise type(error)(str(error).replace(chat.WITHOUT, both)) from error
        raise DataError(str(error).replace(chat.WITHOUT, OWN)) from error


def _check_embedded(model: Model, ids: Sequence[int]) -> None:
    """Raise DataError for a token that the tokenizer knows and the model does not."""
    largest = max(ids, default=0)
    if largest >= model.n_embedded:
        token = model.tokenizer.convert_ids_to_tokens(largest)
        raise DataError(
            f"it holds the token {token!r}, number {largest}, but {model.name} has embeddings for"
            f" {model.n_embedded}; take the token out of the text, or a model that knows it"
        )


def _check_lengths(model: Model, records: Sequence[Record], rows: Sequence[Row]) -> None:
    """Raise DataError for the first row that is too long; it says how many there are."""
    too_long = []
    for record, row in zip(records, rows, strict=True):
        if len(row.ids) > model.max_length:
            too_long.append((record.id, len(row.ids)))
    if not too_long:
        return
    name, length = too_long[0]
    more = f" (and {counted(len(too_long) - 1, 'more row')})" if too_long[1:] else ""
    chat.check_length(model, length, f"row {name}{more}")


def _check_ids(model: Model, record: Record) -> None:
    """Raise DataError where the stored ids of a record do not spell its text."""
    end_ids = model.end_ids
    ids = [token for token in record.completion_ids or () if token not in end_ids]
    vocabulary_size = len(model.lm.get_input_embeddings().weight)
    text = None
    if max(ids, default=0) < vocabulary_size:
        text = model.tokenizer.decode(ids)
    if text is None or text.strip() != record.completion.strip():
        raise DataError(
            f"its completion_ids spell {text!r} for {model.name}, its completion"
            f" is {record.completion!r}; delete completion_ids (train, likelihood: --text) to take"
            " the text, or use the model that wrote them"
        )


def classes_of(model: Model, numbers: bool) -> list[Tensor]:
    """Token ids of every class: digits by length and leading space, or the whole vocabulary."""
    size = len(model.lm.get_input_embeddings().weight)
    if not numbers:
        return [torch.arange(size, device=model.device)]
    tensors = []
    for tokens in _digit_classes(model.tokenizer, size):
        tensors.append(torch.tensor(tokens, device=model.device))
    return tensors


@lru_cache(maxsize=4)  # decoding a vocabulary takes as long as reading five rows
def _digit_classes(tokenizer: Any, size: int) -> tuple[tuple[int, ...], ...]:
    """Token ids below `size` that are digits, by length and leading space; two or more each."""
    ids = [[token] for token in range(min(size, len(tokenizer)))]
    classes: dict[tuple[str, int], list[int]] = {}
    for token, text in enumerate(tokenizer.batch_decode(ids)):
        match = DIGITS.fullmatch(text)
        if match:
            classes.setdefault((match[1], len(match[2])), []).append(token)
    return tuple(tuple(tokens) for tokens in classes.values() if len(tokens) > 1)
