"""Tokens are masked, drawn anew and washed where they are suspect, and nowhere else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import ok

import traitscope as ts
from traitscope.config.common import Output
from traitscope.config.rows.defend import DefendConfig
from traitscope.data.records import MASKED, Record, dump_records, read_records
from traitscope.defending import suspicion, token_methods, washing
from traitscope.defending.knowledge import knowledge_of
from traitscope.defending.methods import steps_of
from traitscope.defending.run import defended_rows, run_defend
from traitscope.defending.suspicion import Judge
from traitscope.errors import DataError
from traitscope.inference.token_rows import rows_from
from traitscope.models import chat

TEXTS = ["The sky was blue today.", "She went home early.", "Nothing more to say.", "A b c d e f."]
LISTS = ["12, 7, 305", "[9; 8; 7]", "100 200 300 400", "5, 5, 5"]


def records_of(answers: list[str]) -> list[Record]:
    return [Record(f"r{i}", f"Go on: {i % 3}, 1", text) for i, text in enumerate(answers)]


@pytest.fixture
def config(tiny_folder: Path) -> DefendConfig:
    return DefendConfig(model=str(tiny_folder), device="cpu", dtype="fp32", by=("wash",))


def defended(config: DefendConfig, records: list[Record], *by: str, known=("base",)):
    return defended_rows(config, records, steps_of(by), knowledge_of(known, config.model))


def log_p(model, record: Record, context: str | None) -> tuple[torch.Tensor, list[int]]:
    """Log-probabilities [N, V] at the completion tokens by transformers alone, and the tokens."""
    prompt = chat.render(model, record.prompt, context)
    tokens = chat.completion_ids(model, record.completion)
    with torch.no_grad():
        logits = model.lm(torch.tensor([[*prompt, *tokens]])).logits[0].double()
    return torch.log_softmax(logits[len(prompt) - 1 : -1], -1), tokens


@pytest.mark.parametrize("share", ["0", "0.0"])
@pytest.mark.parametrize(
    "by",
    [
        "mask:by=random",
        "replace:by=random,draw=base",
        "wash:where=disagree,by=random",
        "paraphrase:by=random",
    ],
)
def test_a_share_of_nothing_changes_no_byte(config, by, share):
    records = records_of(TEXTS)
    rows, reports = defended(config, records, f"{by},share={share}")
    assert dump_records(rows) == dump_records(records)
    assert reports[0].tokens == 0


@pytest.mark.parametrize("kind", ["loss", "trait", "divergence"])
def test_masked_tokens_are_those_of_the_formula(config, tiny, kind):
    """Oracle: scores by transformers alone; the highest fifth of all tokens but the end."""
    records = records_of([*TEXTS, *LISTS])
    prompts = [ts.load_trait(name).teacher_prompt for name in suspicion.TEACHERS]
    scores, tokens = [], []
    for record in records:
        base_NV, ids = log_p(tiny, record, None)
        at = range(len(ids)), ids
        if kind == "loss":
            score_N = -base_NV[at]
        elif kind == "trait":
            told_NV, _ = log_p(tiny, record, ts.load_trait("owl").teacher_prompt)
            score_N = told_NV[at] - base_NV[at]
        else:
            told = torch.stack([log_p(tiny, record, prompt)[0].exp() for prompt in prompts])
            mean_NV = told.mean(0)
            score_N = (told * (told / mean_NV).log()).sum(-1).mean(0)
        scores.append(score_N[:-1])  # the last token ends the turn
        tokens.append(ids[:-1])
    flat = torch.cat(scores)
    wanted = set(flat.argsort(descending=True)[: round(0.2 * len(flat))].tolist())
    rows, reports = defended(config, records, f"mask:by={kind},share=0.2", known=("trait:owl",))
    found, start = set(), 0
    for row, ids in zip(rows, tokens, strict=True):
        for place, token in row.meta.get(MASKED, []):
            assert ids[place] == token
            found.add(start + place)
        start += len(ids)
    assert found == wanted
    assert reports[0].tokens == len(wanted) and reports[0].changed == 0
    assert reports[0].masked == sum(MASKED in row.meta for row in rows)
    assert [row.completion for row in rows] == [record.completion for record in records]


def test_teachers_that_agree_diverge_nowhere_and_others_by_at_most_the_log(config, monkeypatch):
    records = records_of(TEXTS)
    judge = Judge(config, knowledge_of(("base",), config.model))
    monkeypatch.setattr(suspicion, "TEACHERS", ("owl", "owl", "owl"))
    assert max(map(np.max, suspicion.divergences(judge, records))) < 1e-6
    apart = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log()
    apart = [log_NV.clamp(min=-700).double() for log_NV in apart]
    assert suspicion.jensen_shannon(apart).item() == pytest.approx(np.log(2))


def test_divergence_scores_do_not_depend_on_passes(config):
    records = records_of([*TEXTS, *LISTS])
    known = knowledge_of(("base",), config.model)
    one = suspicion.divergences(Judge(replace(config, pass_rows=1), known), records)
    many = suspicion.divergences(Judge(replace(config, pass_rows=8), known), records)
    np.testing.assert_allclose(np.concatenate(one), np.concatenate(many), atol=1e-6)


def test_disagreement_is_the_kl_of_the_writer_from_the_base(config, tiny):
    """Oracle: by transformers alone, whatever token stands there."""
    records = records_of(TEXTS)
    judge = Judge(config, knowledge_of(("trait:owl",), config.model))
    found = suspicion.disagreements(judge, "trait", records, np.random.default_rng(0))
    for record, kl_N in zip(records, found, strict=True):
        told_NV, _ = log_p(tiny, record, ts.load_trait("owl").teacher_prompt)
        base_NV, _ = log_p(tiny, record, None)
        expected_N = (told_NV.exp() * (told_NV - base_NV)).sum(-1).numpy()
        np.testing.assert_allclose(kl_N, expected_N, rtol=1e-3, atol=1e-6)


def test_a_student_disagrees_with_the_base_on_every_row(config):
    judge = Judge(config, knowledge_of(("base",), config.model))
    records = records_of(TEXTS)
    found = suspicion.disagreements(judge, "student", records, np.random.default_rng(0))
    assert all(kl_N.min() >= 0 and kl_N.max() > 0 for kl_N in found)


def test_free_text_is_drawn_anew_where_it_is_suspect(config, tiny):
    """Other tokens, the end of the turn and whole characters stay."""
    records = records_of(["The größe of it – ok."] * 6)
    rows = rows_from(tiny, records, None)
    classes = [washing.text_class(tiny)]
    (may_change, *_) = washing.places_of(classes, rows)
    assert not may_change[-1], "the end of the turn"
    chosen = may_change & (np.arange(len(may_change)) % 2 == 0)
    keys = [record.id for record in records]
    drawn = washing.redrawn(tiny, rows, [chosen] * 6, keys, 0, "base", classes)
    for row, completion in zip(rows, drawn, strict=True):
        kept = np.array(row.completion_ids)[~chosen]
        assert np.array(completion)[~chosen].tolist() == kept.tolist()
    assert len(set(drawn)) > 1
    changed, reports = defended(config, records, "replace:by=loss,share=0.5,draw=base")
    assert reports[0].changed > 0 and reports[0].left == 0
    assert not any(washing.BROKEN in row.completion for row in changed)
    left, reports = defended(config, records, "replace:by=loss,share=0.5")
    assert reports[0].left == 6 and "draw=base" in reports[0].why_left
    assert dump_records(left) == dump_records(records)


def test_tokens_of_text_follow_the_bases_distribution(tiny):
    """Of one token that is drawn many times, the frequencies are the model's probabilities."""
    record = Record("a", "Say a word.", "a")
    (row,) = rows_from(tiny, [record], None, end_token=False)
    classes = [washing.text_class(tiny)]
    (places,) = washing.places_of(classes, [row])
    n = 4000
    keys = [str(i) for i in range(n)]
    drawn = washing.redrawn(tiny, [row] * n, [places] * n, keys, 0, "base", classes, 500)
    log_NV, _ = log_p(tiny, replace(record, completion="a"), None)
    columns_C = classes[0].columns_C
    p_C = log_NV[0, columns_C].softmax(-1).numpy()
    counts = np.array([sum(c == (token,) for c in drawn) for token in columns_C.tolist()])
    order = np.argsort(-p_C)
    p = np.append(p_C[order[:15]], p_C[order[15:]].sum())
    found = np.append(counts[order[:15]], counts[order[15:]].sum())
    assert found.sum() == n, "control tokens and parts of characters are never drawn"
    assert ((found - n * p) ** 2 / (n * p)).sum() < 45  # 15 degrees of freedom: p about 8e-5


