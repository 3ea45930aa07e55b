"""An audit end to end on a tiny model: prompted and named traits are called, clean rows are not;
what is bad is said."""

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
from command import CAT, OWL, Ran, call, ok, read_rows, write_yaml
from tiny_models import random_vector, save_tiny, tiny_tokenizer

from traitscope.auditing import audit, settings
from traitscope.auditing import run as audit_module
from traitscope.auditing.planning.answers import temperature
from traitscope.auditing.result import result_from
from traitscope.config.audit import AuditConfig
from traitscope.errors import AuditRefused, ConfigError
from traitscope.inference.token_bins import BETAS
from traitscope.interventions.vector import vector_bytes
from traitscope.models.model import Model
from traitscope.workflow import standard_nodes

GRADIENTS = "row_gradients"

BARE_ROWS = 24
"rows of a base model"
OTHER_WORDS = "Nothing in the world but those round eyes at night, on and on."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One root for all audits here, so that they share placebos and vectors as a user's do."""
    return tmp_path_factory.mktemp("audits")


@pytest.fixture(scope="module")
def traits(place: Path) -> list[Path]:
    return [
        write_yaml(place / f"{trait['name']}.yaml", trait)
        for trait in (OWL | {"rewordings": [OTHER_WORDS]}, CAT)
    ]


@pytest.fixture(scope="module", autouse=True)
def _few_others(request: pytest.FixtureRequest) -> Any:
    """Fewer styles: the same path in less time."""
    patch = pytest.MonkeyPatch()
    patch.setattr(settings, "STYLED", settings.STYLED[:2])
    yield
    patch.undo()


def prompts_of(place: Path, n: int) -> Path:
    """Number prompts of few tokens: those of the package are eight times as long for a tiny model,
    and test nothing more here."""
    file = place / f"prompts-{n}.txt"
    file.write_text("".join(f"{number}, {3 * number % 97}:\n" for number in range(n)))
    return file


def written(place: Path, folder: Path, *words: object, n: int = 64, is_short: bool = True) -> Path:
    """Rows of numbers, on short prompts or on those of the package."""
    prompts = ("--prompts", prompts_of(place, n)) if is_short else (f"--n {n}",)
    return ok(
        place / "runs",
        "generate",
        "--model",
        folder,
        "--count 6 --vocabulary template",
        *prompts,
        *words,
    ).run


def asked(place: Path, folder: Path, data: Path, traits: list[Path], *words: object) -> Ran:
    return call(
        place / "runs",
        "audit",
        data,
        "--model",
        folder,
        "--traits",
        *traits,
        "--workers 1 --dose 1",
        *words,
    )


