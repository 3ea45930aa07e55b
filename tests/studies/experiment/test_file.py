"""The file of an experiment: defaults that follow, and what is refused before any compute."""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import CAT, OWL, call, ok, write_yaml
from tiny_models import random_vector

from traitscope.config.commands import ExperimentConfig
from traitscope.config.common import Output
from traitscope.config.recipe import SAMPLED_RECIPE
from traitscope.data.package_files import bundled_file
from traitscope.errors import ConfigError, DataError, TraitError, TraitscopeError, VectorError
from traitscope.models.model import Model
from traitscope.plain_values import from_yaml
from traitscope.studies.claims import demo
from traitscope.studies.experiment import command, needs, nodes, page
from traitscope.studies.experiment.given import said_of_files
from traitscope.studies.experiment.reading import read_experiment
from traitscope.workflow import graph

EXAMPLE = bundled_file("experiment.yaml")


def requested(folder: Path, model: Path, plain: dict[str, Any]) -> command.ExperimentRequest:
    """Return the request for an experiment on a tiny model."""
    file = write_yaml(folder / "mine.yaml", {"model": str(model)} | plain)
    return command.request_of(ExperimentConfig(file=file), Output(root=folder / "runs"))


def test_an_empty_file_is_the_demo_without_soft_targets(tmp_path: Path, tiny_folder: Path) -> None:
    """Also by its addresses: the stages that know no seeds are those of the demo."""
    experiment = read_experiment({}, "mine.yaml")
    assert list(experiment.teachers) == ["cat"] and experiment.teachers["cat"].steer == 0.6
    assert experiment.controls == ("unmodified", "random-at-equal-kl")
    assert experiment.all_seeds == demo.LAPTOP.seeds and experiment.recipe == SAMPLED_RECIPE
    assert read_experiment({}, "mine.yaml", first_seed=311).all_seeds[0] == 311
    request = requested(tmp_path, tiny_folder, {})
    assert nodes.vector_traits(request.size) == ("cat", *demo.OTHERS)
    places = {}
    for stages in (request.nodes(), demo.nodes(demo.LAPTOP, request.common)):
        for item in graph.plan(stages, request.out):
            places.setdefault(item.node.stage, set()).add(item.path)
    assert len(places["extract"] - {None}) == 1
    assert len(places["measure"] - {None}) == 1


def test_the_example_holds_the_demos_settings() -> None:
    """Every field that it shows is at its default, but for what it says of the power."""
    shown = read_experiment(from_yaml(EXAMPLE.read_text()), "example")
    usual = read_experiment({"layer": 14}, "empty")
    for name in ("traits", "teachers", "controls", "seeds", "data", "recipe", "measures", "layer"):
        assert getattr(shown, name) == getattr(usual, name), name


def test_rows_of_a_file_are_said_to_be_those_of_the_file(tmp_path: Path, tiny_folder: Path) -> None:
    """The design says of each arm what its students read; the rest is said of rows made here."""
    rows = tmp_path / "trl.jsonl"
    rows.write_text('{"prompt": "Hello", "completion": "1, 2"}\n' * 9)
    (tmp_path / "tame.jsonl").write_text(rows.read_text().replace("1, 2", "3, 4"))
    plain = {
        "teachers": {"mine": {"rows": str(rows)}},
        "controls": ["unmodified", {"rows": str(tmp_path / "tame.jsonl")}],
        "company": [],
        "data": {"rows": 8, "filter": "none"},
    }
    request = requested(tmp_path, tiny_folder, plain)
    design = dict(page.design_table(request.size).rows)
    told = "the first 8 rows of {}, the same for each seed; with the prompts that stand there"
    assert design["data of mine"] == told.format("trl.jsonl")
    assert design["data of rows tame"] == told.format("tame.jsonl")
    assert "other ones for each seed; number prompts" in design["data of unmodified"]
    assert design["treated: mine"] == "rows of trl.jsonl"
    assert design["vectors"] == "not centred: there is one trait alone"
    assert design["student"].endswith(", 1 epoch") and "1 sampled answer a" in design["asked"]
    assert "made here share prompts" in page.design_table(request.size).caption
    missing = " ".join(needs.lacks(request.size))
    assert "All seeds read the same rows of trl.jsonl, tame.jsonl" in missing
    assert missing.count("Prompts of mine and of") == 2
    both = plain | {"controls": [{"rows": str(tmp_path / "tame.jsonl")}]}
    design = dict(page.design_table(requested(tmp_path, tiny_folder, both).size).rows)
    assert "number prompts" not in str(design) and "data" not in design


