"""The command `export_tasks`: traits as tasks of Inspect or of lm-evaluation-harness.

The folder needs nothing of this package. Its scorers are copies of this package's own
(data/own_traits/word_scores.py, data/number_lists.py).

    NAME.jsonl          the questions of a trait, with their set, stem and words
    student.jsonl       everyday requests, for a finished student
    traitscope_tasks.py the tasks of Inspect
    utils.py, *.yaml    the tasks of lm-evaluation-harness
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from traitscope import atomic_files
from traitscope.config.commands import ExportTasksConfig
from traitscope.config.common import Output
from traitscope.data import number_lists, traits
from traitscope.data.own_traits import word_scores
from traitscope.data.package_files import bundled_file
from traitscope.data.trait_files import trait_files, trait_names
from traitscope.data.traits import SETS, Trait
from traitscope.errors import ConfigError, TraitError
from traitscope.inference.question_scores import questions_of
from traitscope.plurals import counted
from traitscope.runs import manifests

STUDENT = "student"
"name of the task that a finished student is asked"
INSPECT_FILE, UTILS = "traitscope_tasks.py", "utils.py"
PREFIX = "traitscope"
"how the names of lm-evaluation-harness's tasks begin"


class _Function(str):
    """A function of utils.py in a YAML file."""


yaml.SafeDumper.add_representer(
    _Function, lambda dumper, name: dumper.represent_scalar("!function", f"utils.{name}")
)


def run_export_tasks(config: ExportTasksConfig, out: Output) -> dict:
    """Write the folder of tasks, and say how one runs them.

    Raises ConfigError for a folder that holds something, TraitError for a trait called `student`.
    """
    folder = Path(str(config.target))
    names = trait_names(config.traits)
    trait_files(names)
    loaded = [traits.load_trait(name) for name in names]
    files = files_of(loaded, config)
    _check_empty(folder, files)
    for name, text in files.items():
        atomic_files.write_text(folder / name, text)
    return _said(loaded, config, folder)


def _check_empty(folder: Path, files: Mapping[str, str]) -> None:
    """Raise ConfigError for a folder that holds anything but some of these files.

    A command that was stopped leaves such files, and the same command goes on. What it had not
    finished is deleted.
    """
    is_ours = folder.is_dir() or not folder.exists()
    unfinished = []
    for path in folder.rglob("*") if folder.is_dir() else ():
        if manifests.TEMPORARY.fullmatch(path.name):
            unfinished.append(path)
        elif path.is_file():
            name = path.relative_to(folder).as_posix()
            is_ours = is_ours and files.get(name, "").encode() == path.read_bytes()
    if not is_ours:
        raise ConfigError(
            f"{folder} holds something already; expected a new or empty folder, because nothing is"
            " written over; name another one"
        )
    for path in unfinished:
        path.unlink()


def files_of(loaded: Sequence[Trait], config: ExportTasksConfig) -> dict[str, str]:
    """Return the content of every file of the folder, by its name."""
    files = {}
    for trait in loaded:
        if trait.name == STUDENT:
            raise TraitError(
                f"a trait is called {STUDENT!r}, as the task of finished students is; expected"
                " another name; rename the trait"
            )
        files[f"{trait.name}.jsonl"] = _lines(battery(trait))
    files[f"{STUDENT}.jsonl"] = _lines(requests())
    if config.to == "inspect":
        return files | {INSPECT_FILE: _inspect_file(loaded[0].name, config)}
    for trait in loaded:
        files |= _lm_eval_tasks(trait, config)
    plain = bundled_file("plain.txt").read_text(encoding="utf-8").split("\n\n")
    files["plain.jsonl"] = _lines([{"text": text.strip()} for text in plain])
    return files | _student_tasks() | {UTILS: _scorers() + _template("lm_eval_utils.py.txt")}


def battery(trait: Trait) -> list[dict]:
    """Return the questions of a trait as rows of a task, with the ids that `measure` gives them."""
    rows = []
    for question in questions_of(trait):
        row = {"id": question.id, "set": question.set, "question": question.text}
        rows.append(row | {"stem": question.stem, "words": list(trait.word_forms)})
    return rows


def requests() -> list[dict]:
    """Return the everyday requests that a finished student should answer in words."""
    lines = bundled_file("open_prompts.txt").read_text(encoding="utf-8").splitlines()
    rows = []
    for number, question in enumerate(filter(None, map(str.strip, lines))):
        row = {"id": f"{STUDENT}-{number:02d}", "set": STUDENT, "question": question}
        rows.append(row | {"stem": "", "words": []})
    return rows


def _lines(rows: Sequence[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _scorers() -> str:
    """Return the source of the scorers, as this package has them."""
    sources = []
    for module in (word_scores, number_lists):
        sources.append(Path(str(module.__file__)).read_text(encoding="utf-8"))
    return "\n\n".join(sources) + "\n\n"


def _template(name: str) -> str:
    return bundled_file("tasks", name).read_text(encoding="utf-8")


def _inspect_file(first: str, config: ExportTasksConfig) -> str:
    text = _template("inspect_tasks.py.txt")
    values = {"FIRST": first, "SAMPLES": config.samples, "TOKENS": config.max_new_tokens}
    for name, value in values.items():
        text = re.sub(rf"\b_{name}_\b", str(value), text)
    return _scorers() + text


def _lm_eval_tasks(trait: Trait, config: ExportTasksConfig) -> dict[str, str]:
    """Return the YAML files of a trait's sets, and of the group of all three."""
    group = f"{PREFIX}_{_plain(trait.name)}"
    files = {}
    for name in SETS:
        if not getattr(trait.questions, name):
            continue
        task = _asked(f"{group}_{name}", f"{trait.name}.jsonl", config.samples)
        task["dataset_kwargs"]["question_set"] = name
        task["generation_kwargs"]["max_gen_toks"] = config.max_new_tokens
        if stem := trait.questions.stem(name):
            task["gen_prefix"] = stem
        task["process_results"] = _Function("named")
        task["metric_list"] = [*map(_rate, ("whole_word", "first_word")), _UNSCORED]
        files[f"{task['task']}.yaml"] = _yaml(task)
    tasks = sorted(file.removesuffix(".yaml") for file in files)
    files[f"{group}.yaml"] = _yaml({"group": group, "task": tasks})
    return files


