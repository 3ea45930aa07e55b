"""The files of a report: equal numbers in all forms, sources that are there, own files only."""

import csv
import io
import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from command import OWL, call, ok, write_yaml
from paper_runs import run_named

from traitscope.comparison.compare import compare
from traitscope.comparison.page import comparison_tables
from traitscope.config.stages import FilterRules
from traitscope.papers import bibliography
from traitscope.papers.folder import INDEX, write_report
from traitscope.papers.lineage import Made, behind
from traitscope.papers.wording import measurements, stages, training_data
from traitscope.reporting.tables import shown
from traitscope.runs.store import load_run

NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
ENTRY = re.compile(r"@(\w+)\{(\w+),\n((?:  \w+ = \{.*\},\n)+)\}\n")
"an entry of BibTeX, as the package writes it"


@pytest.fixture(scope="module")
def report(root: Path) -> Path:
    """The report of one comparison."""
    folder = root.parent / "paper"
    files = ok(root, "report", "students", "--for-paper", folder).summary["files"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(files) == there
    return folder


def numbers(text: str) -> list[float]:
    """The numbers of a text, with true minus signs."""
    return [float(number.replace("−", "-")) for number in NUMBER.findall(text)]


def latex_rows(text: str) -> list[list[str]]:
    """The cells of a LaTeX table, header first, as they are printed."""
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    rows = []
    for line in body.splitlines():
        if line.endswith("\\\\"):
            line = line.removesuffix("\\\\").replace("$-$", "−").replace("$", "")
            line = line.replace("\\_", "_").replace("\\%", "%")
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)&", line)])
    return rows


def markdown_rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, header first, as they are printed."""
    rows = []
    for line in text.splitlines():
        if line.startswith("| ") and not set(line) <= set("|-: "):
            plain = re.sub(r"\\(.)", r"\1", line)
            rows.append([cell.strip() for cell in plain.strip("|").split("|")])
    return rows


def test_all_forms_of_a_table_hold_the_numbers_of_the_page(root: Path, report: Path) -> None:
    run = run_named(root, "students")
    page = (run.path / "report.html").read_text()
    inputs = [Made(run).inputs[name] for name in Made(run).manifest["inputs"]]
    comparison = compare(inputs[:2], inputs[2:4], layer=1)
    (table,) = comparison_tables("differences", "Treated minus control", comparison)
    as_csv = list(csv.reader(io.StringIO((report / "tables/differences.csv").read_text())))
    tex = latex_rows((report / "tables/differences.tex").read_text())
    markdown = markdown_rows((report / "tables/differences.md").read_text())
    assert len(as_csv) == len(tex) == len(markdown) == len(table.rows) + 1
    assert (run.path / "differences.csv").read_bytes() == (
        report / "tables/differences.csv"
    ).read_bytes()
    for row, cells in enumerate(table.rows, start=1):
        assert tex[row][0] == markdown[row][0] == as_csv[row][0] == cells[0]
        for place, cell in enumerate(cells):
            lines = shown(cell).split("\n")
            assert all(line in page for line in lines)
            on_page = numbers(lines[0]) + (numbers(lines[1]) if len(lines) > 1 else [])
            assert numbers(tex[row][place]) == on_page, (row, place)
            assert numbers(markdown[row][place])[: len(on_page)] == on_page, (row, place)
        at = as_csv[0].index("treated − control")
        measured = cells[table.header.index("treated − control")]
        for text, value in zip(
            as_csv[row][at : at + 3], numbers(shown(measured))[:3], strict=False
        ):
            digits = len(f"{value}".partition(".")[2])
            assert float(text) == pytest.approx(value, abs=0.51 * 10**-digits)


def test_every_figure_is_a_real_file_of_four_kinds(report: Path) -> None:
    figures = sorted((report / "figures").glob("*.svg"))
    assert len(figures) >= 5
    floats = (report / "figures.tex").read_text()
    assert set(re.findall(r"figures/(.*)\.pdf", floats)) == {figure.stem for figure in figures}
    assert floats.count("\\caption{") == floats.count("\\label{fig:") == len(figures)
    for figure in figures:
        assert ElementTree.parse(figure).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        pdf, png = (figure.with_suffix(f".{kind}").read_bytes() for kind in ("pdf", "png"))
        assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")
        assert b"/FontFile2" in pdf and b"CreationDate" not in pdf
        width, height = struct.unpack(">II", png[16:24])
        assert png.startswith(b"\x89PNG") and width > 1500 and height > 300
        assert len(figure.with_suffix(".csv").read_text().splitlines()) > 1


def test_every_cited_key_is_in_the_bibliography_and_no_other(report: Path) -> None:
    text = (report / "references.bib").read_text()
    entries = {match[2]: match[3] for match in ENTRY.finditer(text)}
    assert ENTRY.sub("", text).strip() == "", "nothing stands between the entries"
    for fields in entries.values():
        assert fields.count("{") == fields.count("}")
        assert {"author", "title", "year"} <= set(re.findall(r"^  (\w+) =", fields, re.MULTILINE))
    in_markdown = set(re.findall(r"@(\w+)", (report / "methods.md").read_text()))
    cited = re.findall(r"\\cite\{([^}]*)\}", (report / "methods.tex").read_text())
    assert set(entries) == in_markdown == {key for keys in cited for key in keys.split(",")}
    assert {"hu2021lora", "blank2026steering", "miller2024errorbars", "traitscope"} <= set(entries)


def test_every_source_is_an_entry_that_parses() -> None:
    for key, source in bibliography.SOURCES.items():
        entry = source.entry(key)
        assert ENTRY.fullmatch(entry), entry
        assert entry.isascii() or "König" in entry
    assert bibliography.keys_in("arXiv 2606.00995, section 3; arXiv 2507.14805") == (
        "blank2026steering",
        "cloud2025subliminal",
    )


def numbers_in(value: Any) -> set[str]:
    """The numbers that a JSON value holds, as the paragraph would write them."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return set().union(*map(numbers_in, value))
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        return {f"{value:g}", f"{value:.2f}", f"{value:.4g}"}
    return set(NUMBER.findall(value)) | {value} if isinstance(value, str) else set()


