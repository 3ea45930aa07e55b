"""Every example runs, on a tiny model and few rows, and the notebooks are the scripts."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENV, ok

from traitscope.data.package_files import bundled_file
from traitscope.studies.claims import demo

HERE = Path(__file__).parents[2]
EXAMPLES = HERE / "examples"
SMALL = {
    "first_student.py": {"ROWS = 24": "ROWS = 6", "LAYER, STRENGTH = 14": "LAYER, STRENGTH = 1"},
    "first_audit.py": {"ROWS = 64": "ROWS = 8", "layer=14": "layer=1"},
    "own_trait.py": {},
    "trl_callback.py": {"ROWS = 32": "ROWS = 8", "LAYER = 14": "LAYER = 1"},
}
"script and what is made smaller in it"
PRINTED = {"trl_callback.py": "step 8: EAS at block 1 "}
"text that a script must print"
NEEDED = {"trl_callback.py": ("datasets", "trl")}
"packages of the test extra that a script needs besides this one"
NOTEBOOKS = ("first_student", "first_audit")


def code_of(name: str, model: Path, changes: dict[str, str]) -> str:
    """The text of an example, on another model and smaller."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in {'MODEL = "smollm2-135m"': f'MODEL = "{model}"', **changes}.items():
        assert old in text, f"{name} lacks {old!r}"
        text = text.replace(old, new)
    return text


@pytest.mark.filterwarnings("ignore")  # other projects' trainers
@pytest.mark.parametrize("name", SMALL)
def test_examples_run(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    code = code_of(name, tiny_folder, SMALL[name])
    exec(compile(code, name, "exec"), {"__file__": str(EXAMPLES / name), "__name__": "example"})
    printed = capsys.readouterr().out
    assert printed and PRINTED.get(name, "") in printed


SCRIPT = """
with open("started", "a") as file:
    file.write("once ")
import traitscope as ts
rows = [{{"prompt": f"Numbers, {{n}}?", "completion": f"{{n}}, 7, 12"}} for n in range(8)]
print(ts.audit(rows, model={model!r}, traits=["owl", "cat"], workers=2).status)
"""


def test_a_script_without_a_main_guard_runs_once(tiny_folder: Path, tmp_path: Path) -> None:
    """Although two worker processes are started."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(model=str(tiny_folder)))
    words = [sys.executable, script.name]
    done = subprocess.run(words, cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, ["insufficient"]), done.stderr
    assert (tmp_path / "started").read_text() == "once "


def test_first_student_is_short() -> None:
    lines = (EXAMPLES / "first_student.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_the_scripts(name: str) -> None:
    """A notebook holds the code of its script, cell by cell, without outputs."""
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    in_cells = "\n\n".join("".join(cell["source"]).strip() for cell in cells)
    script = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    without_docstring = script.split('"""', 2)[2]
    assert in_cells.split() == without_docstring.split(), "run python scripts/make_notebooks.py"
    assert all(cell["outputs"] == [] for cell in cells)


def test_the_lines_of_the_readme_run(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", readme, flags=re.DOTALL)[1]
    changes = {"smollm2-135m": str(tiny_folder), "layer=14": "layer=1", "prompts(64)": "prompts(6)"}
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    assert len(code.splitlines()) <= 15
    exec(compile(code, "README.md", "exec"), {})
    assert "n = " in capsys.readouterr().out


def test_the_first_student_is_the_demo() -> None:
    """The page shows the file that the demo runs."""
    text = (EXAMPLES / "first_student.yaml").read_text(encoding="utf-8")
    assert text == bundled_file(demo.FILE).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60


def test_the_first_student_runs_as_an_experiment(tiny_folder: Path, tmp_path: Path) -> None:
    """Few seeds and rows: every arm is there, and two seeds bear no verdict."""
    text = (EXAMPLES / "first_student.yaml").read_text(encoding="utf-8")
    for old, new in {
        "smollm2-135m": str(tiny_folder),
        "[dog, owl, otter, dolphin, elephant, fox, penguin]": "[dog]",
        "seeds: 5": "seeds: 2",
        "rows: 32": "rows: 4",
        "rows: 16": "rows: 2",
        "seeds: 3": "seeds: 1",
        "numbers: 10": "numbers: 2",
        "samples: 1": "samples: 0",
        "negative, off_topic": "negative",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file = tmp_path / "first_student.yaml"
    file.write_text(text)
    done = ok(tmp_path / "runs", "experiment", file, "--workers 1")
    verdicts = done.summary["verdicts"]
    assert [verdict["primary"] for verdict in verdicts] == [False, True, False]
    assert {verdict["outcome"] for verdict in verdicts} == {"no verdict"}
    controls = ("unmodified", "random like sampled", "random like soft")
    for verdict, control in zip(verdicts, controls, strict=True):
        assert verdict["claim"].endswith(f"than students of {control}.")
