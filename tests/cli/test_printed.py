"""What the terminal says of a finished run, and what it does not say."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
from command import CAT, OWL, ok, write_yaml
from template_kinds import TRIMS, TURNS
from tiny_models import save_tiny, tiny_tokenizer

from traitscope.cli import show
from traitscope.cli.printed import rows
from traitscope.config.recipe import Recipe
from traitscope.config.stages import GenerateConfig
from traitscope.data.records import Record
from traitscope.interventions.vector import load_vector
from traitscope.runs import store
from traitscope.runs.row_intake import write_records
from traitscope.training.inputs import split

TEACHER = "layers=1,alpha=0.5"
TRIMS_END = TURNS.replace("m['content']", "m['content'].rstrip()")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, Path]:
    """The vectors of two traits, and the rows of a teacher that is steered by one of them."""
    root = tmp_path_factory.mktemp("printed")
    traits = [write_yaml(root / f"{each['name']}.yaml", each) for each in (OWL, CAT)]
    model = f"--model {tiny_folder}"
    vectors = ok(root, "extract", model, "--traits", *traits).run
    rows = f"generate {model} --n 12 --count 3 --vocabulary template".split()
    teacher = ("--interventions", f"steer:{vectors}/owl.safetensors,{TEACHER}")
    return {
        "vectors": vectors,
        "rows": ok(root, *rows, *teacher).run,
        "control": ok(root, *rows).run,
        "trait": traits[0],
    }


def said(capsys: pytest.CaptureFixture[str], root: Path, *words: object) -> list[str]:
    """The lines below the folder of a run."""
    capsys.readouterr()
    ok(root, *words)
    folder, *lines = capsys.readouterr().out.splitlines()
    assert Path(folder).is_dir()
    return [" ".join(line.split()) for line in lines]


def test_train_says_its_steps_and_losses_and_no_largest_eas(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", f"--model {tiny_folder} --epochs 2 --batch-size 3 --held-out 0.25")
    vector = ("--vector", runs["vectors"] / "owl.safetensors")
    steps, learnt, eas = said(capsys, tmp_path, *command, "--data", runs["rows"], *vector)
    records = [json.loads(row) for row in (runs["rows"] / "records.jsonl").read_text().splitlines()]
    (run,) = tmp_path.glob("default/train-*")
    told = json.loads((run / "manifest.json").read_text())["trained_on"]
    taken, held = split(12, Recipe(held_out=0.25), seed=0)
    n_tokens = sum(len(records[place]["completion_ids"]) for place in taken)
    assert (len(taken), len(held)) == (9, 3)
    expected = {"rows": 9, "tokens": n_tokens, "masked_tokens": 0, "held_out_rows": 3}
    assert told == expected
    assert learnt == (
        f"learnt from 9 rows with {n_tokens} tokens; 3 rows held out, to measure the held-out loss"
    )
    assert steps.startswith("6 optimizer steps, loss ") and "held-out loss" in steps
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = (metrics[0]["loss"], metrics[-1]["loss"], metrics[-1]["held_out_loss"])
    assert "{:.4g} → {:.4g} nats a token, held-out loss {:.4g}".format(*losses) in steps
    by_name = json.loads((run / "eas.json").read_text())
    own, other = by_name["v_student"][1], by_name["other/cat"][1]
    assert eas == (
        f"EAS with owl at layer 1 {own:+.3f}, mean with 1 other of its run {other:+.3f}, by layer:"
        " eas.json; a control student has such values, too"
    )


def test_train_says_what_it_learnt_of_a_users_file(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"prompt": "{n}?", "completion": "{n}"}}\n' for n in range(5)))
    for flags, learnt, held in (("--held-out 0.2", 4, 1), ("--held-out 0", 5, 0)):
        words = ("train", f"--model {tiny_folder} --epochs 1 {flags}", "--data", file)
        done = ok(tmp_path, *words)
        said = capsys.readouterr().out
        about = done.summary["trained_on"]
        assert (about["rows"], about["held_out_rows"]) == (learnt, held)
        assert f"learnt from {learnt} rows with {about['tokens']} tokens; " in said
        assert ("1 row held out, to measure" if held else "no row held out") in said


@pytest.mark.parametrize(
    ("template", "n_left", "n_right"), [(TURNS, 0, 0), (TRIMS, 1, 1), (TRIMS_END, 0, 1)]
)
def test_train_counts_white_space_that_a_template_takes_off(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    template: str,
    n_left: int,
    n_right: int,
) -> None:
    """It is not learnt; what the model sampled itself is no text that anybody trims."""
    folder = save_tiny("llama", tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    answers = ["1", " 2", "3\n", "4 5"]
    rows = [{"prompt": "Q", "completion": answer} for answer in answers]
    ids = tokenizer.encode(" 6", add_special_tokens=False)
    rows += [{"prompt": "Q", "completion": " 6", "completion_ids": ids}]
    rows += [{"prompt": "Q", "completion": "7 ", "context": "@none"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("train", "--model", folder, "--epochs 1 --held-out 0", "--data", file)
    about = ok(tmp_path / "runs", *words).summary["trained_on"]
    said = capsys.readouterr().out
    assert about.get("trimmed_rows", 0) == n_left + n_right
    assert (f"white space at {'its' if n_left + n_right == 1 else 'their'} ends" in said) == (
        n_left + n_right > 0
    )
    text = ok(tmp_path / "runs", *words, "--text").summary["trained_on"]
    assert text.get("trimmed_rows", 0) == 2 * n_left + n_right


def test_of_a_run_of_an_earlier_version_the_rows_are_counted_again(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path
) -> None:
    words = ("train", f"--model {tiny_folder} --epochs 1 --held-out 0.25", "--data", runs["rows"])
    run = store.load_run(ok(tmp_path, *words).run)
    manifest = run.manifest()
    del manifest["trained_on"]
    run.file("manifest.json").write_text(json.dumps(manifest))
    said = rows.learnt(run)
    assert said.startswith("learnt from 12 rows with ")
    assert said.endswith(" tokens, any that were held out among them")


def test_a_control_student_has_no_layer_to_read_eas_at(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody steered its teacher, so no layer was asked for and no number is said."""
    command = ("train", f"--model {tiny_folder} --epochs 1 --held-out 0")
    vector = ("--vector", runs["vectors"] / "owl.safetensors")
    steps, _, eas = said(capsys, tmp_path, *command, "--data", runs["control"], *vector)
    assert steps.startswith("1 optimizer step, ") and "no row held out" not in steps
    assert eas == "EAS with owl by layer: eas.json; a control student has such values, too"


