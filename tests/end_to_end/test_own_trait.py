"""A trait in a file has its name in everything that a command writes and prints."""

import json
from pathlib import Path

import pytest
from command import CAT, OWL, call, ok, write_yaml

from traitscope.runs import store

OWN = "green tea"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, object]:
    """Two traits whose files have other names, in a folder with a blank and a comma."""
    place = tmp_path_factory.mktemp("own") / "mine, all"
    place.mkdir()
    own = write_yaml(place / "first.yaml", OWL | {"name": OWN, "questions": "animals"})
    other = write_yaml(place / "second.yaml", CAT | {"name": "coffee", "questions": "animals"})
    root = place / "runs"
    model = f"--model {tiny_folder} --dtype fp32"
    vectors = ok(root, "extract", model, "--traits", own, other).run
    rows = place / "rows.jsonl"
    lines = [{"prompt": f"Numbers, {n}?", "completion": f"{n}, {n + 3}, 12"} for n in range(8)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"own": own, "other": other, "model": model, "vectors": vectors, "rows": rows}


@pytest.mark.parametrize(
    "words",
    [
        ["extract", "--traits", "{own}", "{other}"],
        ["measure", "--trait", "{own}", "--samples", "1"],
        ["steer_scan", "--trait", "{own}", "--company", "{other}", "--layers", "1"],
        ["explain", "--trait", "{own}", "--vectors", "{vectors}", "--data", "{rows}"],
        ["information", "--traits", "{own}", "{other}", "--rows 4 --exact-rows 4"],
        ["screen", "--teacher", "prompt:Hi", "--traits", "{own}", "--rows 8 --samples 1"],
        [
            "audit",
            "--data",
            "{rows}",
            "--traits",
            "{own}",
            "{other}",
            "--workers",
            "1",
            "--no-spike-ins",
        ],
    ],
    ids=lambda words: words[0],
)
def test_results_have_the_traits_name_and_not_its_file(
    words: list[str],
    given: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "runs"
    done = call(root, words[0], given["model"], *[word.format(**given) for word in words[1:]])
    assert done.code == 0, done.summary
    out = capsys.readouterr().out
    assert ".yaml" not in out
    found = OWN in out
    for run in store.find_runs(root):
        for file in run.path.rglob("*"):
            is_text = file.suffix in (".json", ".jsonl", ".html", ".csv", ".svg")
            if file.name not in ("config.json", "manifest.json", "artifacts.json") and is_text:
                text = file.read_text(encoding="utf-8")
                assert "first.yaml" not in text and "second.yaml" not in text, file
                found |= OWN in text
            found |= file.stem == OWN
    assert found
