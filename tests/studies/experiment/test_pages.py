"""The worked example of the page, and the file that --example writes, run at a tiny size."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from command import CAT, OWL, ok, write_yaml

from traitscope import studies
from traitscope.data.package_files import bundled_file
from traitscope.plain_values import from_yaml
from traitscope.studies.experiment import arms
from traitscope.studies.experiment.reading import read_experiment

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "how-to/your-own-experiment.md").read_text(encoding="utf-8")
DOCUMENTED = (DOCS / "reference/json.md").read_text(encoding="utf-8")


@pytest.fixture
def traits(tmp_path: Path) -> dict[str, str]:
    """Files of traits with few questions, by name."""
    files = {}
    for each in (OWL, CAT):
        files[each["name"]] = str(write_yaml(tmp_path / f"{each['name']}.yaml", each))
    return files


def test_the_example_of_the_page(tmp_path: Path, tiny_folder: Path, traits: dict) -> None:
    """It says what the page says of it, and runs: on a tiny model, one seed and few rows."""
    block, other = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    soft = replace(read_experiment(from_yaml(other), "page"), layer=1)
    assert [arm.recipe.targets for arm in arms.treated_arms(soft)] == ["sampled", "soft"]
    shown = from_yaml(block)
    assert read_experiment(shown, "page").all_seeds == (1, 2, 3, 4, 5)
    assert "| `primary` |" in PAGE and "six claims" in PAGE and "35 students" in PAGE
    small = {
        "model": str(tiny_folder),
        "traits": [traits["owl"]],
        "company": [],
        "controls": [*shown["controls"][:2], {"other-trait": traits["cat"]}],
        "seeds": 1,
        "data": {"rows": 4, "numbers": 2, "matched_rows": 2},
        "measures": {"samples": 0, "perplexity": False, "sets": ["positive"]},
    }
    file = write_yaml(tmp_path / "page.yaml", shown | small)
    words = ("experiment", "plan", file, "--workers", "1")
    plan = ok(tmp_path / "runs", *words).summary
    assert len(plan["claims"]) == 6 and "expected effect is 0.4 nats" in plan["power"]
    assert any("1 of the 5 seeds" in sentence for sentence in plan["lacks"])
    trained = [name for name in plan["nodes"] if re.fullmatch(r".* student, seed \d", name)]
    assert len(trained) == 7 and plan["missing"] == len(plan["nodes"])
    assert not (tmp_path / "runs").exists()
    result = studies.run_file(file, root=tmp_path / "runs", workers=1, dtype="fp32")
    assert [verdict.primary for verdict in result.verdicts].index(True) == 1
    assert {verdict.outcome for verdict in result.verdicts} == {"no verdict"}
    assert "It has 1 of the 5 seeds that a verdict needs." in result.verdicts[0].reasons
    assert result.power == plan["power"] and result.bearing == ""
    for key in (*plan, *result.findings):
        assert f"`{key}`" in DOCUMENTED or f"`{key}" in DOCUMENTED, key


def test_the_example_file_is_planned(
    tmp_path: Path, tiny_folder: Path, traits: dict, capsys: pytest.CaptureFixture
) -> None:
    """With a trait of one's own in the place of cat, by its file."""
    text = bundled_file("experiment.yaml").read_text(encoding="utf-8")
    changes = {
        "model: smollm2-135m": f"model: {tiny_folder}",
        "traits: [cat]": f"traits: [{traits['cat']}]\ncompany: [{traits['owl']}]",
        "layer: 14": "layer: 1",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    plan = ok(tmp_path / "runs", "experiment", "plan", file).summary
    assert plan["claims"][1].endswith("than students of random like cat.")
    assert "1 stem (3)" in plan["lacks"][0] and "the power is" in plan["power"]
    assert plan["next"].startswith(f"traitscope experiment {file} ")
    hint = "a line for each stage: --all"
    assert hint in capsys.readouterr().out
    assert ok(tmp_path / "runs", "experiment", file, "plan", "--all").summary == plan
    every = capsys.readouterr().out
    assert hint not in every and every.count("waiting") > 10