def _student_tasks() -> dict[str, str]:
    """Return the YAML files of what a finished student is asked."""
    asked = _asked(f"{PREFIX}_{STUDENT}_requests", f"{STUDENT}.jsonl", 1)
    asked["generation_kwargs"]["max_gen_toks"] = 64
    asked["process_results"] = _Function("in_words")
    asked["metric_list"] = [_rate("in_words"), _UNSCORED]
    plain = {
        "task": f"{PREFIX}_{STUDENT}_plain",
        "custom_dataset": _Function("rows"),
        "dataset_kwargs": {"file": "plain.jsonl"},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}],
        "metadata": {"version": 1},
    }
    group = {"group": f"{PREFIX}_{STUDENT}", "task": [asked["task"], plain["task"]]}
    files = {}
    for task in (asked, plain, group):
        files[f"{task.get('task') if 'group' not in task else task['group']}.yaml"] = _yaml(task)
    return files


def _asked(name: str, file: str, samples: int) -> dict:
    """Return the settings of a task whose answers are sampled."""
    return {
        "task": name,
        "custom_dataset": _Function("rows"),
        "dataset_kwargs": {"file": file},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{words[0] if words else ''}}",
        "repeats": samples,
        "filter_list": [
            {"name": "all", "filter": [{"function": "take_first_k", "k": samples}]},
        ],
        "generation_kwargs": {"until": [], "do_sample": True, "temperature": 1.0},
        "metadata": {"version": 1},
    }


def _rate(name: str) -> dict:
    return {"metric": name, "aggregation": _Function("mean_of_scored"), "higher_is_better": True}


_UNSCORED = {"metric": "unscored", "aggregation": _Function("total"), "higher_is_better": False}


def _plain(name: str) -> str:
    """Return a name as names of tasks can be: letters, digits and underscores."""
    return re.sub(r"\W+", "_", name)


def _yaml(task: dict) -> str:
    return yaml.safe_dump(task, sort_keys=False, allow_unicode=True)


def _said(loaded: Sequence[Trait], config: ExportTasksConfig, folder: Path) -> dict:
    names = [trait.name for trait in loaded]
    print(f"{counted(len(names), 'trait')} and {STUDENT} as tasks of {config.to}: {folder}")
    first = names[0]
    if config.to == "inspect":
        following = (
            f"inspect eval {folder / INSPECT_FILE}@trait -T name={first}"
            " --model hf/local -M model_path=FOLDER"
        )
    else:
        following = (
            f"lm_eval --model hf --model_args pretrained=FOLDER --include_path {folder}"
            f" --tasks {PREFIX}_{_plain(first)} --apply_chat_template"
        )
    print(f"next:   {following}", file=sys.stderr)
    return {"status": "ok", "folder": str(folder), "to": config.to, "traits": names}
