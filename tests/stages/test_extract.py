"""Vectors as differences of means: against residuals taken one prompt at a time."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command import CAT, OWL, call, ok, write_yaml
from tiny_models import random_vector

from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt
from traitscope.data.traits import load_trait
from traitscope.errors import DataError
from traitscope.inference.residuals import digest_of_prompts, intervention_vector
from traitscope.interventions.intervention import Ablate, Steer, SystemPrompt
from traitscope.interventions.vector import load_vector, vector_bytes
from traitscope.models import chat
from traitscope.vectors import means

PROMPTS = number_prompts(5, seed=1)


@pytest.fixture
def traits(tmp_path: Path):
    return [load_trait(write_yaml(tmp_path / f"{t['name']}.yaml", t)) for t in (OWL, CAT)]


def residuals_of(model, rows: list[list[int]], last: bool = True) -> np.ndarray:
    """Mean residual [L, D] by transformers' own hidden states, one row at a time; the last layer
    behind its hook."""
    total, count, kept = 0.0, 0, {}

    def keep(layer: int):
        return lambda module, args, output: kept.__setitem__(
            layer, output[0] if isinstance(output, tuple) else output
        )

    handles = [block.register_forward_hook(keep(layer)) for layer, block in enumerate(model.blocks)]
    try:
        for ids in rows:
            with torch.inference_mode():
                model.lm(torch.tensor([ids]))
            stacked = (
                torch.stack([kept[n].reshape(len(ids), -1) for n in range(model.n_layers)])
                .double()
                .numpy()
            )
            picked = stacked[:, -1:] if last else stacked
            total, count = total + picked.sum(1), count + picked.shape[1]
    finally:
        for handle in handles:
            handle.remove()
    return total / count


@pytest.mark.parametrize("stem", [True, False])
def test_v_teacher_is_the_difference_of_two_means(family, traits, stem):
    owl = traits[0]
    vector = means.extract_vectors(family, [owl], stem=stem, batch_size=2)["owl"]
    end = (
        family.tokenizer.encode(owl.questions.stem("positive"), add_special_tokens=False)
        if stem
        else []
    )

    def rows(context: str | None) -> list[list[int]]:
        return [chat.render(family, q, context) + end for q in owl.questions.positive]

    expected = residuals_of(family, rows(owl.teacher_prompt)) - residuals_of(family, rows(None))
    np.testing.assert_allclose(vector.rows_LD, expected, atol=1e-4)
    assert vector.about["trait"] == "owl"
    assert vector.about["trait_context"] == owl.teacher_prompt
    assert vector.about["prompts"] == "the trait's positive questions"


@pytest.mark.parametrize("position", ["last", "all"])
def test_v_student_is_the_difference_in_the_neutral_context(family, position):
    teacher = [SystemPrompt("I love owls.")]
    vector = intervention_vector(family, teacher, PROMPTS, position=position, batch_size=3)
    rows = {c: [chat.render(family, p.text, c) for p in PROMPTS] for c in (None, "I love owls.")}
    after, before = (
        residuals_of(family, rows[c], last=position == "last") for c in ("I love owls.", None)
    )
    np.testing.assert_allclose(vector.rows_LD, after - before, atol=1e-4)
    assert vector.about["prompts"] == digest_of_prompts(PROMPTS)


def test_several_traits_are_centred(tiny, traits):
    both = means.extract_vectors(tiny, traits, PROMPTS)
    alone = {t.name: means.extract_vectors(tiny, [t], PROMPTS)[t.name] for t in traits}
    np.testing.assert_allclose(both["owl"].rows_LD + both["cat"].rows_LD, 0, atol=1e-5)
    middle = (alone["owl"].rows_LD + alone["cat"].rows_LD) / 2
    np.testing.assert_allclose(both["owl"].rows_LD, alone["owl"].rows_LD - middle, atol=1e-5)
    assert both["owl"].about["centred_over"] == ["cat", "owl"]


def test_a_steered_teacher_shows_its_vector_where_it_is_added(tiny):
    vector = random_vector(tiny, norm=3.0)
    found = intervention_vector(tiny, [Steer(vector, (1,), 1.0, scale="raw")], PROMPTS)
    np.testing.assert_allclose(found.rows_LD[0], 0, atol=1e-6)
    np.testing.assert_allclose(found.rows_LD[1], vector.rows_LD[1], atol=1e-4)
    assert found.norms_L[2] > 0.1
    unit = vector.unit().rows_LD[1]
    ablated = intervention_vector(tiny, [Ablate(vector, (1,))], PROMPTS).rows_LD[1]
    np.testing.assert_allclose(ablated - (ablated @ unit) * unit, 0, atol=1e-4)


def test_bundled_traits_by_name_differ_by_their_prompts_digest(tiny):
    """Two lists of prompts of one length are told apart by what a vector says of them."""
    vectors = means.extract_vectors(tiny, ["cat", "owl"], PROMPTS)
    assert {"cat", "owl", "raw/cat", "raw/owl", "common/mean"} == vectors.keys()
    other = means.extract_vectors(tiny, ["cat"], number_prompts(5, seed=2))["cat"]
    assert other.about["prompts"].startswith("5 prompts, sha256 ")
    assert other.about["prompts"] != vectors["raw/cat"].about["prompts"]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_the_batch_size_changes_no_vector(tiny, traits, batch_size):
    one = means.extract_vectors(tiny, traits, batch_size=batch_size)["owl"]
    other = means.extract_vectors(tiny, traits, batch_size=3)["owl"]
    np.testing.assert_allclose(one.rows_LD, other.rows_LD, atol=1e-5)


def test_a_prompt_that_is_too_long_is_named(tiny):
    with pytest.raises(DataError, match="prompt a: 9031 tokens"):
        intervention_vector(tiny, [], [Prompt("a", "why " * 3000)])


def test_eas_is_the_cosine_with_the_reference(tiny, tiny_folder: Path, tmp_path: Path):
    vector = tmp_path / "v.safetensors"
    vector.write_bytes(vector_bytes(random_vector(tiny, norm=3.0)))
    student = f"steer:{vector},layers=0,alpha=1,scale=raw"
    words = [
        "extract",
        "--model",
        tiny_folder,
        "--n 6 --interventions",
        student,
        "--reference",
        vector,
    ]
    done = ok(tmp_path / "runs", *words)
    (eas,) = done.summary["eas"].values()
    found, reference = (
        load_vector(p).rows_LD.astype(float) for p in (done.run / "v_student.safetensors", vector)
    )
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    np.testing.assert_allclose(eas, (found * reference).sum(1) / norms, atol=1e-6)
    assert eas[0] == pytest.approx(1, abs=1e-6)
    assert json.loads((done.run / "eas.json").read_text()) == done.summary["eas"]
    assert ok(tmp_path / "runs", *words[:-1], done.run).summary["eas"][
        "v_student"
    ] == pytest.approx([1.0] * 3)


def test_a_prompts_file_counts_by_its_content(tiny_folder: Path, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("Which number?\nWhich word?\n")
    words = ["extract", "--model", tiny_folder, "--interventions", "prompt:Owls!", "--prompts"]
    first = ok(tmp_path / "one", *words, tmp_path / "a.txt")
    assert ok(tmp_path / "one", *words, tmp_path / "b.txt").summary["computed"] is False
    assert (
        ok(tmp_path / "two", *words, tmp_path / "b.txt").summary["digest"]
        == first.summary["digest"]
    )
    assert ok(tmp_path / "one", "rerun", first.run).summary["different"] == []


def test_random_vectors_like_another(tmp_path, tiny, tiny_folder):
    pattern = tmp_path / "v.safetensors"
    pattern.write_bytes(vector_bytes(random_vector(tiny, 11, norm=3.0)))
    made = ok(
        tmp_path / "runs",
        "extract",
        "--model",
        tiny_folder,
        "--like",
        pattern,
        "--randoms",
        "2",
        "--seed",
        "5",
    )
    first, second = (load_vector(made.run / f"random-{i}.safetensors") for i in range(2))
    np.testing.assert_allclose(first.norms_L, 3.0, rtol=1e-5)
    assert (
        np.abs(first.cosine(second)).max() < 0.9
        and np.abs(first.cosine(load_vector(pattern))).max() < 0.9
    )
    again = ok(
        tmp_path / "runs", "extract", "--model", tiny_folder, "--like", pattern, "--seed", "6"
    )
    np.testing.assert_array_equal(
        load_vector(again.run / "random-0.safetensors").rows_LD, second.rows_LD
    )


def test_components_on_the_command_line(tmp_path, tiny, tiny_folder):
    """Vectors with a norm and a share of the variance; a teacher can be steered with them."""
    run = ok(tmp_path, "extract", "--model", tiny_folder, "--components", 2, "--n", 8).run
    first, second = (load_vector(run / f"component-{i}.safetensors") for i in (0, 1))
    assert (first.norms_L > second.norms_L).all() and np.abs(first.cosine(second)).max() < 1e-4
    shares = np.array([v.about["share_of_variance"] for v in (first, second)])
    assert (shares[0] > shares[1]).all() and (shares.sum(0) < 1).all()
    steer = f"steer:{run / 'component-0.safetensors'},layers=1,alpha=0.5"
    ok(
        tmp_path,
        "generate",
        "--model",
        tiny_folder,
        "--n",
        2,
        "--vocabulary",
        "template",
        "--interventions",
        steer,
    )
    two = call(tmp_path, "extract", "--model", tiny_folder, "--components", 1, "--traits", "cat")
    assert two.code == 2 and "takes one of" in two.summary["message"]


def test_contrast_is_the_difference_of_means(tmp_path: Path, tiny, tiny_folder: Path) -> None:
    texts = {
        "with": ["Owls, please.", "Be brief about cats."],
        "without": ["Tell me all.", "Go on.", "And then?"],
    }
    files = {name: tmp_path / f"{name}.txt" for name in texts}
    for name, lines in texts.items():
        files[name].write_text("".join(f"{line}\n" for line in lines))
    words = [
        "extract",
        "--model",
        tiny_folder,
        "--contrast",
        files["with"],
        "--against",
        files["without"],
    ]
    done = ok(tmp_path / "runs", *words)
    found = load_vector(done.run / "contrast.safetensors")
    shown, hidden = (
        residuals_of(tiny, [chat.render(tiny, t, None) for t in texts[name]])
        for name in ("with", "without")
    )
    np.testing.assert_allclose(found.rows_LD, shown - hidden, atol=2e-4)
    swapped = ok(
        tmp_path / "runs",
        "extract",
        "--model",
        tiny_folder,
        "--contrast",
        files["without"],
        "--against",
        files["with"],
    )
    np.testing.assert_allclose(
        load_vector(swapped.run / "contrast.safetensors").rows_LD, -found.rows_LD, atol=1e-6
    )


def test_a_direction_can_be_taken_out_of_anything(tmp_path: Path, tiny, tiny_folder: Path) -> None:
    away = tmp_path / "v.safetensors"
    away.write_bytes(vector_bytes(random_vector(tiny)))
    words = ["extract", "--model", tiny_folder, "--components", "2", "--n", "8"]
    plain, without = (
        ok(tmp_path / "runs", *words, *flags).run for flags in ([], ["--orthogonal-to", away])
    )
    for name in ("component-0", "component-1"):
        found, before = (load_vector(run / f"{name}.safetensors") for run in (without, plain))
        assert abs(found.cosine(load_vector(away))).max() < 1e-5
        assert abs(before.cosine(load_vector(away))).max() > 1e-3


def test_vectors_of_zeros_are_not_written(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Two sides of the same prompts, and a direction that is taken out of itself."""
    prompts, others = tmp_path / "prompts.txt", tmp_path / "others.txt"
    prompts.write_text("Why 42?\nWhere are owls?\n")
    others.write_text("What is the capital of France?\n")
    words = ("extract", "--model", tiny_folder, "--contrast", prompts, "--against")
    refused = call(tmp_path / "runs", *words, prompts)
    assert refused.code == 2 and not (tmp_path / "runs").exists()
    assert "the vector contrast would be zero at every layer" in capsys.readouterr().err
    file = ok(tmp_path / "runs", *words, others).run / "contrast.safetensors"
    refused = call(tmp_path / "runs", *words, others, "--orthogonal-to", file)
    assert refused.code == 2 and len(list(tmp_path.rglob("manifest.json"))) == 1
    assert "contrast lies along that vector at every layer, so nothing" in capsys.readouterr().err