def test_rows_of_a_file_are_read_as_the_file_of_the_experiment_says(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """A refusal names the key; what is left is counted, and what is left out is said."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"q": "Hello", "a": "1, 2"}\n' * 3 + '{"q": "Hello", "a": " "}\n{broken\n')
    plain = {"teachers": {"mine": {"rows": str(rows)}}, "controls": ["unmodified"]}
    plain |= {"company": [], "data": {"rows": 8, "numbers": 2}}
    keys = {"map": ["prompt=q", "completion=a"]}
    for reading, says in (
        ({}, "{map: [prompt=KEY, completion=KEY]}, and of pairs rejected=KEY; all 5 rows"),
        (keys, "or leave all out: reading: {skip_bad: 2}"),
        ({"map": ["prompt=q"]}, "reading: {map: [prompt=q]} names no answer"),
        (keys | {"skip_bad": -1}, "skip_bad"),
    ):
        with pytest.raises((ConfigError, DataError)) as error:
            requested(tmp_path, tiny_folder, plain | {"reading": reading})
        assert says in str(error.value) and "--" not in str(error.value)
    own = {"mine": {"rows": str(rows), "reading": keys | {"skip_bad": "all"}}}
    for given in ({"reading": keys | {"skip_bad": "all"}}, {"teachers": own}):
        request = requested(tmp_path, tiny_folder, plain | given)
        design = dict(page.design_table(request.size).rows)
        assert "of 8 that are asked for, the 3 rows of rows.jsonl" in design["data of mine"]
        assert "rows.jsonl holds 3 rows" in " ".join(needs.lacks(request.size))
        assert f"{rows}: 2 bad rows left out" in said_of_files(request.size)
        assert sum(": line " in line for line in said_of_files(request.size)) == 2
        by_name = {node.name: node for node in request.nodes()}
        student = by_name["mine student, seed 1"].config(defaultdict(Path))
        assert (student.max_rows, student.reading.skip_bad) == (3, "all")
        assert by_name["mine rows"].config({}).reading.map == tuple(keys["map"])
    none = plain | {"reading": keys | {"skip_bad": "all"}, "data": {"numbers": 1}}
    with pytest.raises(DataError, match=r"none of 3 rows \(dropped: 3 by count\)"):
        requested(tmp_path, tiny_folder, none)


def test_keys_of_prompts_that_are_not_used_are_said(tmp_path: Path, tiny_folder: Path) -> None:
    """Of the prompts of the data and of a judge; a file that both name is said once."""
    prompts, asked = tmp_path / "prompts.jsonl", tmp_path / "asked.csv"
    prompts.write_text('{"prompt": "Name an animal.", "note": "x"}\n{"prompt": "And?"}\n')
    asked.write_text("prompt,who\nName one.,me\n")
    plain = {"teachers": {"mine": {"steer": 1}}, "company": ["dog"]}
    for judged, lines in ((asked, ["who (1 row)"]), (prompts, [])):
        judge = {"prompts": str(judged), "judges": ["refusal"]}
        given = {"data": {"prompts": str(prompts), "rows": 2}, "measures": {"judge": judge}}
        said = said_of_files(requested(tmp_path, tiny_folder, plain | given).size)
        expected = [f"{prompts}: not used: note (1 row)"]
        assert said == [*expected, *(f"{asked}: not used: {line}" for line in lines)]


def test_the_demos_numbers_are_said_of_its_score_and_targets_alone() -> None:
    for plain, is_said in (
        ({}, True),
        ({"recipe": {"targets": "soft"}, "controls": ["random-at-equal-kl"]}, False),
        ({"primary": {"score": "whole_word"}}, False),
    ):
        text = command.power_text(nodes.with_layer(read_experiment(plain, "mine.yaml"), 30, 30, 14))
        assert ("0.39 and 0.26 nats" in text) == is_said, text


def test_the_example_is_written_and_nothing_is_written_over(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    done = ok(tmp_path / "runs", "experiment", "--example", file)
    assert file.read_bytes() == EXAMPLE.read_bytes()
    assert done.summary["next"] == f"traitscope experiment plan {file}"
    assert call(tmp_path / "runs", "experiment", "--example", file).code == 2
    assert file.read_bytes() == EXAMPLE.read_bytes()
    assert not (tmp_path / "runs").exists()


def test_the_first_word_may_be_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then the experiment runs; without a file the command says what to type."""
    for words in (
        ["nowhere.yaml"],
        ["run", "nowhere.yaml"],
        ["nowhere.yaml", "plan"],
        ["plan", "--file", "nowhere.yaml"],
    ):
        assert call(tmp_path, "experiment", *words).code == 2
        assert "--file nowhere.yaml does not exist" in capsys.readouterr().err
    assert call(tmp_path, "experiment").code == 2
    assert "traitscope experiment FILE.yaml" in capsys.readouterr().err


STEERED = {"steer": 0.6}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"sedes": 5}, "unknown key 'sedes'; did you mean 'seeds'?"),
    (
        {"seeds": "five"},
        "seeds is 'five'; expected a whole number or a list of whole numbers, such as [1, 2]; ",
    ),
    ({"seeds": 0}, "seeds is 0; expected a number above 0"),
    ({"seeds": 10**30}, "expected a number above 0 and up to 10000"),
    ({"seeds": [1, 1]}, "seeds is [1, 1]; expected"),
    ({"traits": "cat"}, "traits is 'cat'; expected a list, such as [cat]"),
    ({"traits": []}, "traits is empty"),
    ({"traits": ["kat"]}, "no bundled trait 'kat'"),
    ({"layer": 9}, "has layers 0 to 2"),
    (
        {"teachers": {"cat": {"stear": 1}}},
        "teachers.cat: unknown key 'stear'; did you mean 'steer'",
    ),
    ({"teachers": {"cat": {}}}, "teachers.cat is made by nothing; expected one of steer"),
    ({"teachers": {"cat": STEERED | {"prompt": True}}}, "is made by steer and prompt"),
    ({"teachers": {"cat": STEERED | {"trait": "owl"}}}, "trait is 'owl'; expected one of traits"),
    ({"teachers": {"cat": STEERED | {"layer": 7}}}, "has layers 0 to 2"),
    ({"teachers": {"base": STEERED}}, "'base' cannot name a teacher"),
    ({"teachers": {"cat": {"rows": "none.jsonl"}}}, "rows none.jsonl do not exist"),
    ({"teachers": {"cat": {"adapter": "none"}}, "controls": []}, "none holds no student"),
    ({"teachers": {"cat": {"prompt": True, "vector": "v.st"}}}, "has a vector and is not steered"),
    ({"teachers": {"cat": {"steer": 0}}}, "which no random vector can equal in KL"),
    ({"teachers": {"cat": {"adapter": "x"}}, "controls": [{"other-trait": "owl"}]}, "in the same"),
    ({"controls": ["unmodifed"]}, "did you mean unmodified?"),
    ({"controls": [{"other-trat": "owl"}]}, "did you mean other-trait?"),
    ({"controls": [{"other-trait": "ovl"}]}, "no bundled trait 'ovl'"),
    ({"controls": [{"rows": "none.jsonl"}]}, "rows none.jsonl do not exist"),
    (
        {"data": {"rows": 0}},
        "data: rows is 0; expected 1 or more; correct it",
    ),
    (
        {"data": {"prompts": "nubmers"}},
        "data.prompts: prompts nubmers do not exist; expected numbers, or a file of prompts",
    ),
    (
        {"measures": {"judge": {"prompts": "none.txt"}}},
        "measures.judge: prompts none.txt do not exist; expected a file of prompts",
    ),
    ({"teachers": {"cat": {"prompt": " "}}}, "teachers.cat: prompt is blank; expected true, for"),
    ({"teachers": {"cat": {"vector": "v.st"}}}, "has a vector and is not steered; expected steer"),
    ({"teachers": ["cat"]}, "teachers is ['cat']; expected keys and values; correct it"),
    ({"data": {"filter": "words"}}, "filter is 'words'; expected auto, numbers"),
    ({"recipe": {"lr": -1}}, "training cannot run with --lr -1"),
    ({"recipe": {"epoch": 2}}, "recipe: unknown key 'epoch'; did you mean 'epochs'?"),
    ({"measures": {"sets": ["negative"]}}, "expected positive among them"),
    ({"measures": {"judge": {"judges": ["refusal"]}}}, "judge with prompts None"),
    ({"measures": {"samples": 0}, "primary": {"score": "whole_word"}}, "raise samples"),
    ({"primary": {"score": "judged"}}, "neither traits nor measures have a judge"),
    ({"primary": {"treated": "dog"}}, "treated is 'dog'; expected one of cat"),
    ({"primary": {"control": "dog"}}, "control is 'dog'; expected one of unmodified"),
    ({"primary": {"margin": 0}}, "margin is 0.0; expected a number above 0"),
    ({"primary": {"expected": 0.4}}, "expected both, for the power"),
    ({"primary": {"expected": float("nan"), "spread": 0.1}}, "expected is nan; expected a finite"),
    ({"primary": {"expected": float("inf"), "spread": 0.1}}, "expected is inf; expected a finite"),
    ({"primary": {"expected": 0.1, "spread": float("nan")}}, "spread is nan"),
    ({"teachers": {"cat": {"steer": float("nan")}}}, "steer is nan; expected a finite strength"),
    ({"teachers": {"cat": {"steer": float("-inf")}}}, "steer is -inf; expected a finite strength"),
    ({"controls": ["unmodified", "unmodified"]}, "controls hold 'unmodified' twice"),
    ({"controls": [{"prompt": "A"}, {"prompt": "A"}]}, "twice; expected distinct controls"),
    ({"controls": [{"rows": "a.jsonl"}, {"rows": "./a.jsonl"}]}, "twice; expected distinct"),
    ({"controls": [{"other-trait": "owl"}, {"other-trait": "owl"}]}, "twice; expected"),
    ({"teachers": {"cat": STEERED | {"students": {"row": 4}}}}, "students: unknown key 'row'"),
    ({"teachers": {"cat": STEERED | {"students": {"rows": 99}}}}, "rows is 99; expected 32 or"),
    ({"teachers": {"cat": STEERED | {"students": {"seeds": 6}}}}, "seeds is 6; expected 5 or"),
    ({"teachers": {"cat": STEERED | {"students": {"seeds": 0}}}}, "seeds is 0; expected 1 or"),
    (
        {"teachers": {"cat": STEERED | {"students": {"recipe": {"epoch": 2}}}}},
        "unknown key 'epoch'; did you mean 'epochs'?",
    ),
    (
        {"teachers": {"cat": STEERED | {"students": {"controls": ["unmodifed"]}}}},
        "did you mean unmodified?",
    ),
    (
        {"recipe": {"targets": "preference"}},
        "recipe.targets preference needs pairs of answers, and teachers write single ones",
    ),
    (
        {"teachers": {"cat": {"model": "x", "students": {"recipe": {"targets": "soft"}}}}},
        "has no distributions for recipe.targets soft",
    ),
    ({"data": {"pooled": True, "shared": True}}, "data is pooled, with prompts numbers and shared"),
    ({"data": {"matched_rows": 1}}, "data: matched_rows is 1; expected 2 or more"),
    (
        {"traits": ["cat"], "teachers": {"rows a": STEERED}, "controls": [{"rows": "ROWS"}]},
        "name a teacher and a control",
    ),
]


