"""Token rows of records, and what a teacher predicts at their completions."""

from pathlib import Path

import pytest
import torch
from tiny_models import load_tiny, random_vector, save_tiny
from train_runs import make_rows

from traitscope.data.records import Record, kept_records
from traitscope.data.shapes.turns import Turn, prompt_of
from traitscope.errors import DataError, ModelError
from traitscope.inference.token_rows import Row, row_check, rows_from, teacher_hidden
from traitscope.interventions.intervention import Steer
from traitscope.models import chat
from traitscope.models.model import Model


def test_teacher_states_do_not_depend_on_the_batch(tiny: Model) -> None:
    """And the teacher may read another prompt of another length."""
    rows = make_rows(tiny, 7)
    prompts = [(30, 31, 32, *r.prompt_ids) for r in rows]
    teacher = [Steer(random_vector(tiny), (1,), 3.0, scale="unit")]
    seen: list[int] = []
    found = teacher_hidden(tiny, teacher, rows, prompts, batch_size=4, done=seen.append)
    assert seen == [4, 3] and [len(f) for f in found] == [len(r.completion_ids) for r in rows]
    for row, prompt, states in zip(rows, prompts, found, strict=True):
        (alone,) = teacher_hidden(tiny, teacher, [row], [prompt])
        torch.testing.assert_close(states, alone, atol=2e-5, rtol=1e-4)
    own = teacher_hidden(tiny, teacher, rows, [r.prompt_ids for r in rows])
    assert (torch.cat(own) - torch.cat(found)).abs().max() > 0.1


def test_every_record_is_a_row(tiny: Model) -> None:
    """Also a dropped one, so that rows and records stay side by side; callers leave these out."""
    dropped = Record("b", "Q", "owl", meta={"filter": {"kept": False, "reasons": ["format"]}})
    records = [Record("a", "Q", "cat"), dropped]
    assert len(rows_from(tiny, records, None)) == 2
    assert rows_from(tiny, kept_records(records), None) == rows_from(tiny, records[:1], None)


def test_rows_from_records(tiny: Model) -> None:
    ids = (
        *tiny.tokenizer.convert_tokens_to_ids(["o", "w", "l"]),
        2,
    )  # not how the tokenizer would write it
    records = [
        Record("a", "Q", "owl", ids, None),
        Record("b", "Q", "owl", None, ""),
    ]
    first, second = rows_from(tiny, records, "neutral")
    assert first == Row(tuple(chat.render(tiny, "Q", "neutral")), ids)
    assert first.completion_ids != second.completion_ids
    assert second == Row(tuple(chat.render(tiny, "Q", "")), tuple(chat.completion_ids(tiny, "owl")))
    long = Record("c", "Q", "owl " * tiny.max_length, None, None)
    with pytest.raises(DataError, match="row c: .* takes at most 2048"):
        rows_from(tiny, [long], None)
    longer = Record("d", "Q", "owl " * (tiny.max_length + 1), None, None)
    with pytest.raises(DataError, match=r"row c \(and 1 more row\): .* takes at most 2048"):
        rows_from(tiny, [records[0], long, records[1], longer], None)


def test_a_token_without_an_embedding_is_a_bad_row(tmp_path: Path) -> None:
    """Tokenizers may know more tokens than the model has embeddings for."""
    model = load_tiny(save_tiny("llama", tmp_path))
    check_before = row_check(model, None)
    usual = Record("a", "Name one.", "101")
    check_before(usual)
    model.tokenizer.add_tokens([f"<extra{n}>" for n in range(model.n_embedded)])
    check = row_check(model, None)
    check(usual)
    with pytest.raises(DataError, match="but .* has embeddings for"):
        check(Record("b", "Name one.", f"<extra{model.n_embedded - 1}>"))


def test_what_helps_a_row_whose_own_system_turn_cannot_be_written(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context that is given does not replace it, so to give another one is no help."""
    record, plain = Record("a", "Ask.", "101", context="Be brief."), Record("b", "Ask.", "101")
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    assert len(rows_from(tiny, [plain], chat.BARE)) == 1
    with pytest.raises(DataError, match="row a: .* no chat template, .*drop the row's own") as bare:
        rows_from(tiny, [record], chat.BARE)
    assert "--context @none" not in str(bare.value)
    with pytest.raises(DataError, match="drop the row's own system turn"):
        row_check(tiny, chat.BARE)(record)
    both = "do without: --context @none, and drop the row's own system turn from the data"
    with pytest.raises(ModelError, match=both):
        rows_from(tiny, [record], None)


def test_a_turn_that_the_template_leaves_out_is_a_bad_row(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model would not read it. Reasoning of earlier answers is left out on purpose."""
    asked = [Turn("user", "Ask."), Turn("tool", "It is 101."), Turn("user", "Go on.")]
    record = Record("a", prompt_of(asked), "101")
    row_check(tiny, None)(record)
    only_users = (
        "{% for m in messages %}{% if m['role'] != 'tool' %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    monkeypatch.setattr(tiny.tokenizer, "chat_template", only_users)
    with pytest.raises(DataError, match="turn 2 of its prompt, of the role tool, is left out by"):
        row_check(tiny, None)(record)
    with pytest.raises(DataError, match="row a: turn 2 of its prompt"):
        rows_from(tiny, [record], None)