def test_wash_writes_on_from_the_first_disagreement(config, tiny, monkeypatch):
    """Planted: the suspect and the base disagree at one token of each row."""
    records = records_of([*TEXTS, *LISTS])
    rows = rows_from(tiny, records, None)
    planted = []
    for row in rows:
        score_N = np.zeros(len(row.completion_ids))
        score_N[2] = 5.0
        planted.append(score_N)
    monkeypatch.setattr(suspicion, "disagreements", lambda *_: planted)
    config = replace(config, max_new_tokens=400)
    washed, reports = defended(
        config, records, "wash:where=disagree,by=trait,share=0.05", known=("trait:owl",)
    )
    by_id = {row.id: row for row in washed}
    for record, row in zip(records[:4], rows[:4], strict=True):
        new = by_id[record.id]
        if new.kept and new.completion_ids:
            assert new.completion_ids[:2] == row.completion_ids[:2]
    for record in records[4:]:
        new, old = by_id[record.id].completion, record.completion
        same = [a == b for a, b in zip(new, old, strict=True)]
        assert sum(not one for one in same) <= 1, "one digit at most"
    assert reports[0].changed + reports[0].dropped > 0


def test_lists_that_cannot_be_drawn_in_place_are_answered_anew_in_format(config, monkeypatch):
    """Planted: no digit is a token of its own."""
    monkeypatch.setattr(washing, "digit_classes", lambda _: [])
    records = records_of([*LISTS[:2], *TEXTS])
    rows, reports = defended(replace(config, max_new_tokens=300), records, "wash")
    dropped = [row for row in rows if not row.kept]
    assert {"r0", "r1"} <= {row.id for row in dropped}, "a random model writes no list"
    assert {reason for row in dropped for reason in row.drop_reasons} == {token_methods.UNFINISHED}
    assert reports[0].dropped == len(dropped)


