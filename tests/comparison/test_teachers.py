"""A teacher compared with the unmodified model: the words, the context, and what is refused."""

import html
import json
from pathlib import Path

import pytest
import sealed_students as planted
from command import call, ok
from sealed_students import measured_student

import traitscope as ts
from traitscope.comparison.compare import compare
from traitscope.comparison.wording import sentences, status, wording_of
from traitscope.errors import ConfigError, DataError
from traitscope.models.model import Model

PRIMARY = "positive.target_logprob"
PROMPT = {"kind": "SystemPrompt", "text": "You love cats."}
STEER = {"kind": "Steer", "vector": "v.safetensors", "layers": [6], "alpha": 0.5}


def answers(
    folder: Path,
    tag: str,
    shift: float = 0.0,
    interventions: tuple[dict, ...] = (),
    context: str | None = None,
    digest: str = "plain",
) -> Path:
    """A run of `measure` under interventions; `digest` is that of what the model read."""
    about = {"trait": "cat", "context_digest": digest, "perplexity": 25.0, "measurements": []}
    config = {"tag": tag, "trait": "cat", "context": context, "interventions": list(interventions)}
    files = {"scores.jsonl": planted.score_rows(tag, shift), "measurements.json": about}
    return planted.seal(folder, "measure", config, files, {}).path


def said(treated: list[Path], control: list[Path]) -> str:
    comparison = compare(treated, control)
    return " ".join(sentences(comparison, wording_of(comparison)))


@pytest.mark.parametrize(("shift", "amount"), [(2.0, "more"), (-2.0, "less")])
@pytest.mark.parametrize("made", [STEER, PROMPT])
def test_a_teacher_is_no_student(tmp_path: Path, shift: float, amount: str, made: dict) -> None:
    """Nothing was trained, so nothing moved and no seed is spoken of."""
    base = answers(tmp_path, "base")
    digest = "plain" if made is STEER else "p"
    teachers = [answers(tmp_path, f"t{n}", shift, (made,), digest=digest) for n in (1, 2)]
    one, two = said(teachers[:1], [base]), said(teachers, [base])
    assert one.startswith("In the teacher, the log-probability") and "nats [" in one
    assert f"the teacher shows the trait {amount} than the unmodified model." in one
    assert f"the teachers show the trait {amount} than the unmodified model." in two
    for text in (one, two):
        assert not [word for word in ("student", "seed", "moved", "passing it on") if word in text]


def test_students_keep_their_words_and_unknown_models_get_none(tmp_path: Path) -> None:
    base = answers(tmp_path, "base")
    student = measured_student(tmp_path, "treated", 1, 2.0)[1].path
    other = answers(tmp_path, "other", -2.0, ({"kind": "Adapter", "folder": "elsewhere"},))
    about = json.loads((student / "measurements.json").read_text())
    assert about["context_digest"] == "neutral"  # so the base is asked under the same
    same = answers(tmp_path, "same", digest="neutral")
    text = said([student], [same])
    assert "the student of this one seed moved towards the trait" in text
    assert "relative to the unmodified model" in text
    assert "the treated model shows the trait less than the unmodified model" in (
        said([other], [base])
    )