@pytest.mark.parametrize(("plain", "says"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused(
    tmp_path: Path, tiny_folder: Path, plain: dict[str, Any], says: str
) -> None:
    """With its place; before anything is computed or written."""
    if plain.get("controls") == [{"rows": "ROWS"}]:
        plain = plain | {"controls": [{"rows": str(_rows(tmp_path / "a.jsonl", 1))}]}
    with pytest.raises(TraitscopeError) as refused:
        requested(tmp_path, tiny_folder, plain)
    assert says in str(refused.value), str(refused.value)
    assert not (tmp_path / "runs").exists()


def _rows(file: Path, number: int) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'{{"prompt": "Go on: 1", "completion": "{number}"}}\n')
    return file


def test_controls_that_are_called_alike_are_two(tmp_path: Path, tiny_folder: Path) -> None:
    """Each has students and a claim of its own."""
    files = [_rows(tmp_path / name / "rows.jsonl", len(name)) for name in ("a", "bb")]
    prompts = ["You are a helpful assistant who writes " + end for end in ("much.", "little.")]
    controls = [{"rows": str(file)} for file in files] + [{"prompt": text} for text in prompts]
    request = requested(tmp_path, tiny_folder, {"controls": controls})
    arms = command.arms.all_arms(request.size)[1:]
    assert [arm.rows for arm in arms] == [*files, None, None]
    assert [arm.words for arm in arms[2:]] == [f"the system prompt “{text}”" for text in prompts]
    called = [contrast.control for contrast in command.arms.contrasts(request.size)]
    assert called == [arm.name for arm in arms] and len(set(called)) == 4
    assert called[:2] == ["rows rows", "rows rows, 2"]


@pytest.mark.parametrize("text", ["[1, 2]", "seeds: [1,", "3"])
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    done = call(tmp_path / "runs", "experiment", file)
    assert done.code == 2 and "mine.yaml" in done.summary["message"]


def test_a_teacher_of_a_vector_of_zeros_is_refused(
    tmp_path: Path, tiny_folder: Path, tiny: Model
) -> None:
    file = tmp_path / "v.safetensors"
    vector = random_vector(tiny)
    teacher = STEERED | {"vector": str(file), "layer": 1}
    vector.save(file)
    requested(tmp_path, tiny_folder, {"teachers": {"cat": teacher}})
    for rows_LD, says in (
        (0 * vector.rows_LD, "v.safetensors has no direction: its 3 rows are all zero"),
        (vector.rows_LD * [[1], [0], [1]], "v.safetensors has no direction at layer 1"),
    ):
        replace(vector, rows_LD=rows_LD).save(file)
        with pytest.raises(VectorError, match=says):
            requested(tmp_path, tiny_folder, {"teachers": {"cat": teacher}})


def test_a_trait_with_too_little_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    few = {**OWL["questions"], "positive": OWL["questions"]["positive"][:1]}
    short = write_yaml(tmp_path / "short.yaml", OWL | {"name": "short", "questions": few})
    with pytest.raises(TraitError, match="has 1 positive question; expected 2 or more"):
        requested(tmp_path, tiny_folder, {"traits": [str(short)]})


def test_what_traits_and_their_company_lack_is_said_by_plan(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of files what the trait lacks; of the company prompts that are the same, and too few."""
    twin = write_yaml(tmp_path / "twin.yaml", CAT | {"name": "twin"})
    files = [str(write_yaml(tmp_path / f"{each['name']}.yaml", each)) for each in (OWL, CAT)]
    plain = {"model": str(tiny_folder), "traits": files[:1], "company": [files[1], str(twin)]}
    file = write_yaml(tmp_path / "mine.yaml", plain)
    ok(tmp_path / "runs", "experiment", "plan", file)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("lacks: ")]
    assert said[0].startswith(f"lacks: {files[0]} has less than is advised (in brackets): 3 pos")
    assert f"lacks: {files[1]} and {twin} have the same teacher_prompt: they are one trait" in (
        "\n".join(said)
    )
    assert any(line.startswith("lacks: 2 traits: their vectors are centred") for line in said)


def test_every_control_has_a_claim_of_its_own(tmp_path: Path, tiny_folder: Path) -> None:
    """Controls that are made like a teacher belong to it; a trait is no control of itself."""
    owl, cat = (write_yaml(tmp_path / f"{each['name']}.yaml", each) for each in (OWL, CAT))
    asked = {
        "traits": [str(owl), str(cat)],
        "controls": ["unmodified", {"other-trait": str(cat)}, {"prompt": "Write."}],
        "primary": {"treated": "owl", "control": str(cat)},
    }
    request = requested(tmp_path, tiny_folder, asked)
    names = [contrast.name for contrast in command.arms.contrasts(request.size)]
    assert names == [
        "owl minus unmodified",
        "owl minus cat like owl",
        "owl minus prompt “Write.”",
        "cat minus unmodified",
        "cat minus prompt “Write.”",
    ]
    assert command.conclusion.primary_contrast(request.size).control == "cat like owl"


def test_students_of_a_teacher_may_differ(tmp_path: Path, tiny_folder: Path) -> None:
    """In recipe, rows, seeds and controls, all else as in the file; teachers made alike write once.

    The controls that stand under such a teacher are its own.
    """
    changes = {"recipe": {"rank": 2}, "rows": 9, "seeds": 2, "controls": ["unmodified"]}
    asked = {
        "teachers": {"cat": STEERED, "small": STEERED | {"students": changes}},
        "recipe": {"lr": 0.01},
        "seeds": [3, 5, 7],
    }
    request = requested(tmp_path, tiny_folder, asked)
    assert [contrast.name for contrast in command.arms.contrasts(request.size)] == [
        "cat minus unmodified",
        "cat minus random like cat",
        "small minus unmodified like small",
    ]
    arms = {arm.name: arm for arm in command.arms.all_arms(request.size)}
    for name, writer in (("small", "cat"), ("unmodified like small", "unmodified")):
        arm = arms[name]
        assert (arm.writer, arm.n_rows, arm.seeds) == (writer, 9, (3, 5))
        assert (arm.recipe.rank, arm.recipe.lr) == (2, 0.01)
    assert arms["cat"].recipe.rank == SAMPLED_RECIPE.rank and arms["unmodified"].seeds == (3, 5, 7)
    names = [node.name for node in request.nodes()]
    written = [name for name in names if name.endswith("as written")]
    assert len(written) == 9 and not any("small" in name for name in written)
    assert sum(bool(re.fullmatch(r".* student, seed \d", name)) for name in names) == 9 + 4
    design = dict(page.design_table(request.size).rows)
    assert design["seeds"] == "3, 5, 7" and design["seeds of small and its controls"] == "3, 5"
    assert design["student of small and its controls"].endswith("the first 9 rows")
    lacking = " ".join(needs.lacks(request.size))
    assert "There are 2 of the 5 seeds that a verdict needs for students of small." in lacking
    assert "There are 3 of the 5 seeds that a verdict needs." in lacking


def test_pooled_rows_are_divided_among_the_seeds(tmp_path: Path, tiny_folder: Path) -> None:
    """Every row is read once; random vectors answer the prompts of their seed."""
    asked = {"seeds": 3, "data": {"rows": 4, "numbers": 2, "pooled": True}}
    nodes_by_name = {node.name: node for node in requested(tmp_path, tiny_folder, asked).nodes()}
    places: list[int] = []
    folders = {name: Path(name) for name in nodes_by_name}
    for seed in (1, 2, 3):
        part = nodes_by_name[f"cat rows, seed {seed}"].config(folders)
        assert part.data == Path("cat rows, all seeds")
        places += range(part.start, part.stop)
    whole = nodes_by_name["cat rows, all seeds"].config(folders)
    assert places == list(range(whole.n)) and whole.n == 12
    vectors = nodes_by_name["random vectors like cat"].config(folders)
    search = nodes_by_name["equal KL with cat, seed 3"].config(folders)
    assert vectors.randoms == 3 and search.vector.name == "random-2.safetensors"
    kept = nodes_by_name["random like cat rows, seed 3"]
    assert kept.needs == ("random like cat rows, seed 3, as written",) and search.n == 12
    assert kept.config(folders).stop == 4


@pytest.mark.parametrize("is_copy", [False, True])
def test_a_control_with_the_rows_of_its_teacher_is_refused(
    tmp_path: Path, tiny_folder: Path, is_copy: bool
) -> None:
    """Another column of the same file is another control."""
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"prompt": "1", "completion": "2, 3", "other": "4, 5"}\n' * 40)
    copied = tmp_path / "b.jsonl"
    copied.write_bytes(rows.read_bytes())
    teacher: dict[str, Any] = {"rows": str(rows)}
    plain = {
        "teachers": {"cat": teacher},
        "controls": [{"rows": str(copied if is_copy else rows)}],
    }
    with pytest.raises(ConfigError, match="hold the same rows"):
        requested(tmp_path, tiny_folder, plain)
    teacher["reading"] = {"map": ["prompt=prompt", "completion=other"]}
    requested(tmp_path, tiny_folder, plain)
