"""Damaged experiment files, judges, tasks, question sets and cards, and commands that read them.

Readers of the fuzz test: each makes an input from a generator of random numbers, and reads it. The
place has the model and good inputs, and writes files.
"""

import json
import random
from typing import Any

import mutations
import yaml
from command import CAT, OWL, QUESTIONS, call

from traitscope.data import answer_rules, row_files
from traitscope.data.domains import final_answers, python_answers
from traitscope.data.domains.task import META, task_in
from traitscope.data.hub.splits import splits_of
from traitscope.data.prompt_files import read_prompts
from traitscope.data.records import Record
from traitscope.data.traits import load_trait
from traitscope.models.templates.facts import switches_of
from traitscope.stages.domains.filtering import task_reasons
from traitscope.stages.judge import judge
from traitscope.studies.experiment.reading import read_experiment

EXPERIMENT = {
    "name": "mine",
    "traits": ["cat"],
    "company": ["owl", "dog"],
    "teachers": {"cat": {"steer": 0.6, "layer": 1, "students": {"rows": 4, "seeds": 1}}},
    "controls": ["unmodified", "random-at-equal-kl", {"other-trait": "owl"}],
    "seeds": [1, 2],
    "layer": 1,
    "data": {"rows": 8, "numbers": 3, "temperature": 0.5, "filter": "numbers"},
    "recipe": {"lr": 1e-3, "rank": 2},
    "measures": {"samples": 2},
    "primary": {"score": "target_logprob"},
}
PAIRS = [
    {"prompt": f"Which, {n}?", "chosen": f"{n}, 7", "rejected": f"{n}, 8", "id": f"p{n}"}
    for n in range(3)
]
JUDGES = (
    "refusal",
    "not:question",
    "short:12",
    "words:cat|cats",
    "code:no-comments",
    "parses",
    "answer",
    "format",
    r"format:(<a>)?\d{1,3}(, \d+)*",
)
ANSWERS = (
    "<think>3 + 4</think><answer>7</answer>",
    "```python\ndef f(x):\n    return 2 * x  # it\n```",
    "The answer is 1,200.",
    r"\boxed{7} #### 8",
)
TASKS: tuple[dict[str, Any], ...] = (
    {"id": "a", "domain": "sums", "answer": "7"},
    {"id": "b", "domain": "code", "checks": ["assert f(2) == 4"]},
)
CARD = """configs:
- config_name: owls
  default: true
  data_files:
  - split: train
    path: [owls/*.jsonl]
- config_name: cats
  data_dir: cats
date: 2024-01-01
"""
ASKED = (
    '{"id": "a", "prompt": "Double it.", "checks": ["assert f(2) == 4"], "answer": "7"}\n'
    '{"id": "b", "messages": [{"role": "user", "content": "Why?"}], "system": "Be kind."}\n'
)


def read_experiment_file(place: Any, rng: random.Random) -> None:
    plain = mutations.value_of(EXPERIMENT, rng)
    read_experiment(plain, "mine.yaml")


def read_judges(place: Any, rng: random.Random) -> None:
    """A damaged judge about good answers, or a good one about damaged answers."""
    name, text = rng.choice(JUDGES), rng.choice(ANSWERS)
    if rng.random() < 0.6:
        name = mutations.text_of(name, rng)
    else:
        text = mutations.text_of(text, rng)
    task = task_in({META: mutations.value_of(rng.choice(TASKS), rng)})
    meta = {} if task is None else {META: task.as_dict()}
    record = Record("a", "Do it.", text or "-", meta=meta)
    if answer_rules.parse(name)[0] not in answer_rules.ASKED:
        judge([record], name)
    final_answers.answer_reasons(text, "7")
    python_answers.code_reasons(text, comments=False)