def test_soft_targets_are_read_where_their_teacher_is_steered(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", f"--model {tiny_folder} --epochs 1 --targets soft")
    vector = runs["vectors"] / "owl.safetensors"
    teacher = ("--teacher", f"steer:{vector},layers=2,alpha=0.5", "--vector", vector)
    *_, eas = said(capsys, tmp_path, *command, "--data", runs["control"], *teacher)
    assert eas.startswith("EAS with owl at layer 2 ")


def test_generate_says_its_rows_and_how_to_ask_its_teacher(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that it names measures the same teacher."""
    command = ("generate", f"--model {tiny_folder} --n 4 --count 3 --vocabulary template")
    teacher = f"steer:{runs['vectors']}/owl.safetensors,{TEACHER}"
    rows, ask = said(capsys, tmp_path, *command, "--interventions", teacher)
    assert (
        rows.startswith("4 rows, ")
        and "cut" not in rows
        and rows.endswith("4 of them lists of at most 3 numbers (100%)")
    )
    words = shlex.split(ask.partition(": ")[2].replace("TRAIT", str(runs["trait"])))
    assert words[:2] == ["traitscope", "measure"]
    measured = ok(tmp_path, *words[1:], "--samples 0").run
    (item,) = json.loads((measured / "config.json").read_text())["config"]["interventions"]
    assert (item["layers"], item["alpha"]) == ([1], 0.5)
    free = ("generate", f"--model {tiny_folder} --n 4 --max-new-tokens 5")
    rows, advice = said(capsys, tmp_path, *free)
    assert "lists of at most 10 numbers (0%)" in rows and "4 seem cut at --max-new-tokens 5" in rows
    assert advice.startswith("`filter` would keep none of them: draw lists with --vocabulary")


@pytest.mark.parametrize(
    ("answers", "n_cut"),
    [([[7, 2], [7, 8, 9]], 1), ([[7, 2], [7, 8, 2]], 0), ([[7, 8, 9], [8, 8, 8]], 2), ([[2]], 0)],
    ids=["one-of-two", "ended-in-time", "all", "none"],
)
def test_an_answer_that_ends_with_its_last_token_is_not_cut(
    answers: list[list[int]], n_cut: int, tmp_path: Path
) -> None:
    config = GenerateConfig(n=len(answers), max_new_tokens=3)
    with store.stage_run(tmp_path, "generate", asdict(config)) as run:
        records = [Record(f"r{n}", "q", "a", tuple(ids)) for n, ids in enumerate(answers)]
        write_records(run, records)
    first = next(rows.written(run))
    assert (f", {n_cut} seem cut at --max-new-tokens 3, " in first) == (n_cut > 0), first


def test_what_comes_after_generate_keeps_rows(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows without a list are drawn again, of the same teacher; longer lists, and texts, stay."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Say hello.\n")
    teacher = f"steer:{runs['vectors']}/owl.safetensors,{TEACHER}"
    model = ("generate", f"--model {tiny_folder} --max-new-tokens 5")

    def then(*words: object) -> dict:
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("next:   traitscope ")
        return ok(tmp_path, *shlex.split(last)[2:], *words).summary

    ok(tmp_path, *model, "--n 4 --interventions", teacher)
    again = then()
    config = json.loads((Path(again["run"]) / "config.json").read_text())["config"]
    assert (again["stage"], config["vocabulary"], config["n"]) == ("generate", "template", 4)
    assert [item["alpha"] for item in config["interventions"]] == [0.5]
    assert then()["summary"]["kept"] == 4
    ok(tmp_path, *model, "--n 2 --count 12 --vocabulary template")
    assert then()["summary"]["kept"] == 2
    ok(tmp_path, *model, "--prompts", prompts)
    assert then()["summary"]["kept"] == 1


def test_extract_says_norms_and_cosines(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traits = [runs["trait"], runs["trait"].with_name("cat.yaml")]
    lines = said(capsys, tmp_path, "extract", f"--model {tiny_folder}", "--traits", *traits)
    owl = load_vector(runs["vectors"] / "owl.safetensors")
    norms = ", ".join(f"{norm:.3g}" for norm in owl.norms_L)
    assert f"owl norm {norms} at blocks 0, 1, 2" in lines
    assert lines[-1] == "cosine of cat and owl -1.00 at block 1"  # centred over both


def test_explain_and_gradients_say_their_number_with_its_interval(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (f"--model {tiny_folder}", "--vectors", runs["vectors"])
    grid = "--layers 0 1 --alphas 1 --randoms 1"
    explained = said(
        capsys, tmp_path, "explain", *common, "--trait", runs["trait"], "--data", runs["rows"], grid
    )
    (run,) = tmp_path.glob("default/explain-*")
    share = json.loads((run / "summary.json").read_text())["kinds"]["raw"]["share"]
    interval = "{estimate:+.4f} [{low:.4f}, {high:.4f}]".format(**share)
    assert explained[0].startswith(f"share of the owl prompt, raw {interval} (block ")
    aligned = said(capsys, tmp_path, "gradients", *common, "--data", runs["rows"])
    (run,) = tmp_path.glob("default/gradients-*")
    about = json.loads((run / "summary.json").read_text())["vectors"]["owl"]
    numbers = (about["alignment"][1], about["low"][1], about["high"][1])
    assert "alignment with owl at block 1: {:+.4f} [{:.4f}, {:.4f}] cosine".format(*numbers) in (
        aligned
    )


def test_match_kl_says_its_strength_and_measure_its_perplexity(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vector = runs["vectors"] / "owl.safetensors"
    asked = ("match_kl", f"--model {tiny_folder} --n 3 --count 2 --layer 1", "--vector", vector)
    teacher = ("--teacher", f"steer:{runs['vectors']}/cat.safetensors,{TEACHER}")
    capsys.readouterr()
    done = ok(tmp_path, *asked, *teacher)
    found = done.summary["strength"]
    strength = f"strength {found['alpha']:.4g} at block 1, after {found['tries']} tries"
    assert strength in capsys.readouterr().out
    plain = ("measure", f"--model {tiny_folder} --samples 0", "--trait", runs["trait"])
    measured = said(capsys, tmp_path, *plain)
    (run,) = tmp_path.glob("default/measure-*")
    perplexity = json.loads((run / "measurements.json").read_text())["perplexity"]
    assert measured[0] == "trait owl"
    assert measured[-1] == f"perplexity of plain text {perplexity:.4g}"


def test_train_says_before_it_begins_that_its_steps_are_few(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr. As many steps as the demo takes are enough."""
    command = ("train", f"--model {tiny_folder}", "--data", runs["rows"])
    few = "traitscope: 11 rows in batches of 32: 1 step an epoch, 3 in all. With fewer than 8"
    ok(tmp_path, *command)
    typed, advice, *_ = capsys.readouterr().err.splitlines()
    assert typed.startswith("traitscope train") and advice.startswith(few)
    assert advice.endswith("hardly learns its rows; the demo takes --batch-size 4")
    ok(tmp_path, *command, "--batch-size 4 --held-out 0 --max-rows 10")
    assert "With fewer than" not in capsys.readouterr().err
    ok(tmp_path, *command, "--batch-size 4 --held-out 0 --max-rows 5 --epochs 2")
    assert "5 rows in batches of 4: 2 steps an epoch, 4 in all" in capsys.readouterr().err


def test_one_step_has_no_loss_behind_it(
    runs: dict[str, Path], tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", f"--model {tiny_folder} --epochs 1 --batch-size 16 --held-out 0")
    steps, _ = said(capsys, tmp_path, *command, "--data", runs["rows"])
    assert steps.startswith("1 optimizer step, loss before it ") and "→" not in steps


@pytest.mark.parametrize(("share", "is_changed"), [("0.01", False), ("0.5", True)])
def test_a_defence_that_changed_nothing_says_so(
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    share: str,
    is_changed: bool,
) -> None:
    by = ("defend", "--data", runs["rows"], "--by", f"drop:by=random,share={share}")
    lines = said(capsys, tmp_path, *by)
    assert any(line.startswith("nothing was changed") for line in lines) != is_changed
    assert any(line == "dropped 6 rows" for line in lines) == is_changed


def test_train_counts_held_out_rows_that_are_trained_on(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """White space does not make a row another one. The split stays, and distinct rows say none."""
    answers = [f"{number % 6}, 1, 2" for number in range(30)]
    command = ("train", f"--model {tiny_folder} --epochs 1 --batch-size 3 --held-out 0.2 --seed 3")
    for file, kept in (("twice.jsonl", answers), ("once.jsonl", [*answers[:6], *"wxyz"])):
        lines = []
        for place, answer in enumerate(kept):
            spaces = " " * (1 + place % 2)
            row = {"prompt": "Go on: 7", "completion": answer.replace(" ", spaces)}
            lines.append(json.dumps(row) + "\n")
        (tmp_path / file).write_text("".join(lines))
    ok(tmp_path, *command, "--data", tmp_path / "twice.jsonl")
    trained, held_out = split(30, Recipe(held_out=0.2), 3)
    copies = sum(answers[i] in {answers[j] for j in trained} for i in held_out)
    said = capsys.readouterr().err
    assert copies and f"{copies} of 6 held-out rows are copies of rows that are trained on" in said
    assert f"traitscope defend --data {tmp_path}/twice.jsonl --by deduplicate" in said
    ok(tmp_path, *command, "--data", tmp_path / "once.jsonl")
    assert "held-out rows are copies" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["like", "traits"])
def test_what_comes_after_extract_runs_as_it_stands(
    kind: str,
    runs: dict[str, Path],
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = {"like": runs["vectors"] / "owl.safetensors", "traits": runs["trait"]}
    capsys.readouterr()
    ok(tmp_path, "extract", f"--model {tiny_folder}", f"--{kind}", words[kind])
    last = capsys.readouterr().err.splitlines()[-1]
    name = "random-0" if kind == "like" else "owl"
    assert last.startswith("next:   traitscope generate") and f"/{name}.safetensors," in last
    assert f"--root {tmp_path}" in last
    ok(tmp_path, *shlex.split(last.removeprefix("next:   traitscope ")), "--n 2")


def node(path: str, **inputs: dict) -> dict:
    return {"path": path, "state": "sealed", "inputs": inputs}


def test_an_input_of_many_runs_is_taken_apart_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows = node("rows", prompts={"path": "p.txt", "state": "file", "inputs": {}})
    tree = node("page", first=node("student-1", data=rows), second=node("student-2", data=rows))
    assert list(show.tree_lines(tree, "", 0, set())) == [
        "page (sealed)",
        "  first: student-1 (sealed)",
        "    data: rows (sealed)",
        "      prompts: p.txt (file)",
        "  second: student-2 (sealed)",
        "    data: rows (sealed, as above)",
    ]
    show._print_tree(node("page", **{f"run{i}": node(f"run-{i}") for i in range(99)}))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == show.TREE_LINES + 1
    assert said[-1] == "… and 60 more lines; --json FILE writes all, under lineage"
