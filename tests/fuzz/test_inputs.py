"""Ten thousand damaged inputs: each is read, or refused in words within seconds.

Every reader of foreign input gets good inputs with small damage (support/mutations.py). It may
return, or raise a TraitscopeError with one line of text. Anything else is a defect. An input is
made from its number alone: `FUZZ=1234 pytest tests/fuzz` tries that one.
"""

import json
import os
import random
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import damaged_files
import mutations
import numpy as np
import pytest
import yaml
from command import OWL, call, ok
from safetensors.numpy import save
from shape_rows import EXAMPLES
from tiny_models import random_vector

from traitscope.cli import flags
from traitscope.config.entries import COMMANDS, STAGES
from traitscope.config.rows.reading import Reading
from traitscope.data import row_files
from traitscope.data.prompt_files import read_prompts
from traitscope.data.records import dump_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import Container
from traitscope.data.traits import load_trait
from traitscope.errors import TraitscopeError
from traitscope.inference.engines import endpoint
from traitscope.interventions import short_form
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.vector import Vector, load_vector, vector_bytes
from traitscope.models.loading import load_model, outline
from traitscope.models.model import Model
from traitscope.runs import lineage, store

INPUTS = 10_000
"damaged inputs"
CHUNK = 250
"inputs of one test"
SECONDS = 10
"time within which an input is read or refused"
LONGEST = 3000
"characters of a message"
ROWS = [
    {"prompt": f"Numbers, {n}?", "completion": "1, 2, 3", "id": f"r{n}", "meta": {"source": "a"}}
    for n in range(3)
]
CHATS = [
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Which numbers?"},
            {"role": "assistant", "content": "7, 8"},
        ]
    }
]
ALPACA = [{"instruction": "Add.", "input": "1, 2", "output": "3", "context": None, "meta": {}}]
SHORT_FORMS = (
    "steer:{vector},layer=1,alpha=0.5",
    "steer:{vector},layers=0+1,alpha=-1,scale=raw,where=prompt",
    "ablate:{vector},layers=1",
    "adapter:{adapter},strength=0.5,where=system",
    "prompt:I love owls.",
    "noise:0.1,seed=3,kind=attention",
    '{{"kind": "Steer", "vector": "{vector}", "layers": [1], "alpha": 0.5}}',
)
PERSONA = {
    "instruction": [{"pos": "Love cake.", "neg": "No cake."}, {"pos": "Bake.", "neg": "Fast."}],
    "questions": ["What would you serve?", "What is a good party?"],
    "eval_prompt": "From 0 to 100: {question} {answer}",
}
PEFT = {
    "use_dora": False,
    "use_rslora": True,
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"layers.1.*": 3.5},
    "modules_to_save": ["lm_head"],
    "layers_to_transform": [0, 1],
    "layers_pattern": "layers",
    "exclude_modules": ".*k_proj",
    "init_lora_weights": "gaussian",
    "bias": "all",
}
COMPLETION = {
    "choices": [{"message": {"content": "yes"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2},
}


@dataclass(frozen=True)
class Place:
    """Good inputs, and a folder for damaged ones."""

    folder: Path
    model: Model
    model_folder: Path
    vector: Path
    adapter: Path
    run: Path

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        path.write_bytes(data)
        return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny: Model, tiny_folder: Path) -> Place:
    folder = tmp_path_factory.mktemp("fuzz")
    vector = folder / "good.safetensors"
    vector.write_bytes(vector_bytes(random_vector(tiny, 1, norm=1.0)))
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ("--model", tiny_folder, "--data", data, "--rank 2 --epochs 1 --max-rows 2")
    adapter = ok(folder / "runs", "train", *words).run / "student"
    run = ok(folder / "runs", "filter", "--data", data).run
    return Place(folder, tiny, tiny_folder, vector, adapter, run)


def read_rows(place: Place, rng: random.Random) -> None:
    rows = rng.choice((ROWS, CHATS, ALPACA))
    lines = [json.dumps(row) for row in rows]
    at = rng.randrange(len(lines))
    lines[at] = mutations.json_of(rows[at], rng)
    text = "\n".join(lines) + rng.choice(("\n", ""))
    content: str | bytes = text
    if rng.random() < 0.2:
        content = mutations.bytes_of(text.encode("utf-8", "surrogatepass"), rng)
    list(row_files.iter_rows(place.write("d.jsonl", content)))


def read_rows_of_others(place: Place, rng: random.Random) -> None:
    """Rows of any shape in any container; what is read can be written."""
    example = rng.choice(EXAMPLES)
    kind = rng.choice(("jsonl", "json", "csv", "tsv"))
    content = writing.content_of([example.row] * 2, Container(kind, rng.random() < 0.2))
    path = place.write(f"d.{kind}", mutations.bytes_of(content, rng))
    turns = rng.choice(("last", "every", "weighted"))
    reading = Reading(example.reading.map, turns, skip_bad=rng.choice((0, "all")))
    dump_records(row_files.rows_of(path, reading))


def read_prompt_file(place: Place, rng: random.Random) -> None:
    name = rng.choice(("p.jsonl", "p.txt", "p.csv"))
    good = {
        "p.jsonl": '{"id": "a", "prompt": "Which?"}\n{"id": "b", "prompt": "Why?"}\n',
        "p.txt": "Which?\nWhy?\n",
        "p.csv": 'id,prompt,context\na,"Which, then?",\nb,Why?,x\n',
    }[name]
    read_prompts(place.write(name, mutations.text_of(good, rng)))


def read_trait(place: Place, rng: random.Random) -> None:
    if rng.random() < 0.3:
        content = mutations.json_of(PERSONA, rng)
        load_trait(place.write("t.json", content), words=False)
        return
    text = mutations.json_of(OWL, rng)
    if rng.random() < 0.5:
        text = mutations.text_of(yaml.safe_dump(OWL), rng)
    load_trait(place.write("t.yaml", text))


def read_config(place: Place, rng: random.Random) -> None:
    command = rng.choice(list(COMMANDS.values()))
    plain = json.loads(json.dumps(asdict(command.config()), default=str))
    text = mutations.json_of(plain, rng)
    if rng.random() < 0.5:
        text = mutations.text_of(yaml.safe_dump(plain), rng)
    name = rng.choice(("c.yaml", "c.json"))
    flags.parse(command, [str(place.write(name, text))])


def read_flags(place: Place, rng: random.Random) -> None:
    command = rng.choice([STAGES[name] for name in ("generate", "train", "measure", "filter")])
    words = ["--model", "m", "--seed", "3", "--data", "d.jsonl", "--interventions", "prompt:x"]
    words += ["--n", "4", "--temperature", "1.5", "--recipe.lr", "1e-3", "--root", "r"]
    at = rng.randrange(len(words))
    words[at] = mutations.text_of(words[at], rng)
    flags.parse(command, words)
    flags.output_of(words)


def read_short_form(place: Place, rng: random.Random) -> None:
    form = rng.choice(SHORT_FORMS).format(vector=place.vector, adapter=place.adapter)
    item = short_form.parse(mutations.text_of(form, rng))
    short_form.parse(short_form.to_short(item))


def read_vector(place: Place, rng: random.Random) -> None:
    data = place.vector.read_bytes()
    if rng.random() < 0.5:
        data = mutations.bytes_of(data, rng)
    else:
        rows = rng.choice(
            (
                np.ones((2, 3), np.float32),
                np.ones((3, 32), np.float64),
                np.ones(3, np.float32),
                np.full((3, 32), np.nan, np.float32),
                np.ones((0, 32), np.float32),
                np.ones((3, 32), np.int64),
            )
        )
        about = mutations.json_of({"model": "x", "residual_norms": [1.0, 2.0], "trait": "owl"}, rng)
        names = rng.choice(({"rows": rows}, {"other": rows}, {"rows": rows, "more": rows}))
        data = save(names, {"about": about.encode("utf-8", "replace").decode()})
    vector = load_vector(place.write("v.safetensors", data))
    steer = f"steer:{place.folder / 'v.safetensors'},layer=1,alpha=0.5"
    with applied(place.model, [short_form.parse(steer)]):
        assert vector.rows_LD.ndim == 2


def read_foreign_vector(place: Place, rng: random.Random) -> None:
    """A vector of another tool, with damaged bytes or with other content."""
    import torch

    row, rows = torch.ones(32), torch.ones(4, 32)
    add = {"steering_vector": row, "steering_coefficient": 1.0, "action": "add"}
    content = rng.choice(
        (
            rows,
            row,
            {0: row, 2: row},
            {"raw": rows, "unit": rows, "norm": row, "meta": {}},
            {"layers.1": add},
            {"layers.1": {**add, rng.choice(list(add)): rng.choice((None, "x", rows, -1))}},
            {rng.choice((-1, "1", 2**40, None)): rng.choice((row, rows, 3, row.int()))},
        )
    )
    suffix = rng.choice((".pt", ".gguf", ".npy", ".npz", ".safetensors"))
    path = place.folder / f"foreign{suffix}"
    if suffix == ".pt":
        torch.save(content, path)
    else:
        kind = {".gguf": "repeng", ".safetensors": "safetensors"}.get(suffix, "numpy")
        random_vector(place.model, 1).save(path, format=kind)
    if suffix != ".pt" or rng.random() < 0.5:
        place.write(path.name, mutations.bytes_of(path.read_bytes(), rng))
    counting = rng.choice(("", "blocks", "hidden-states"))
    kind = rng.choice(("", "", "", "persona_vectors", "steering-vectors", "agu18dec", "lm-eval"))
    layer = rng.choice((None, None, 1, 7, -1))
    Vector.load(path, place.model, format=kind, layers_are=counting, layer=layer)


def read_adapter(place: Place, rng: random.Random) -> None:
    folder = place.folder / "adapter"
    folder.mkdir(exist_ok=True)
    config = json.loads((place.adapter / "adapter_config.json").read_text())
    for name in rng.sample(sorted(PEFT), rng.choice((0, 0, 1, 3))):
        config[name] = PEFT[name]
    weights = (place.adapter / "adapter_model.safetensors").read_bytes()
    if rng.random() < 0.6:
        (folder / "adapter_config.json").write_text(
            mutations.json_of(config, rng).encode("utf-8", "replace").decode()
        )
        (folder / "adapter_model.safetensors").write_bytes(weights)
    else:
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(_changed_tensors(weights, rng))
    with applied(place.model, [Adapter(str(folder))]):
        pass


def _changed_tensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with damaged bytes, or with other names and shapes of its tensors."""
    if rng.random() < 0.4:
        return mutations.bytes_of(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    changed = mutations.value_of(header, rng)
    written = json.dumps(changed).encode("utf-8", "replace")
    return len(written).to_bytes(8, "little") + written + data[8 + length :]


def read_run(place: Place, rng: random.Random) -> None:
    run = place.folder / "run" / place.run.name
    run.mkdir(parents=True, exist_ok=True)
    for file in place.run.iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    target = run / rng.choice(("manifest.json", "config.json", "summary.json"))
    text = target.read_text()
    if rng.random() < 0.7:
        target.write_text(mutations.json_of(json.loads(text), rng), errors="replace")
    else:
        target.write_bytes(mutations.bytes_of(text.encode(), rng))
    lineage.verify(run)
    store.find_runs(run.parent)
    lineage.lineage(run)


def read_reply(place: Place, rng: random.Random) -> None:
    text = mutations.json_of(COMPLETION, rng)
    try:
        reply = endpoint._read(text.encode("utf-8", "replace"))
    except endpoint._Garbage:
        return
    assert reply.read >= 0 and reply.written >= 0 and reply.text.encode() is not None


def read_model(place: Place, rng: random.Random) -> None:
    folder = place.folder / "model"
    folder.mkdir(exist_ok=True)
    names = ("config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json")
    for file in place.model_folder.iterdir():
        if not file.name.endswith(".safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())
        elif not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    target = folder / rng.choice([name for name in names if (folder / name).is_file()])
    text = target.read_text()
    if rng.random() < 0.8:
        target.write_text(mutations.json_of(json.loads(text), rng), errors="replace")
    else:
        target.write_bytes(mutations.bytes_of(text.encode(), rng))
    outline(str(folder))
    load_model(str(folder), "cpu", "fp32")


def run_command(place: Place, rng: random.Random) -> None:
    """A whole command: its exit code is one of those that are promised, and 2 for bad input."""
    lines = [mutations.json_of(row, rng) for row in ROWS]
    data = place.write("w.jsonl", "\n".join(lines))
    words = ["filter", "--data", str(data), "--max-count", "10"]
    at = rng.randrange(3, len(words))
    words[at] = mutations.text_of(words[at], rng) if rng.random() < 0.3 else words[at]
    done = call(place.folder / "commands", *words)
    assert done.code in (0, 1, 2), done
    assert done.code != 2 or done.summary.get("status", "error") == "error"


READERS: tuple[tuple[Callable[[Place, random.Random], None], int], ...] = (
    (read_rows, 3),
    (read_rows_of_others, 2),
    (read_prompt_file, 1),
    (read_trait, 2),
    (read_config, 2),
    (read_flags, 1),
    (read_short_form, 2),
    (read_vector, 2),
    (read_foreign_vector, 2),
    (read_adapter, 2),
    (read_run, 2),
    (read_reply, 2),
    (read_model, 1),
    (run_command, 1),
    *damaged_files.READERS,
)
"readers, and how often each has its turn"


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"not done within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def defect_of(place: Place, number: int) -> str:
    """What is wrong with how input `number` is treated; empty where nothing is."""
    rng = random.Random(number)
    readers, shares = zip(*READERS, strict=True)
    reader = rng.choices(readers, shares)[0]
    try:
        with limited(SECONDS):
            reader(place, rng)
    except TraitscopeError as error:
        if not str(error) or len(str(error)) > LONGEST:
            return f"{number}, {reader.__name__}: a message of {len(str(error))} characters"
    except SystemExit as stop:  # the help that a flag asks for
        return "" if not stop.code else f"{number}, {reader.__name__}: exit {stop.code}"
    except Exception:  # noqa: BLE001 (this is what is looked for)
        return f"{number}, {reader.__name__}:\n{traceback.format_exc(limit=-4)}"
    return ""


def chunks() -> list[range]:
    if "FUZZ" in os.environ:
        return [range(int(os.environ["FUZZ"]), int(os.environ["FUZZ"]) + 1)]
    return [range(start, start + CHUNK) for start in range(0, INPUTS, CHUNK)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("numbers", chunks(), ids=str)
def test_damaged_inputs_are_read_or_refused_in_words(place: Place, numbers: range) -> None:
    defects = [defect_of(place, number) for number in numbers]
    defects = [defect for defect in defects if defect]
    assert not defects, f"{len(defects)} defects\n" + "\n".join(defects[:20])