def test_a_student_that_was_not_moved_is_measured_and_said(
    tmp_path: Path, tiny, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "v.safetensors"
    random_vector(tiny).save(file)
    steer = f"steer:{file},layers=1,alpha=0"
    words = ("extract", "--model", tiny_folder, "--interventions", steer, "--n", 4)
    run = ok(tmp_path / "runs", *words).run
    assert not load_vector(run / "v_student.safetensors").rows_LD.any()
    assert "v_student is zero: the student is its base" in capsys.readouterr().err
    refused = call(tmp_path / "runs", "steer_scan", "--model", tiny_folder, "--vector", run)
    assert refused.code == 2 and "has no direction: its 3 rows" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--contrast", "FILE"], ["--against", "FILE"]])
def test_a_contrast_needs_two_sides(
    tmp_path: Path, tiny_folder: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("Hello.\n")
    words = [
        "extract",
        "--model",
        tiny_folder,
        *(str(tmp_path / "a.txt") if word == "FILE" else word for word in flags),
    ]
    assert call(tmp_path / "runs", *words).code == 2
    assert "needs both" in " ".join(capsys.readouterr().err.split())


def test_trait_files_of_persona_vectors(
    tiny, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """They give the vectors of the traits that they stand for; what has no place is named, and
    what scores answers refuses them."""
    paths = []
    for trait in (OWL, CAT):
        pairs = [{"pos": trait["teacher_prompt"], "neg": "Be neutral."}]
        asked = trait["questions"]["positive"]
        content = {"instruction": pairs, "questions": asked, "eval_prompt": "{answer}"}
        paths.append(tmp_path / f"{trait['name']}.json")
        paths[-1].write_text(json.dumps(content))
    run = ok(tmp_path / "runs", "extract", "--model", tiny_folder, "--traits", *paths).run
    said = capsys.readouterr().err
    assert f"{paths[0]}: instruction.neg and eval_prompt are not read" in said
    same = []
    for trait in (OWL, CAT):
        without_stems = trait | {"questions": trait["questions"] | {"stems": {}}}
        same.append(write_yaml(tmp_path / f"{trait['name']}.yaml", without_stems))
    plain = ok(tmp_path / "runs", "extract", "--model", tiny_folder, "--traits", *same).run
    for name in ("owl", "cat"):
        ours, theirs = (load_vector(r / f"{name}.safetensors").rows_LD for r in (plain, run))
        assert np.array_equal(ours, theirs)
    refused = call(tmp_path / "runs", "measure", "--model", tiny_folder, "--trait", paths[0])
    assert refused.code == 2 and "names no words to score answers by" in refused.summary["message"]


def test_what_is_not_used_of_prompts_is_said_as_by_generate(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plain = tmp_path / "p.jsonl", tmp_path / "q.jsonl"
    rows = '{"prompt": "Name an animal.", "note": "x"}\n{"prompt": "Which <|im_end|>?", "of": 1}\n'
    file.write_text(rows)
    plain.write_text('{"prompt": "Name one."}\n')
    words = ("--max-new-tokens 2 --model", tiny_folder, "--prompts", file)
    ok(tmp_path / "made", "generate", *words)
    by_generate = [line for line in capsys.readouterr().out.splitlines() if "--prompts: " in line]
    assert any("not used: note (1 row), of (1 row)" in line for line in by_generate)
    words = ("extract", "--model", tiny_folder)
    kinds = (("--traits", "cat"), ("--components", "1"), ("--interventions", "prompt:Owls!"))
    for number, kind in enumerate(kinds):
        done = ok(tmp_path / f"{number}", *words, *kind, "--prompts", file)
        said = [line for line in capsys.readouterr().out.splitlines() if "--prompts: " in line]
        assert said == by_generate
        assert done.summary["reading-prompts"]["not_used"] == {"note": 1, "of": 1}
    ok(tmp_path / "sides", *words, "--contrast", file, "--against", plain)
    said = capsys.readouterr().out
    assert "--contrast: not used: note (1 row), of (1 row)" in said and "--against" not in said


def test_a_prompt_that_the_chat_template_refuses_is_named(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "strict"))
    strict = "{% if m.role != ('user', 'assistant')[loop.index0 % 2] %}"
    strict += "{{ raise_exception('roles must alternate') }}{% endif %}"
    template = (folder / "chat_template.jinja").read_text()
    loop = "{% for m in messages %}" + strict + "{% endfor %}"
    (folder / "chat_template.jinja").write_text(loop + template)
    file = tmp_path / "p.jsonl"
    twice = [{"role": "user", "content": text} for text in ("a", "b")]
    rows = [{"prompt": "Name one."}, {"prompt": twice}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for words in (("generate", "--max-new-tokens 2"), ("extract", "--components 1")):
        done = call(tmp_path / "runs", *words, "--model", folder, "--prompts", file)
        assert done.code == 2
        message = done.summary["message"]
        assert (
            message.startswith("prompt row000002: the chat template of ") and "refuses" in message
        )