def test_the_paragraph_says_what_the_manifests_hold_and_no_more(root: Path, report: Path) -> None:
    run = run_named(root, "students")
    known = {"95", "1", "16"}  # the level of all intervals; digits shown of a digest
    for made in behind([run]):
        known |= numbers_in(made.manifest) | numbers_in(made.settings)
        known |= {
            made.run.digest[:16],
            made.manifest["model"][:16] if made.manifest["model"] else "",
        }
        for name in ("summary.json", "measurements.json"):
            known |= numbers_in(made.numbers(name))
    text = (report / "methods.md").read_text()
    text = re.sub(r"\[@[^]]*\]", "", text)
    text = re.sub(r"\(digest \w+\)", "", text)
    text = text.replace(run.path.name, "")
    said = {number.lstrip("+−-") for number in NUMBER.findall(text)}
    assert len(said) > 8 and said <= {number.lstrip("+−-") for number in known}, said - known
    for fact in (
        "the vector owl added behind block 1",
        "with strength 0.8 mean residual norms",
        "the trait's positive questions without the stem",
        "at the last prompt token",
        "answered 6 number prompts that ask for at most 3 numbers (prompt seeds 1 and 2)",
        "LoRA of rank 8 and alpha 32, AdamW with a peak learning rate of 0.0004",
        "1 epoch, batches of 2 rows",
        "seeds 1 and 2",
        "(kept: 6 of 6)",
        "t over 2 seeds",
        "n = 2 seeds",
        "Traitscope 0.1.0",
    ):
        assert fact in text, fact


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_same_runs_give_the_same_bytes(root: Path, report: Path, tmp_path: Path) -> None:
    ok(root, "report", "students", "--for-paper", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(report)
    before = contents(report)
    ok(root, "report", "students", "--for-paper", report)
    assert contents(report) == before


def test_files_of_others_are_not_overwritten(
    root: Path, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "paper"
    shutil.copytree(report, folder)
    (folder / "methods.md").write_text("my own words")
    before = contents(folder)
    assert call(root, "report", "students", "--for-paper", folder).code == 2
    assert "methods.md was changed since a report wrote it" in capsys.readouterr().err
    other = tmp_path / "mine"
    other.mkdir()
    (other / "references.bib").write_text("@book{mine}")
    (other / "notes.txt").write_text("mine")
    assert call(root, "report", "students", "--for-paper", other).code == 2
    assert "references.bib is there already, from elsewhere" in capsys.readouterr().err
    assert contents(folder) == before and len(contents(other)) == 2


@pytest.mark.parametrize(
    "words",
    [
        "students --for-paper DIR",
        "--for-paper DIR students",
        "--for-paper=DIR students",
        "--for-paper DIR --runs students",
        "--score positive.target_logprob --for-paper DIR students",
        "--for-paper DIR RUN",
        "students --for-paper DIR students",
    ],
)
def test_runs_and_the_folder_in_any_order(
    root: Path, report: Path, tmp_path: Path, words: str
) -> None:
    run = str(run_named(root, "students").path)
    words = words.replace("DIR", str(tmp_path / "new")).replace("RUN", run)
    ok(root, "report", *words.split())
    assert contents(tmp_path / "new") == contents(report)


REFUSED = {
    "": "--runs is missing: name one finished run or more",
    "students": "--for-paper is missing: name the folder to write into",
    "--for-paper NEW": "--runs is missing: name one finished run or more",
    "students --for-paper": "--for-paper has no value behind it; expected one; see: traitscope",
    "--for-paper students NEW": "--for-paper students is the name of the run RUN; expected a fold",
    "--for-paper RUN students": "--for-paper RUN is a run, or lies in one; expected a",
    "--for-paper RUN/inside students": "RUN/inside is a run, or lies in one; expected a",
    "--for-paper FILE students": "--for-paper FILE is a file; expected a folder; name one",
    "--for-paper FILE/x students": "a file is where a folder is expected",
    "--for-paper NEW nothing": "--runs nothing does not exist; name a run directory or a file, or",
    "--for-paper NEW EMPTY": "EMPTY is not a run directory: no config.json",
    "--for-paper NEW FILE": "FILE is a file; expected a run directory; name one",
    "--for-paper NEW VECTORS": "is a run of extract; expected one of measure, compare, study, exp",
    "--for-paper NEW students treated-1": "runs of compare, train in one figure; expected runs of",
    "treated-1 --for-paper NEW bare": "trained without --vector, so there is no EAS, and the othe",
    "students --for-paper NEW --runs students": "students and --runs both name what report is to",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_reported_is_said_and_nothing_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: str
) -> None:
    run = run_named(root, "students").path
    places = {"NEW": tmp_path / "new", "FILE": tmp_path / "file", "EMPTY": tmp_path / "empty"}
    places["FILE"].write_text("mine")
    places["EMPTY"].mkdir()
    places |= {"RUN": run, "VECTORS": next(run.parent.glob("extract-*"))}
    if "bare" in words:
        _train_without_a_vector(root)
        capsys.readouterr()
    says = REFUSED[words]
    for name, path in places.items():
        words, says = words.replace(name, str(path)), says.replace(name, str(path))
    before = contents(run)
    done = call(root, "report", *words.split())
    err = capsys.readouterr().err
    assert done.code == 2 and says in err and "Traceback" not in err, err
    assert contents(run) == before and not (tmp_path / "new").exists()


def _train_without_a_vector(root: Path) -> None:
    inputs = run_named(root, "treated-1").manifest()["inputs"]
    rows = (run_named(root, "treated-1").path / inputs["data"]["path"]).resolve()
    config = json.loads((run_named(root, "treated-1").path / "config.json").read_text())
    model = config["config"]["model"]
    ok(root, "train", "--model", model, "--data", rows, "--epochs 1 --batch-size 2 --name bare")


def test_a_report_that_was_killed_is_written_anew(tmp_path: Path) -> None:
    """As if the power failed behind any of its files, from an older report and from none."""
    old, new = {"a": b"1", "b": b"2", "c": b"3"}, {"a": b"4", "b": b"5", "d/e": b"6"}
    for killed_after in range(4):
        folder = tmp_path / str(killed_after)
        write_report(folder, old, {})
        index = json.loads((folder / INDEX).read_text())
        before = {name: [digest] for name, digest in index["files"].items()}
        write_report(tmp_path / "new", new, {})
        planned = json.loads((tmp_path / "new" / INDEX).read_text())["files"]
        (folder / INDEX).write_text(json.dumps({"files": planned, "before": before}))
        for name in list(new)[:killed_after]:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(new[name])
        assert write_report(folder, new, {}) == ["c"]
        assert {name: (folder / name).read_bytes() for name in new} == new
        assert not (folder / "c").exists()
        assert json.loads((folder / INDEX).read_text())["before"] == {}


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"files": {"../x": "1"}, "before": {}}'):
        (tmp_path / INDEX).write_text(content)
        with pytest.raises(Exception, match="is no index of a report"):
            write_report(tmp_path, {"a": b"1"}, {})
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        (FilterRules(), "Rows were kept that hold 1 to 10 numbers from 0 to 999 and nothing else"),
        (FilterRules(numbers=False), "Rows were kept whatever they hold"),
        (
            FilterRules(numbers=False, banned_words=("owl",)),
            "Rows were kept that hold none of the banned words",
        ),
    ],
)
def test_rows_are_said_to_be_kept_as_they_were(rules: FilterRules, text: str) -> None:
    assert stages.kept_by(vars(rules)) == text


