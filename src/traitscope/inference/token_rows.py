"""Training rows as token ids, and what a model knows at each place of their completions.

Shapes: B rows, T tokens, N completion tokens, D d_model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from traitscope.data.records import Record
from traitscope.errors import DataError
from traitscope.inference import forward
from traitscope.interventions.intervention import Active, Intervention, applied, context_of
from traitscope.models import chat
from traitscope.models.model import Model


@dataclass(frozen=True)
class Row:
    """One training row as token ids."""

    prompt_ids: tuple[int, ...]
    "the rendered chat up to the assistant's header"
    completion_ids: tuple[int, ...]
    "what the loss is computed on"

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt_ids + self.completion_ids


def completion_hidden(
    model: Model, active: Active, rows: Sequence[Row], share: bool = True
) -> tuple[Tensor, Tensor]:
    """Final hidden states that predict the completion tokens [N, D], row after row, and those
    tokens [N]."""
    hidden_BTD, _ = forward.rows_hidden(
        model, active, [r.ids for r in rows], [len(r.prompt_ids) for r in rows], share
    )
    width, shared = hidden_BTD.shape[1], max(len(r.ids) for r in rows) - hidden_BTD.shape[1]
    ends = [
        (b * width + len(r.ids) - shared - 1, len(r.completion_ids)) for b, r in enumerate(rows)
    ]
    index_N = torch.cat(
        [torch.arange(end - n, end) for end, n in ends]
    )  # places known here: a mask would wait for the device
    targets_N = torch.tensor([token for r in rows for token in r.completion_ids])
    return hidden_BTD.flatten(0, 1).index_select(
        0, forward.sent(index_N, model.device)
    ), forward.sent(targets_N, model.device)


@torch.no_grad()
def teacher_hidden(
    model: Model,
    teacher: Sequence[Intervention],
    rows: Sequence[Row],
    teacher_prompts: Sequence[Sequence[int]],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """What the teacher knows at each completion position: its final hidden states [N, D], one
    tensor a row.

    The teacher may read another context, so its prompts are given; the head turns the states into
    distributions later.
    """
    read = [Row(tuple(p), row.completion_ids) for p, row in zip(teacher_prompts, rows, strict=True)]
    found = []
    with applied(model, teacher) as active:
        for start in range(0, len(read), batch_size):
            part = read[start : start + batch_size]
            hidden_ND, _ = completion_hidden(model, active, part)
            found += list(hidden_ND.cpu().split([len(r.completion_ids) for r in part]))
            if done:
                done(len(part))
    return found


def rows_from(
    model: Model,
    records: Sequence[Record],
    context: str | None,
    text: bool = False,
    told: Sequence[Intervention] = (),
) -> list[Row]:
    """Token rows of kept records under the student's context; stored ids where there are any, else
    the text's own.

    text: take the text's own in any case, for rows that a model with another tokenizer wrote.
    told: a system prompt among these stands before every context, a record's own included.

    Raises DataError, naming the row, where it is longer than the model's context, and where its ids
    are no tokens of this model or spell another text: those of another tokenizer would teach noise.
    """
    rows = []
    for record in (r for r in records if r.kept):
        own = context if record.context is None else record.context
        prompt = chat.render(model, record.prompt, context_of(told, own))
        stored = None if text else record.completion_ids
        answer = stored or chat.completion_ids(model, record.completion)
        if stored:
            _check_ids(model, record)
        chat.check_length(model, len(prompt) + len(answer), f"row {record.id}")
        rows.append(Row(tuple(prompt), tuple(answer)))
    return rows


def _check_ids(model: Model, record: Record) -> None:
    ids = [i for i in record.completion_ids or () if i not in model.end_ids]
    known = max(ids, default=0) < len(model.lm.get_input_embeddings().weight)
    text = model.tokenizer.decode(ids) if known else None
    if text is None or text.strip() != record.completion.strip():
        raise DataError(
            f"row {record.id}: its completion_ids spell {text!r} for {model.name}, its completion"
            f" is {record.completion!r}; delete completion_ids (train, likelihood: --text) to take"
            " the text, or use the model that wrote them"
        )