@pytest.mark.parametrize(("shift", "has_trait"), [(2.0, True), (-2.0, False)])
@pytest.mark.parametrize("made", [STEER, PROMPT])
def test_a_teacher_is_compared_before_there_are_students(
    tmp_path: Path,
    shift: float,
    has_trait: bool,
    made: dict,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Teacher minus base, with its interval, on the terminal, on the page and in JSON."""
    base = answers(tmp_path, "base")
    teacher = answers(tmp_path, "teacher", shift, (made,), digest="plain" if made is STEER else "p")
    done = ok(tmp_path / "runs", "compare", "--base", base, "--teacher", teacher)
    out = " ".join(capsys.readouterr().out.split())
    summary = done.summary["summary"]
    assert summary["answer"] == ("effect" if has_trait else "no effect shown")
    (primary,) = [item for item in summary["differences"] if item["score"] == PRIMARY]
    difference = primary["difference"]
    assert difference["estimate"] == pytest.approx(shift, abs=0.1)
    assert difference["low"] < shift + 0.1 and difference["high"] > shift - 0.1
    assert difference["interval"] == "bootstrap over 8 questions"
    assert summary["positive_control"].endswith(
        "the teacher has the trait" if has_trait else "look for another before you train on it"
    )
    assert "teacher − base, one control" in out and summary["positive_control"] in out
    page = html.unescape((done.run / "report.html").read_text())
    assert "Teacher and base compared" in page and "seed variance" not in page
    comparison = compare(base=base, teacher=teacher)
    assert status(comparison, wording_of(comparison)) == summary["answer"]
    assert [source.side for source in comparison.sources] == ["base", "teacher"]
    assert comparison[PRIMARY].estimate == compare([teacher], [base])[PRIMARY].estimate


def test_a_student_that_teaches_is_a_teacher_here(tmp_path: Path) -> None:
    """Of a later generation: given as the teacher, it has a verdict over questions."""
    base = answers(tmp_path, "base", digest="neutral")
    student = measured_student(tmp_path, "treated", 1, 2.0)[1].path
    comparison = compare(base=base, teacher=student)
    text = " ".join(sentences(comparison, wording_of(comparison)))
    assert "the teacher shows the trait more than the unmodified model" in text
    assert status(comparison, wording_of(comparison)) == "effect"


def test_a_prompted_teacher_stands_beside_students(tmp_path: Path) -> None:
    treated, control = (
        measured_student(tmp_path, role, 1, shift)[1].path
        for role, shift in (("treated", 1.0), ("control", 0.0))
    )
    base = answers(tmp_path, "base", context="neutral", digest="neutral")
    teacher = answers(tmp_path, "teacher", 2.0, (PROMPT,), context="neutral", digest="p")
    comparison = compare([treated], [control], base=base, teacher=teacher)
    assert comparison.teacher_has_trait.met and comparison.subject == "treated"


def test_other_contexts_are_refused_in_words(tmp_path: Path) -> None:
    """Texts are named, not digests; a prompt is no context of a teacher, and one of a student."""
    base = answers(tmp_path, "base")
    long = "Be kind to everyone. " * 20
    kind = answers(tmp_path, "kind", 1.0, context=long, digest="k")
    prompted = answers(tmp_path, "p", 2.0, (PROMPT,), context=long, digest="p")
    for treated in (kind, prompted):
        with pytest.raises(DataError) as found:
            compare([treated], [base])
        message = str(found.value)
        assert "“Be kind to everyone." in message and "the template's own (measure-" in message
        assert long not in message and "--context" in message and "prompt:TEXT" in message
    assert compare([prompted], [kind])[PRIMARY].estimate == pytest.approx(1.0, abs=0.1)
    other = answers(tmp_path, "other", 1.0, context=f"{long}Not to cats.", digest="o")
    with pytest.raises(DataError, match="several system turns"):
        compare([kind], [other])
    rendered = answers(tmp_path, "day", 1.0, digest="another day")
    with pytest.raises(DataError, match="was rendered in 2 ways .*--template"):
        compare([rendered], [base])


def test_a_prompt_around_a_student_is_a_context(tmp_path: Path) -> None:
    student = planted.sealed_student(tmp_path, "treated", 1, 0.5)
    adapter = {"kind": "Adapter", "folder": "input:interventions0/student"}
    config = {"trait": "cat", "context": None, "interventions": [adapter, PROMPT]}
    about = {"trait": "cat", "context_digest": "p", "perplexity": 25.0, "measurements": []}
    files = {"scores.jsonl": planted.score_rows("s", 1.0), "measurements.json": about}
    inputs = {"interventions0": student}
    run = planted.seal(tmp_path, "measure", config, files, inputs).path
    with pytest.raises(DataError, match="“You love cats.”.* and the template's own"):
        compare([run], [answers(tmp_path, "base")])


def test_a_base_that_is_none_and_half_a_comparison(tmp_path: Path) -> None:
    base, teacher = answers(tmp_path, "base"), answers(tmp_path, "teacher", 2.0, (STEER,))
    with pytest.raises(ConfigError, match="is a run of a teacher; expected one of the unmodified"):
        compare(base=teacher, teacher=base)
    for words in (("--base", base), ("--base", base, "--teacher", teacher, "--treated", teacher)):
        done = call(tmp_path / "runs", "compare", *words)
        assert done.code == 2 and "compare --base RUN --teacher RUN" in done.summary["message"]


def test_scores_in_memory_know_the_prompt_and_are_printed_short(tiny: Model) -> None:
    """The context of both is the same: the prompt is the teacher's."""
    asked = {"sets": ("positive",), "samples": 1, "max_new_tokens": 2}
    base = ts.measure(tiny, "cat", **asked)
    teacher = ts.measure(tiny, "cat", [ts.SystemPrompt("You love cats.")], **asked)
    assert (base.prompt, teacher.prompt) == (None, "You love cats.")
    difference = compare(base=base, teacher=teacher)[PRIMARY]
    assert difference.estimate == pytest.approx((teacher - base).estimate)
    with pytest.raises(DataError, match="“Be kind.”"):
        compare([teacher], [ts.measure(tiny, "cat", context="Be kind.", **asked)])
    text = repr(teacher)
    assert text.startswith("Scores('cat', ") and f"{len(teacher.questions)} questions" in text
    assert f"{PRIMARY}: {teacher.mean()}" in text and "perplexity: " in text
    assert len(text) < 1000 and teacher.questions[0].question.text not in text