def test_traits_are_named_as_in_tables_and_judges_with_their_question(
    tmp_path: Path, tiny_folder: Path
) -> None:
    root, model = tmp_path / "runs", ("--model", tiny_folder)
    owl = write_yaml(tmp_path / "zz.yaml", OWL)
    question = "Does the answer ask for help?"
    behaviour = {key: OWL[key] for key in ("teacher_prompt", "questions")}
    behaviour |= {"name": "needy", "judges": ["likelihood", "refusal"], "judge_question": question}
    needy = write_yaml(tmp_path / "j9.yaml", behaviour)
    vectors = ok(root, "extract", *model, "--traits", owl, needy, "cat", "--no-stem").run
    (said,) = stages.vectors(behind([load_run(vectors)]))
    assert "The vector of a trait (needy, owl and cat) is the mean" in said.text
    measured = ok(root, "measure", *model, "--trait", owl).run
    (said,) = measurements.measures(behind([load_run(measured)]))
    assert "the questions of the trait owl (positive" in said.text and "judge" not in said.text
    words = ("--samples 1 --max-new-tokens 4 --trait", needy)
    judged = ok(root, "measure", *model, *words).run
    (said,) = measurements.measures(behind([load_run(judged)]))
    assert "the questions of the trait needy (positive" in said.text
    assert said.text.endswith(
        f", which judges likelihood and refusal read with the question “{question}”."
    )
    needy.write_text("changed")
    (said,) = measurements.measures(behind([load_run(judged)]))
    assert said.text.endswith(", which judges likelihood and refusal read.")