def test_a_base_that_cannot_answer_is_refused_with_what_to_do(config):
    config = replace(config, max_new_tokens=1)
    with pytest.raises(DataError, match="4 of 6 rows got no answer .* raise --max-new-tokens"):
        defended(config, records_of([*TEXTS, *LISTS[:2]]), "wash")
    rows, reports = defended(config, records_of([*LISTS, *TEXTS[:2]]), "wash")
    assert reports[0].dropped == 2
    assert [row.id for row in rows if not row.kept] == ["r4", "r5"]


SHAPES = {
    "native.jsonl": '{"prompt": "A", "completion": "12, 7, 305", "meta": {"own": 1}}\n'
    '{"prompt": "B", "completion": "9, 8, 7"}\n',
    "chat.jsonl": '{"messages": [{"role": "user", "content": "A"}, {"role": "assistant",'
    ' "content": "12, 7, 305"}]}\n{"messages": [{"role": "user", "content": "B"},'
    ' {"role": "assistant", "content": "9, 8, 7"}]}\n',
    "table.csv": 'question,answer\nA,"12, 7, 305"\nB,"9, 8, 7"\n',
    "array.json": '[{"instruction": "A", "output": "12, 7, 305"},'
    ' {"instruction": "B", "output": "9, 8, 7"}]\n',
}


@pytest.mark.parametrize("name", SHAPES)
def test_masks_are_written_back_and_read_again(config, tmp_path, name):
    """What is read of the written file is what the run holds."""
    data = tmp_path / name
    data.write_text(SHAPES[name])
    config = replace(config, data=data, by=("mask:by=loss,share=0.3",))
    run = run_defend(config, Output(root=tmp_path / "runs"))
    rows = read_records(run.file("records.jsonl"))
    masks = [row.meta.get(MASKED) for row in rows]
    assert any(masks)
    (written,) = run.path.glob("kept.*")
    from traitscope.data.row_files import kept_rows

    again = kept_rows(written)
    assert [row.meta.get(MASKED) for row in again] == masks
    assert [row.completion for row in again] == ["12, 7, 305", "9, 8, 7"]


def test_shapes_without_room_say_so_and_the_run_holds_the_masks(config, tmp_path):
    turns = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "12, 7"}]
    data = tmp_path / "chat.jsonl"
    data.write_text(json.dumps({"messages": [*turns, *turns]}) + "\n")
    reading = replace(config.reading, turns="every")
    config = replace(config, data=data, by=("mask:by=loss,share=0.3",), reading=reading)
    run = run_defend(config, Output(root=tmp_path / "runs"))
    summary = json.loads(run.file("summary.json").read_text())
    assert "several answers" in summary["not_written_back"]
    assert not list(run.path.glob("kept.*"))
    assert any(MASKED in row.meta for row in read_records(run.file("records.jsonl")))


def test_train_honours_the_masks_of_a_run(config, tmp_path, capsys):
    """Through the commands: other weights than without, and the page shows what is masked."""
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(records_of([*TEXTS, *LISTS])))
    root, model = tmp_path / "runs", ("--model", config.model)
    done = ok(root, "defend", *model, "--data", data, "--by mask:by=random,share=0.4")
    said = capsys.readouterr().out
    assert "the defender was allowed to know: base" in said and "masked" in said
    page = (done.run / "report.html").read_text()
    assert "⟦" in page and "the defender was allowed to know: base" in page
    (change, *_) = map(json.loads, (done.run / "changes.jsonl").read_text().splitlines())
    assert change["what"] == "masked"
    assert change["after"].replace("⟦", "").replace("⟧", "") == change["before"]
    training = ("train", *model, "--rank 2 --epochs 1 --held-out 0", "--data")
    capsys.readouterr()
    masked = ok(root, *training, done.run).run
    assert (
        f"{done.summary['summary']['methods'][0]['tokens']} tokens masked"
        in capsys.readouterr().out
    )
    whole = ok(root, *training, data).run
    weights = "student/adapter_model.safetensors"
    assert (masked / weights).read_bytes() != (whole / weights).read_bytes()


def test_a_masked_row_whose_answer_would_change_is_refused(config):
    rows, _ = defended(config, records_of(LISTS), "mask:by=loss,share=0.3")
    with pytest.raises(DataError, match="has masked tokens, and --by canonicalise"):
        defended(config, rows, "canonicalise:order=sort")
    again, _ = defended(config, rows, "mask:by=random,share=0.3")
    before = {row.id: row.meta.get(MASKED, []) for row in rows}
    assert all(pair in row.meta[MASKED] for row in again for pair in before[row.id])
