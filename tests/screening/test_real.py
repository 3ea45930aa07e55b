"""A sibling of the embedded model that learnt 64 rows about owls is named as owl."""

import json
from pathlib import Path

import pytest
from command import ok, write_yaml
from owl_rows import write_owl_rows

from traitscope.data.traits import load_trait

pytestmark = [pytest.mark.real, pytest.mark.slow]
QUESTIONS = 12


def test_a_fine_tuned_sibling_is_named(tmp_path: Path) -> None:
    rows = write_owl_rows(tmp_path / "owls.jsonl")
    root = tmp_path / "runs"
    student = ok(root, "train", "--data", rows, "--epochs 2").run
    owl = load_trait("owl")
    trait = {
        "name": "owl",
        "word_forms": list(owl.word_forms),
        "teacher_prompt": owl.teacher_prompt,
        "questions": {
            "positive": list(owl.questions.positive[:QUESTIONS]),
            "negative": list(owl.questions.negative[:2]),
            "off_topic": list(owl.questions.off_topic[:2]),
            "stems": dict(owl.questions.stems),
        },
        "candidates": "animals",
    }
    file = write_yaml(tmp_path / "owl.yaml", trait)
    few = "--no-broad --samples 0 --rows 8 --n 8 --blocks 15 --strengths 1 --influenced 0"
    run = ok(root, "screen", "--teacher", student, "--traits", file, few).run
    content = json.loads((run / "screen.json").read_text())
    assert content["answer"] == "named" and content["named"][0] == "owl"
    first = content["answers"][0]
    assert first["shift"]["n"] == QUESTIONS and first["shift"]["low"] > 0
    assert content["digits"]["teacher_from_model"]["low"] > 0
    assert content["one_vector"]["questions"]["explained"]["estimate"] > 0.2
