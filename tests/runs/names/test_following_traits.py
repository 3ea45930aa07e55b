"""What comes after a run is about the trait that the run was made for."""

import shlex
from pathlib import Path

import pytest
from command import CAT, OWL, ok, write_yaml

from traitscope.runs.names import following
from traitscope.runs.store import load_run


def test_a_trait_of_a_file_is_followed_through_the_chain(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several the one that was named first, and not the first of the alphabet."""
    owl, cat = [str(write_yaml(tmp_path / f"my {each['name']}.yaml", each)) for each in (OWL, CAT)]
    model = f"--model {tiny_folder}"
    vectors = ok(tmp_path, "extract", model, "--traits", owl, cat, "fox", "dog").run
    assert "/owl.safetensors,layers=" in capsys.readouterr().err.splitlines()[-1]
    assert following.vector_of(load_run(vectors)) == vectors / "owl.safetensors"
    assert following.trait_of(vectors / "fox.safetensors") == "fox"
    assert following.trait_of(tmp_path / "fox.safetensors") == ""
    vector = vectors / "owl.safetensors"
    teacher = ("--interventions", f"steer:{vector},layers=1,alpha=0.5")
    few = "--n 8 --count 3 --vocabulary template"
    rows = ok(tmp_path, "generate", model, few, *teacher).run
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "has its trait:" in each]
    said = shlex.split(line.partition(": ")[2])
    assert Path(said[said.index("--trait") + 1]).samefile(owl)
    ok(tmp_path, "train", model, "--epochs 1 --vector", vector, "--data", rows)
    said = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert said[1:3] == ["traitscope", "measure"]
    assert Path(said[said.index("--trait") + 1]).samefile(owl)
    Path(owl).unlink()
    assert following.trait_of(vector) == ""