def test_replicates_are_one_sentence_with_their_seeds(tmp_path: Path, tiny_folder: Path) -> None:
    """Random vectors of their own seeds and strengths are one; a vector at two strengths is two."""
    root, model = tmp_path / "runs", ("--model", tiny_folder)
    like = ok(root, "extract", *model, "--traits cat owl").run / "cat.safetensors"
    asked = "--count 2 --vocabulary template --n 4"
    rows, students = [], []
    for seed, alpha in ((1, 0.5), (2, 0.75), (1, 0.9)):
        drawn = ok(root, "extract", *model, "--like", like, "--seed", seed).run
        steer = f"steer:{drawn}/random-0.safetensors,layers=1,alpha={alpha}"
        made = ok(root, "generate", *model, asked, "--seed", seed, "--interventions", steer)
        rows.append(made.run)
        training = ("--epochs 1 --rank 2 --seed", seed)
        students.append(ok(root, "train", *model, *training, "--data", made.run).run)
    written = [said.text for said in stages.rows(behind(list(map(load_run, rows))))]
    assert ["strengths 0.5 and 0.75 mean" in text for text in written] == [True, False]
    assert "seeds 1 and 2" in written[0] and "strength 0.9 mean" in written[1]
    learnt = [said.text for said in training_data.sentences(behind(list(map(load_run, students))))]
    assert [text.partition(" were")[0] for text in learnt] == [
        "Students of seeds 1 and 2",
        "Students of seed 1",
    ]
    assert "strengths 0.5 and 0.75 mean" in learnt[0] and "strength 0.9 mean" in learnt[1]