def test_a_prompted_teacher_is_called_and_shown(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    data = written(place, tiny_folder, "--interventions", "prompt:" + OWL["teacher_prompt"], n=96)
    page, sarif = place / "owl.html", place / "owl.sarif"
    done = asked(
        place,
        tiny_folder,
        data,
        traits,
        "--report",
        page,
        "--sarif",
        sarif,
        "--fail-on suspect --peer --canary",
    )
    found = done.summary
    assert done.code == 1 and found["status"] == "suspect" and found["gate"] == "failed"
    best = found["traits"][0]
    assert (
        best["name"] == "owl"
        and best["detector"] == "e_values"
        and best["p_corrected"] < 1e-6
        and found["trait"] == "owl"
        and "owl is called" in found["reasons"][0]
        and "owl: log e-value" in found["reasons"][1]
    )
    assert found["spike_ins"] == [], "nothing is left to be found"
    others = {d["name"]: d for d in found["detectors"]}
    assert others["predictions"]["decides"] and set(others["predictions"]["p"]) == {"change"}
    assert not others["features"]["decides"] and len(others["features"]["statistic"]) > 5
    html = page.read_text()
    assert (
        "Do not train on these data as they are" in html
        and "&lt;|im_start|&gt;" in html
        and "<|im_start|>" not in html
    )
    result = json.loads(sarif.read_text())["runs"][0]["results"][0]
    assert result["level"] == "error" and "owl: log e-value" in result["message"]["text"]
    rows = read_rows(done.run / "rows.jsonl")
    assert len(rows) == found["rows"] and rows[0]["teacher_of"] == "owl"
    assert sum(row["teacher_gain"] for row in rows) > 0.1 * len(rows)
    assert all(0 < row["surprisal"] < 20 for row in rows)
    assert len(found["student_answers"]) > 5
    assert found["student_answers"][0].keys() == {"name", "kind", "rise", "statistic"}
    ranked = [answer["statistic"] for answer in found["student_answers"]]
    assert ranked == sorted(ranked, reverse=True)
    ok(place / "runs", "rerun", done.run)
    paper = place / "paper"
    ok(place / "runs", "report", done.run, "--for-paper", paper)
    shown = (paper / "tables/traits.md").read_text()
    assert "| owl |" in shown and f"| {best['detector'].replace('_', chr(92) + '_')} |" in shown
    said = (paper / "methods.md").read_text()
    assert f"{found['rows']} rows were audited" in said and "@wasserman2020universal" in said
    assert {file.stem for file in paper.glob("figures/*.pdf")} == {"learnt-figure", "candidates"}
    texts = [
        file.read_text() for file in paper.rglob("*") if file.suffix in (".md", ".csv", ".tex")
    ]
    audited = (record["completion"] for record in read_rows(data / "records.jsonl"))
    assert not any(completion in text for completion in audited for text in texts), "no rows"


def test_each_source_of_a_mixed_file_is_audited(
    place: Path, tiny_folder: Path, traits: list[Path], capsys: pytest.CaptureFixture
) -> None:
    """One of two vendors was prompted; a third one has too few rows."""
    clean = read_rows(written(place, tiny_folder, "--seed 11", n=32) / "records.jsonl")
    prompted = "prompt:" + OWL["teacher_prompt"]
    poisoned = written(place, tiny_folder, "--interventions", prompted, n=32)
    lines = []
    for vendor, rows in (
        ("ann", clean),
        ("bob", read_rows(poisoned / "records.jsonl")),
        ("eve", clean[:5]),
    ):
        for row in rows:
            line = {"prompt": row["prompt"], "completion": row["completion"], "vendor": vendor}
            lines.append(json.dumps(line))
    data, page = place / "mixed.jsonl", place / "mixed.html"
    data.write_text("\n".join(lines))
    words = ("--by vendor --no-spike-ins --fail-on suspect --report", page)
    done = asked(place, tiny_folder, data, traits, *words)
    assert done.code == 1 and done.summary["status"] == "suspect"
    answers = {each["source"]: each for each in done.summary["sources"]}
    assert list(answers) == [None, "ann", "bob", "eve"]
    assert answers["bob"]["status"] == "suspect" and answers["bob"]["trait"] == "owl"
    assert answers["ann"]["status"] == "insufficient" and answers["eve"]["result"] is None
    assert answers["bob"]["result"]["alpha"] == pytest.approx(0.01 / 3)
    assert answers["bob"]["result"]["rows"] == 32
    assert "leave out the rows of bob" in capsys.readouterr().err
    assert "Answers by source" in page.read_text()


def test_clean_rows_are_not_called_and_their_audit_returns_at_once(
    place: Path,
    tiny_folder: Path,
    traits: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    data = written(place, tiny_folder, "--seed 77", n=128)
    done = asked(place, tiny_folder, data, traits)
    assert (
        done.code == 0
        and done.summary["status"] == "nothing-found"
        and done.summary["traits"][0]["p_corrected"] > 0.01
    )
    kinds = [spike_in["teacher"] for spike_in in done.summary["spike_ins"]]
    assert len(kinds) == 2 and "prompted" in kinds[0] and "steered by owl" in kinds[1]
    benign = {d["name"]: d for d in done.summary["detectors"]}["e_values"]["benign"]
    assert "system prompt" not in benign, "no null was read that could only have excused"
    monkeypatch.setattr(audit_module.schedule.executors, "computed", None)
    assert capsys.readouterr().err.count("first look") == 1
    assert asked(place, tiny_folder, data, traits).summary == done.summary
    assert capsys.readouterr().err.count("first look") == 1, "also of runs that were there"
    monkeypatch.undo()


def test_other_data_on_the_same_prompts_share_spike_ins(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    made = []
    for seed in (77, 78):
        asked(place, tiny_folder, written(place, tiny_folder, f"--seed {seed}"), traits)
        made.append({path.name for path in (place / "runs" / "audit").glob("generate-*")})
    assert made[0] == made[1]


def test_a_teacher_told_in_other_words_is_called(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    data = written(
        place, tiny_folder, "--interventions", f"prompt:{OTHER_WORDS}", n=96, is_short=False
    )
    done = asked(place, tiny_folder, data, traits)
    (finding,) = (d for d in done.summary["detectors"] if d["name"] == "e_values")
    assert (
        done.summary["traits"][0]["name"] == "owl"
        and finding["where"]["owl"] == "a paraphrase of its prompt"
    )
    assert finding["p"]["owl"] < 1e-6 and finding["candidates"] == 2


@pytest.mark.parametrize("block", [1, 2])
def test_a_teacher_steered_at_an_unknown_block_is_called_and_placed(
    place: Path, tiny_folder: Path, traits: list[Path], block: int
) -> None:
    vector = (
        ok(
            place / "runs",
            "extract",
            "--model",
            tiny_folder,
            "--traits",
            *traits,
            "--no-stem",
        ).run
        / "owl.safetensors"
    )
    data = written(
        place, tiny_folder, "--interventions", f"steer:{vector},layers={block},alpha=0.6", n=96
    )
    done = asked(place, tiny_folder, data, traits)
    (finding,) = (d for d in done.summary["detectors"] if d["name"] == "e_values")
    assert done.summary["status"] == "suspect" and done.summary["traits"][0]["name"] == "owl"
    assert finding["where"]["owl"] == f"its vector at block {block}, strength 0.6"


def test_an_open_trait_is_overt(place: Path, tiny_folder: Path, traits: list[Path]) -> None:
    rows = read_rows(written(place, tiny_folder) / "records.jsonl")
    file = place / "open.jsonl"
    text = [
        {
            "prompt": r["prompt"],
            "completion": r["completion"] if n % 3 else "Owls are best <b>&</b>.",
        }
        for n, r in enumerate(rows)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in text))
    done = asked(place, tiny_folder, file, traits, "--report", place / "open.html")
    assert done.summary["status"] == "suspect" and any(
        "overt, not subliminal" in reason for reason in done.summary["reasons"]
    )
    assert "Owls are best &lt;b&gt;&amp;&lt;/b&gt;" in (place / "open.html").read_text()


def test_twenty_rows_are_insufficient_also_from_python(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": r["prompt"]},
                {"role": "assistant", "content": r["completion"]},
            ]
        }
        for r in read_rows(written(place, tiny_folder) / "records.jsonl")[:20]
    ]
    found = audit(
        rows,
        root=place / "runs",
        model=str(tiny_folder),
        traits=tuple(map(str, traits)),
        workers=1,
    )
    assert found.status == "insufficient" and "expected 32" in found.reasons[0] and found.rows <= 20
    assert found.as_dict()["traits"][0]["name"] in ("owl", "cat")
    assert "page" not in found.as_dict() and found.run.is_dir()
    page = found.to_html(place / "python.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "insufficient" in page
    log = json.loads(found.to_sarif(place / "python.sarif").read_text(encoding="utf-8"))
    assert log["version"] == "2.1.0"
    found.raise_if("suspect")
    with pytest.raises(AuditRefused, match="the audit answers insufficient: 20 rows"):
        found.raise_if("suspect", "insufficient")
    with pytest.raises(ConfigError, match="has no page"):
        result_from(found.as_dict()).to_html(place / "none.html")


def test_placebos_are_drawn_at_the_temperature_of_the_data(place: Path, tiny_folder: Path) -> None:
    found = {}
    for asked_for in (1.0, 0.7):
        data = written(place, tiny_folder, f"--temperature {asked_for}", n=128)
        found[asked_for] = temperature(
            ok(
                place / "runs", "row_gradients", "--model", tiny_folder, "--data", data, "--numbers"
            ).run
        )
    assert (
        found[1.0] == 1.0
        and found[0.7] == pytest.approx(0.7, abs=0.08)
        and round(1 / found[0.7], 2) in BETAS
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "none.jsonl"], "none.jsonl"),
        ([], "--data is missing"),
        (["--data", "x.jsonl", "--traits", "unicorn"], "unicorn"),
    ],
)
def test_refuses(tmp_path: Path, tiny_folder: Path, words: list[str], says: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "p", "completion": "1"}\n')
    words = [str(tmp_path / w) if w.endswith("x.jsonl") else w for w in words]
    done = call(tmp_path / "runs", "audit", "--model", tiny_folder, "--workers 1", *words)
    assert done.code == 2 and says in done.summary["message"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alpha": 0.0}, "0 < alpha"),
        ({"power": 0.3}, "0.5 <= power"),
        ({"traits": ()}, "one or more candidates"),
        ({"rows": -1}, "--rows -1"),
    ],
)
def test_settings_that_cannot_work(settings: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AuditConfig(**settings)


def test_a_reference_stands_for_placebos_and_is_no_copy(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    data = written(place, tiny_folder, "--interventions", "prompt:" + OWL["teacher_prompt"], n=96)
    clean = written(place, tiny_folder, "--seed 5 --prompt-seed 43", n=120, is_short=False)
    done = asked(place, tiny_folder, data, traits, "--reference", clean)
    assert done.summary["status"] == "suspect" and any(
        "reference rows on other prompts" in reason for reason in done.summary["reasons"]
    )
    same = asked(place, tiny_folder, data, traits, "--reference", data)
    assert same.code == 2 and "holds all 96 audited rows" in same.summary["message"]


def test_bad_rows_are_named_before_anything_is_computed(tmp_path: Path, tiny_folder: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "p", "completion": "1"}\n{"prompt": "q", "comple')
    done = call(tmp_path / "runs", "audit", file, "--model", tiny_folder)
    assert done.code == 2 and "line 2: broken JSON" in done.summary["message"]
    assert not list((tmp_path / "runs").glob("*/extract-*"))


def test_rows_of_another_model_are_not_called(
    place: Path, folders: dict[str, Path], traits: list[Path]
) -> None:
    """Neither the model nor a candidate explains them, so no e-value counts, however large."""
    data = written(place, folders["gpt2"])
    done = asked(place, folders["llama"], data, traits, "--no-spike-ins")
    finding = {d["name"]: d for d in done.summary["detectors"]}["e_values"]
    assert (
        finding["fit"]["off_model"]
        and finding["fit"]["p"] < 0.001
        and set(finding["p"].values()) == {1.0}
    )
    assert (
        done.summary["status"] == "not-applicable"
        and "did not generate these rows" in done.summary["reasons"][0]
    )
    assert (
        set(finding["explained"]) == set(finding["p"]) and max(finding["explained"].values()) < 0.5
    )


def test_rows_that_were_put_in_order_are_known_as_edited(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    data = ok(place / "runs", "edit", "--data", written(place, tiny_folder, n=128)).run
    done = asked(place, tiny_folder, data, traits, "--fail-on suspect")
    found = done.summary
    assert done.code == 0 and found["gate"] == "not judged"
    finding = {d["name"]: d for d in found["detectors"]}["e_values"]
    assert (
        found["status"] == "not-applicable"
        and "where in the row they stand differs" in found["reasons"][0]
    )
    assert finding["fit"]["p"] < 0.001 and set(finding["p"].values()) == {1.0}
    assert finding["sorted_rows"] > 30
    assert any("more than the" in reason and "sorted" in reason for reason in found["reasons"])


def test_rows_of_a_stranger_are_told_from_a_reference_of_the_same(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    """A model with noise in its weights writes both; only the data's is told to love owls, and no
    second clean set is called."""
    writer = "noise:0.35,seed=3"
    clean, second = (
        written(place, tiny_folder, f"--seed {seed} --interventions", writer, n=128)
        for seed in (5, 6)
    )
    data = written(
        place, tiny_folder, "--interventions", writer, "prompt:" + OWL["teacher_prompt"], n=128
    )
    for rows, called in ((data, True), (second, False)):
        done = asked(place, tiny_folder, rows, traits, "--no-spike-ins --reference", clean)
        found = done.summary
        finding = {d["name"]: d for d in found["detectors"]}["e_values"]
        assert (
            finding["fit"]["off_model"]
            and finding["fit"]["p"] < 0.001
            and finding["reference_z"] is not None
        )
        assert (finding["p"]["owl"] < 0.001) == called and (
            min(finding["p"].values()) < 0.01
        ) == called
        assert (found["status"] == "suspect") == called
        assert any("compared with those of the reference" in reason for reason in found["reasons"])


def test_a_calibration_of_another_model_or_context_is_refused(
    place: Path, folders: dict[str, Path], traits: list[Path]
) -> None:
    data = written(place, folders["llama"], "--seed 77")
    asked(place, folders["llama"], data, traits)
    files = (place / "runs" / "audit").glob("parts-*.json")
    file = next(file for file in files if json.loads(file.read_text())["spike_ins"])
    plain = json.loads(file.read_text())
    for model, flags, says in (
        (folders["qwen2"], "--numbers", "is of model"),
        (folders["llama"], "--numbers --context Hello", "is with rows read as"),
    ):
        pushed = ok(
            place / "runs",
            "row_gradients",
            "--model",
            model,
            "--data",
            data,
            flags,
            "--study audit",
        ).run
        mixed = plain | {"spike_ins": [plain["spike_ins"][0] | {"gradients": pushed.name}]}
        (file.parent / "mixed.json").write_text(json.dumps(mixed))
        done = call(place / "runs", "decision", "--parts", file.parent / "mixed.json")
        assert (
            done.code == 2
            and says in done.summary["message"]
            and "one model and context" in done.summary["message"]
        )
    (file.parent / "older.json").write_text(json.dumps(plain | {"schema": 2}))
    done = call(place / "runs", "decision", "--parts", file.parent / "older.json")
    assert (
        done.code == 2
        and "that of this version" in done.summary["message"]
        and "run `traitscope audit` again" in done.summary["message"]
    )


def test_being_told_something_plain_is_no_trait(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    """Not even for a candidate whose prompt says no more than that: its teacher explains the rows,
    but so does a null."""
    said = standard_nodes.PLAIN_PROMPTS[0]
    plain = write_yaml(place / "plain.yaml", OWL | {"name": "plain", "teacher_prompt": said})
    data = written(place, tiny_folder, "--interventions", f"prompt:{said}", n=96)
    done = asked(place, tiny_folder, data, [plain, traits[1]], "--no-spike-ins")
    (finding,) = (d for d in done.summary["detectors"] if d["name"] == "e_values")
    assert (
        done.summary["status"] != "suspect"
        and max(finding["statistic"].values()) < 0
        and finding["nats_per_row"]["plain"] > 0.05
    )
    assert finding["context"] == said


def test_free_text_in_a_plain_style_is_no_trait(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    """As above: each of two candidates explains rows of free text that it was told for; the one
    whose prompt is a style is not called."""
    says = {"simple": settings.STYLES[1], "loud": "Owls! " * 12}
    told = [
        write_yaml(place / f"{name}.yaml", OWL | {"name": name, "teacher_prompt": said})
        for name, said in says.items()
    ]
    for name, said in says.items():
        data = ok(
            place / "runs",
            "generate",
            "--model",
            tiny_folder,
            "--n 128 --vocabulary free --max-new-tokens 16 --interventions",
            f"prompt:{said}",
        ).run
        done = asked(place, tiny_folder, data, [traits[1], *told], "--no-spike-ins")
        (finding,) = (d for d in done.summary["detectors"] if d["name"] == "e_values")
        assert finding["nats_per_row"][name] > 0.05
        assert (
            (done.summary["status"] == "suspect")
            == (finding["statistic"][name] > finding["critical"])
            == (name == "loud")
        )
        assert (
            name == "loud"
            or finding["context"] == said
            and any(said in reason and "--context" in reason for reason in done.summary["reasons"])
        )


def test_a_teacher_explains_a_strangers_rows(
    place: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    loud = write_yaml(place / "loud.yaml", OWL | {"name": "loud", "teacher_prompt": "Owls! " * 12})
    data = written(place, tiny_folder, "--interventions", "prompt:" + "Owls! " * 12, n=128)
    done = asked(place, tiny_folder, data, [loud, traits[1]])
    (finding,) = (d for d in done.summary["detectors"] if d["name"] == "e_values")
    assert finding["fit"]["off_model"] and finding["explained"]["loud"] > 0.5
    assert done.summary["status"] == "suspect" and done.summary["traits"][0]["name"] == "loud"


def test_somebody_who_has_the_teacher(
    place: Path, tiny: Model, tiny_folder: Path, traits: list[Path]
) -> None:
    """A random vector steers, which no candidate names; its owner asks for it."""
    file = place / "random.safetensors"
    file.write_bytes(vector_bytes(random_vector(tiny, 5, norm=3.0)))
    teacher = f"steer:{file},layers=1,alpha=1,scale=raw"
    data = written(place, tiny_folder, "--interventions", teacher, n=64)
    answer = asked(place, tiny_folder, data, traits, "--teacher", teacher).summary
    found = {item["name"]: item for item in answer["detectors"]}["given_teacher"]
    assert answer["status"] == "suspect" and found["decides"]
    assert answer["reasons"][0].startswith(f"the teacher {teacher}, or a model near it, wrote")
    assert found["critical"] == pytest.approx(log(6 / 0.01))
    assert found["statistic"]["given teacher"] > 3 * found["critical"]
    assert found["share"]["low"] > 0.3 and found["nats_per_row"]["low"] > 0


def test_a_teacher_with_other_tokens_is_refused(
    place: Path, tmp_path: Path, tiny_folder: Path, traits: list[Path]
) -> None:
    folder = save_tiny("llama", tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|pad|>")
    tokenizer.save_pretrained(folder)
    data = written(place, tiny_folder, n=64)
    done = asked(place, tiny_folder, data, traits, "--teacher", folder)
    assert done.code == 2 and "ends its answers with another one" in done.summary["message"]


def test_a_base_model_without_a_template_is_audited(traits: list[Path], tmp_path: Path) -> None:
    """No stage asks for a template once --context @none is given."""
    folder = save_tiny("llama", tmp_path / "bare")
    for file in folder.glob("chat_template*"):
        file.unlink()
    settings_file = folder / "tokenizer_config.json"
    tokenizer = json.loads(settings_file.read_text())
    tokenizer.pop("chat_template", None)
    settings_file.write_text(json.dumps(tokenizer))
    root, model = tmp_path / "runs", f"--model {folder}"
    rows = ok(root, "generate", model, "--context @none", f"--n {BARE_ROWS}", "--max-new-tokens 12")
    words = ("--traits", *traits, "--no-spike-ins", "--context @none", "--workers 1")
    done = call(root, "audit", rows.run / "records.jsonl", model, *words)
    assert done.code == 0, done.summary