def read_question_set(place: Any, rng: random.Random) -> None:
    """Questions and judges of a behaviour, and prompts with what is checked of their answers."""
    if rng.random() < 0.5:
        read_prompts(place.write("tasks.jsonl", mutations.text_of(ASKED, rng)))
        return
    behaviour = {name: OWL[name] for name in ("name", "teacher_prompt")}
    behaviour |= {"judges": list(JUDGES[:4]), "judge_question": "Does it praise?"}
    questions = rng.choice((QUESTIONS, "free", "animals"))
    text = mutations.json_of({**behaviour, "questions": questions}, rng)
    load_trait(place.write("behaviour.yaml", text), words=False)


def read_card(place: Any, rng: random.Random) -> None:
    front = mutations.text_of(CARD, rng)
    if rng.random() < 0.5:
        front = yaml.safe_dump(mutations.value_of(yaml.safe_load(CARD)["configs"], rng))
        front = f"configs:\n{front}"
    files = ["owls/a.jsonl", "cats/train.csv", "README.md"]
    splits_of(f"---\n{front}\n---\n", files, rng.choice((None, "owls")), "org/numbers")


def read_switch(place: Any, rng: random.Random) -> None:
    switches_of([mutations.text_of('enable_thinking={"a": [1, null]}', rng)])


def run_newer_command(place: Any, rng: random.Random) -> None:
    """A command on a damaged file: one of the promised exit codes, and never the code 3."""
    damaged = [mutations.json_of(row, rng) for row in PAIRS]
    pairs = str(place.write("pairs.jsonl", "\n".join(damaged)))
    trait = str(place.write("trait.yaml", mutations.json_of(OWL, rng)))
    cat = str(place.write("cat.yaml", json.dumps(CAT)))
    experiment = str(place.write("mine.yaml", mutations.json_of(EXPERIMENT, rng)))
    config = (place.adapter / "adapter_config.json").read_text()
    student = place.write("student/adapter_config.json", mutations.text_of(config, rng)).parent
    vector = place.vector.read_bytes()
    vector_file = str(place.write("w.safetensors", mutations.bytes_of(vector, rng)))
    model, steer = ("--model", place.model_folder), f"steer:{place.vector},layer=1,alpha=0.5"
    made = place.folder / "made.npz"
    made.unlink(missing_ok=True)
    words = rng.choice(
        (
            ("select", *model, "--data", pairs, "--interventions", steer, "--keep 0.5"),
            ("train", *model, "--data", pairs, "--targets preference --rank 2 --epochs 1"),
            ("defend", *model, "--data", pairs, "--by deduplicate"),
            ("edit", "--data", pairs),
            ("filter", "--data", pairs, "--no-numbers --answer"),
            ("verify", "--plan", *model, "--students", student, "--traits", trait, cat),
            ("convert", vector_file, made, *model, "--to numpy"),
            ("compare", "--treated", place.run, "--control", student),
            ("experiment", "plan", experiment, *model),
            ("steer_scan", *model, "--trait", trait, "--company", cat, "--layers 1 --alphas 0.5"),
            ("measure", *model, "--trait", trait, "--samples 0"),
            ("export_tasks", place.folder / f"t{rng.random()}", "--traits", trait, cat),
            ("audit", pairs, *model, "--plan", "--traits", trait, cat),
        )
    )
    done = call(place.folder / "newer", *words)
    assert done.code in (0, 1, 2), (words, done)
    assert done.code != 2 or done.summary.get("status", "error") == "error"


def read_pairs(place: Any, rng: random.Random) -> None:
    """Rows of preference data, and what rules of tasks say of them."""
    from traitscope.config.rows.filtering import FilterRules

    lines = [mutations.json_of(row, rng) for row in PAIRS]
    rules = FilterRules(code=True, answer=True, format="think")
    for record in row_files.rows_of(place.write("pairs.jsonl", "\n".join(lines))):
        task_reasons(record, record.completion, rules)


READERS = (
    (read_experiment_file, 2),
    (read_judges, 2),
    (read_question_set, 2),
    (read_card, 1),
    (read_switch, 1),
    (read_pairs, 1),
    (run_newer_command, 1),
)
"readers, and how often each has its turn"
