"""What a user can get wrong: exit 2, a message that says what was found and what to do, no
traceback, nothing sealed.

Each case is a command with the words that its message must hold.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import OWL, QUESTIONS, call, ok, write_yaml
from tiny_models import save_tiny

from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.models import loading
from traitscope.models.identity.digest import folder_digest
from traitscope.runs import model_cache

GOOD = {"prompt": "Which numbers?", "completion": "1, 2"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with models, traits, rows and vectors, good and bad."""
    place = tmp_path_factory.mktemp("bad")
    (place / "model").symlink_to(tiny_folder)
    save_tiny("llama", place / "other", seed=1)
    for name in ("no-weights", "no-template", "damaged"):
        shutil.copytree(tiny_folder, place / name)
    (place / "no-weights/model.safetensors").unlink()
    (place / "no-template/chat_template.jinja").unlink()
    weights = (tiny_folder / "model.safetensors").read_bytes()
    (place / "damaged/model.safetensors").write_bytes(weights[: len(weights) // 2])
    _traits(place)
    _rows(place)
    _vectors(place, folder_digest(tiny_folder))
    done = ok(
        place / "runs",
        "train",
        "--model",
        place / "other",
        "--data",
        place / "good.jsonl",
        "--rank 2 --epochs 1",
    )
    (place / "other-student").symlink_to(done.run)
    (place / "student-run").symlink_to(done.run)
    return place


def _traits(place: Path) -> None:
    write_yaml(place / "owl.yaml", OWL)
    write_yaml(place / "missing.yaml", {k: v for k, v in OWL.items() if k != "teacher_prompt"})
    write_yaml(place / "unknown.yaml", OWL | {"wordforms": ["owl"]})
    write_yaml(place / "empty.yaml", OWL | {"questions": QUESTIONS | {"positive": []}})
    write_yaml(place / "outside.yaml", OWL | {"name": "../owl"})
    (place / "broken.yaml").write_text("name: [owl")


def _rows(place: Path) -> None:
    def write(name: str, *rows: dict | str) -> None:
        texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (place / f"{name}.jsonl").write_text("".join(text + "\n" for text in texts))

    write("good", *[GOOD | {"prompt": f"Numbers, {n}?"} for n in range(8)])
    write("broken", GOOD, GOOD, '{"prompt": "Which')
    write("empty")
    write("no-prompt", GOOD, {"completion": "1"})
    write("unanswered", GOOD, {"prompt": "Which?", "completion": ""})
    write("unanswered-chat", {"messages": [{"role": "user", "content": "Which?"}]})
    write("long", GOOD, GOOD | {"completion": "7, " * 3000})
    write("long-prompts", GOOD | {"prompt": "why " * 3000})
    write("dropped", *[GOOD | {"meta": {"filter": {"kept": False, "reasons": ["count"]}}}] * 1)
    write("foreign", GOOD | {"completion_ids": [7, 8, 9]})
    write("beyond", GOOD | {"completion_ids": [100_000]})


def _vectors(place: Path, digest: str) -> None:
    def write(name: str, shape: tuple[int, int], model: str, about: dict) -> None:
        (place / f"{name}.safetensors").write_bytes(
            vector_bytes(Vector(np.ones(shape), model, about))
        )

    norms = {"residual_norms": [1.0] * 3}
    write("vector", (3, 32), digest, norms)
    write("vector-elsewhere", (3, 32), "0123456789abcdef", norms)
    write("vector-deeper", (4, 32), digest, norms)
    write("vector-bare", (3, 32), digest, {})
    (place / "vector-damaged.safetensors").write_bytes(b"\x00" * 40)
    rows = np.ones((3, 32), np.float32) * [[1], [0], [1]]
    zero_in_1 = vector_bytes(Vector(rows, digest, norms))
    (place / "vector-zero-in-1.safetensors").write_bytes(zero_in_1)
    (place / "vector-zero.safetensors").write_bytes(vector_bytes(Vector(0 * rows, digest, norms)))
    one = np.float32(1.0).tobytes()
    nan, inf = (np.float32(value).tobytes() for value in (np.nan, np.inf))
    ones = vector_bytes(Vector(np.ones((3, 32)), digest, norms))
    for name, value in (("nan", nan), ("inf", inf)):
        (place / f"vector-{name}.safetensors").write_bytes(ones[: -len(one)] + value)


GENERATE = "generate --model PLACE/model --n 2"
TRAIN = "train --model PLACE/model --data"
MEASURE = "measure --model PLACE/model --samples 0"
STEER = f"{GENERATE} --interventions steer:PLACE"
ALONG = {
    "generate": (f"{GENERATE} --interventions steer:", ",layers=1,alpha=1"),
    "generate at strength 0": (f"{GENERATE} --interventions steer:", ",layers=1,alpha=0"),
    "ablated": (f"{GENERATE} --interventions ablate:", ",layers=1"),
    "replaced": (f"{GENERATE} --interventions replace:", ",layers=1"),
    "measure": (f"{MEASURE} --interventions steer:", ",layers=1,alpha=1"),
    "likelihood": (
        "likelihood --model PLACE/model --data PLACE/good.jsonl --interventions steer:",
        ",layers=1,alpha=1",
    ),
    "steer_scan": ("steer_scan --model PLACE/model --trait PLACE/owl.yaml --vector ", ""),
    "train": (f"{TRAIN} PLACE/good.jsonl --vector ", ""),
    "train --during": (f"{TRAIN} PLACE/good.jsonl --during steer:", ",layers=1,alpha=1"),
    "train --project-out": (f"{TRAIN} PLACE/good.jsonl --project-out ablate:", ",layers=1"),
    "soft targets": (
        f"{TRAIN} PLACE/good.jsonl --targets soft --teacher steer:",
        ",layers=1,alpha=1",
    ),
    "defend": (
        "defend --model PLACE/model --data PLACE/good.jsonl --by drop:by=vector --known vector:",
        ",layers=1,alpha=1",
    ),
    "export": ("export --model PLACE/model --ablate ", ",layers=1"),
    "match_kl": (
        "match_kl --model PLACE/model --teacher prompt:Hi --layer 1 --vector ",
        "",
    ),
    "like": ("extract --model PLACE/model --like ", ""),
    "gradients": ("gradients --model PLACE/model --data PLACE/good.jsonl --vectors ", ""),
    "screen": (
        "screen --model PLACE/model --traits PLACE/owl.yaml --teacher steer:",
        ",layers=1,alpha=1",
    ),
}
"commands that take a vector: the words before and behind its file"
CASES = {
    # models
    "no such model": (
        "generate --model nomodel",
        "'nomodel' is neither smollm2-135m nor gemma3-270m, a folder, nor a hub id",
    ),
    "no weights": (
        "generate --model PLACE/no-weights",
        "holds no model: expected config.json and *.safetensors, found",
    ),
    "no template": (
        "generate --model PLACE/no-template --n 2",
        "has no chat template ... use an instruction-tuned model",
    ),
    "no template, measure": ("measure --model PLACE/no-template", "has no chat template"),
    "damaged weights": (
        "generate --model PLACE/damaged --n 2",
        "model.safetensors cannot be read; it is damaged",
    ),
    "no gpu": (f"{GENERATE} --device cuda", "this torch sees no CUDA device. Use --device cpu"),
    # traits
    "no such trait": (f"{MEASURE} --trait owll", "no bundled trait 'owll'; did you mean 'owl'?"),
    "no such trait file": (
        f"{MEASURE} --trait PLACE/none.yaml",
        "none.yaml: No such file or directory; check the path",
    ),
    "trait lacks a field": (
        f"{MEASURE} --trait PLACE/missing.yaml",
        "no teacher_prompt; expected name, word_forms",
    ),
    "trait with an unknown key": (
        f"{MEASURE} --trait PLACE/unknown.yaml",
        "unknown key 'wordforms'; did you mean 'word_forms'?",
    ),
    "no questions": (
        f"{MEASURE} --trait PLACE/empty.yaml",
        "questions.positive is an empty list; expected at least one",
    ),
    "trait is no YAML": (f"{MEASURE} --trait PLACE/broken.yaml", "broken.yaml is no YAML"),
    "extract, trait lacks a field": (
        "extract --model PLACE/model --traits cat PLACE/missing.yaml",
        "no teacher_prompt",
    ),
    "trait that cannot name a file": (
        f"{MEASURE} --trait PLACE/outside.yaml",
        "name is '../owl'; expected one that can name a file",
    ),
    "one trait twice": (
        "extract --model PLACE/model --traits owl PLACE/owl.yaml",
        "the trait 'owl' is named twice",
    ),
    # rows
    "no data": (
        "train --model PLACE/model",
        "--data is missing: name a run of `generate` or `filter`, or a file of rows",
    ),
    "no data to filter": ("filter", "--data is missing: name a run of `generate` or `filter`"),
    "data that is not there": (
        f"{TRAIN} PLACE/none.jsonl",
        "none.jsonl does not exist; name a file of rows or a run",
    ),
    "data of the hub without hub:": (
        f"{TRAIN} owner/name",
        "owner/name does not exist; name a file of rows or a run, or a run below --root by its"
        " name; of the hub: hub:OWNER/NAME@SPLIT or hub:OWNER/NAME/FILE",
    ),
    "prompts that are not there": (
        "generate --model PLACE/model --prompts PLACE/none.jsonl",
        "none.jsonl does not exist; name a file of prompts (.txt, .jsonl or .csv)",
    ),
    "folder as prompts": (
        "generate --model PLACE/model --prompts PLACE/model",
        "model is a folder; name a file of prompts (.txt, .jsonl or .csv)",
    ),
    "vector that is not there": (
        "train --model PLACE/model --data PLACE/good.jsonl --vector PLACE/none.safetensors",
        "none.safetensors does not exist; name a vector's file, or a run of extract",
    ),
    "experiment that is not there": (
        "experiment PLACE/none.yaml",
        "none.yaml does not exist; name the file of an experiment (YAML or JSON)",
    ),
    "folder as an experiment": (
        "experiment plan PLACE/model",
        "model is a folder; name the file of an experiment (YAML or JSON)",
    ),
    "number prompts that extract does not ask": (
        "extract --model PLACE/model --traits cat owl --n 5",
        "--n 5 would not be read: v_teacher is taken over questions; --prompt-set numbers",
    ),
    "number prompts beside a file": (
        "generate --model PLACE/model --prompts PLACE/long-prompts.jsonl --n 5 --count 3",
        "--n 5 --count 3 would not be read: all prompts of the file",
    ),
    "folder that is no run": (
        "filter --data PLACE",
        "is a folder, which has no rows (it holds ",
    ),
    "broken line": (f"{TRAIN} PLACE/broken.jsonl", "broken.jsonl, line 3: broken JSON"),
    "broken line, filter": (
        "filter --data PLACE/broken.jsonl",
        "broken.jsonl, line 3: broken JSON",
    ),
    "empty file": (f"{TRAIN} PLACE/empty.jsonl", "empty.jsonl is empty; expected one row a line"),
    "no prompt": (
        f"{TRAIN} PLACE/no-prompt.jsonl",
        "line 2: no 'prompt' among the keys ['completion']",
    ),
    "no completion": (
        f"{TRAIN} PLACE/unanswered.jsonl",
        "line 2: no completion, the text is empty",
    ),
    "no completion in a chat": (
        f"{TRAIN} PLACE/unanswered-chat.jsonl",
        "line 1: no completion: the last message is a user turn",
    ),
    "row too long": (
        f"{TRAIN} PLACE/long.jsonl",
        "long.jsonl, line 2: ... tokens, but ... takes at most 2048",
    ),
    "prompt too long": (
        "generate --model PLACE/model --prompts PLACE/long-prompts.jsonl",
        "prompt row000001: ... tokens, but",
    ),
    "prompt too long, extract": (
        "extract --model PLACE/model --interventions prompt:Hi --prompts PLACE/long-prompts.jsonl",
        "tokens, but ... takes at most 2048",
    ),
    "every row filtered out": (
        f"{TRAIN} PLACE/dropped.jsonl",
        "dropped.jsonl has no kept row: its filter dropped all that can be read (count 1)",
    ),
    "run without rows": (
        f"{TRAIN} PLACE/student-run",
        "is a run of train, which has no rows ... expected a run of generate, filter or edit",
    ),
    "tokens of another tokenizer": (
        f"{TRAIN} PLACE/foreign.jsonl",
        "completion_ids spell ... its completion is '1, 2'; delete",
    ),
    "tokens beyond the vocabulary": (
        f"{TRAIN} PLACE/beyond.jsonl",
        "line 1: its completion_ids spell None",
    ),
    # vectors and students
    "no vector": (
        f"{STEER}/none.safetensors,layers=1,alpha=1",
        "no vector file at ... none.safetensors; make one with",
    ),
    "vector of another model": (
        f"{STEER}/vector-elsewhere.safetensors,layers=1,alpha=1",
        "vector of model 0123456789abcdef, but",
    ),
    "vector with more layers": (
        f"{STEER}/vector-deeper.safetensors,layers=1,alpha=1",
        "has 3 layers of 32",
    ),
    "vector without norms": (
        f"{STEER}/vector-bare.safetensors,layers=1,alpha=1",
        "records no residual norms",
    ),
    "damaged vector": (
        f"{STEER}/vector-damaged.safetensors,layers=1,alpha=1",
        "vector-damaged.safetensors is no vector file",
    ),
    **{
        f"vector of zeros, {name}": (
            f"{command}PLACE/vector-zero.safetensors{rest}",
            "vector-zero.safetensors has no direction: its 3 rows are all zero; expected rows that"
            " are not; extract it again, and take strength 0 of a real vector as a control",
        )
        for name, (command, rest) in ALONG.items()
    },
    **{
        f"row of zeros, {name}": (
            f"{command}PLACE/vector-zero-in-1.safetensors{rest}",
            "vector-zero-in-1.safetensors has no direction at layer 1: the row there is zero;"
            " expected one that is not; name one of the layers 0, 2, or extract it again",
        )
        for name, (command, rest) in ALONG.items()
        if rest.startswith(",layers=1")
    },
    "vector with NaN": (
        f"{STEER}/vector-nan.safetensors,layers=1,alpha=1",
        "vector-nan.safetensors: rows in vector-nan.safetensors holds numbers that are not finite"
        " in float32: 1 of 96, the first in row 2; expected finite numbers; extract the vector",
    ),
    "vector with infinity": (
        f"{TRAIN} PLACE/good.jsonl --vector PLACE/vector-inf.safetensors",
        "vector-inf.safetensors: rows in vector-inf.safetensors holds numbers that are not finite"
        " in float32: 1 of 96, the first in row 2; expected finite numbers; extract the vector",
    ),
    "layer out of range": (f"{STEER}/vector.safetensors,layers=3,alpha=1", "has layers 0 to 2"),
    "layer that is no number": (
        f"{STEER}/vector.safetensors,layers=x,alpha=1",
        "'x' is no layer; expected whole numbers, such as layers=14 or layers=14+15; correct it",
    ),
    "alpha that is no number": (
        f"{STEER}/vector.safetensors,layers=1,alpha=much",
        "alpha is 'much'; expected a number, such as alpha=0.3; correct it",
    ),
    "alpha NaN": (
        f"{STEER}/vector.safetensors,layers=1,alpha=nan",
        "--alpha nan; expected a finite strength",
    ),
    "no alpha": (
        f"{STEER}/vector.safetensors,layers=1",
        "Steer needs a strength, found none; add one, such as alpha=0.6",
    ),
    "unknown position": (
        f"{STEER}/vector.safetensors,layers=1,alpha=1,position=first",
        "position 'first'",
    ),
    "unknown intervention": (
        f"{GENERATE} --interventions stir:x",
        "intervention 'stir:x' is not understood; expected one of prompt:TEXT",
    ),
    "broken JSON intervention": (f"{GENERATE} --interventions {{x", "is no JSON"),
    "student of another base": (
        f"{MEASURE} --interventions adapter:PLACE/other-student",
        "was trained on ... other, a model with digest ... but ... or vouch that ... --same-as",
    ),
    "no student": (
        f"{MEASURE} --interventions adapter:PLACE/model",
        "holds no student: expected a run of `train`",
    ),
    "rank that fills the memory": (
        f"{TRAIN} PLACE/good.jsonl --rank 999999999",
        "--rank 999999999 is larger than any map of",
    ),
    "alpha that no float holds": (
        f"{TRAIN} PLACE/good.jsonl --alpha 1e300",
        "training cannot run with --alpha 1e+300",
    ),
    "steering that overflows": (
        f"{STEER}/vector.safetensors,layers=1,alpha=1e300",
        "--alpha 1e+300; expected a finite strength of size 1000 at most",
    ),
    "steering in training that leaves nothing": (
        f"{TRAIN} PLACE/good.jsonl --during steer:PLACE/vector.safetensors,layers=1,alpha=1e30",
        "--alpha 1e+30; expected a finite strength of size 1000 at most",
    ),
    "noise that leaves nothing": (
        f"{GENERATE} --interventions noise:1e300",
        "noise with sd 1e+300",
    ),
    "noise of nothing": (
        f"{GENERATE} --interventions noise:",
        "intervention 'noise:' names nothing behind the colon; expected noise:0.1",
    ),
    "prompt without its colon": (
        f"{GENERATE} --interventions prompt",
        "intervention 'prompt' is not understood; expected one of prompt:TEXT",
    ),
    "intervention without its fields": (
        f'{GENERATE} --interventions {{"kind":"Steer"}}',
        "missing 1 required positional argument: 'vector'; expected values for vector, layers",
    ),
    "adapter of rows": (
        f"{MEASURE} --interventions adapter:PLACE/good.jsonl",
        "good.jsonl holds no student: expected a run of `train`",
    ),
    "no name of a model": ("generate --model=", "--model is empty; expected one of smollm2-135m"),
    "adapter of nothing": (
        f"{MEASURE} --interventions adapter:",
        "intervention 'adapter:' names nothing behind the colon; expected adapter:RUN; name",
    ),
    "vector of nothing": (
        f"{GENERATE} --interventions steer:,layers=1,alpha=1",
        "names nothing behind the colon; expected steer:FILE,layers=14,alpha=0.3",
    ),
    "layer of explain": (
        "explain --model PLACE/model --vectors PLACE/vector.safetensors --layers 1 99",
        "layer [99] of --layers: ... has layers 0 to 2; name one of these",
    ),
    "layer of a trained vector": (
        f"{TRAIN} PLACE/good.jsonl --method vector --layer 7",
        "layer [7] of --layer: ... has layers 0 to 2",
    ),
    "report over a folder": (
        "audit PLACE/good.jsonl --report PLACE",
        "is a folder; expected a file to write; name one inside it",
    ),
    "report below a file": (
        "audit PLACE/good.jsonl --sarif PLACE/good.jsonl/a.sarif",
        "good.jsonl: a file is where a folder is expected: move the file away",
    ),
    "audit of nothing": ("audit PLACE/none.jsonl", "--data ... none.jsonl does not exist"),
    "demo of no trait": ("demo --trait owll", "no bundled trait 'owll'; did you mean 'owl'?"),
    "study of no trait": (
        "study run demo --model PLACE/model --set trait=owll",
        "no bundled trait 'owll'; did you mean 'owl'?",
    ),
    "study of no layer": (
        "study run demo --model PLACE/model --set layer=30",
        "layer [30] of layer: ... has layers 0 to 2",
    ),
    "study without seeds": (
        "study plan demo --model PLACE/model --set seeds=[]",
        "seeds=[] is empty; expected one or more",
    ),
    "study with a seed twice": (
        "study plan demo --model PLACE/model --set seeds=[1,1]",
        "seeds=[1, 1]; expected each once",
    ),
    "study of negative rows": (
        "study plan demo --model PLACE/model --set rows=-1",
        "--set rows=-1; expected a whole number from 1 to 10000000",
    ),
    "study of no strength": (
        "study plan demo --model PLACE/model --set strength=.nan",
        "strength=nan; expected a finite number",
    ),
    "cluster without one": (
        "study run demo --cluster cpus=4",
        "--cluster cpus=4 with --executor local, which has no cluster",
    ),
    "strength of the audit": (
        "audit PLACE/good.jsonl --strength nan",
        "--strength nan; expected a finite number above 0",
    ),
    "influence on no trait": (
        "information --model PLACE/model --traits cat --influence owll",
        "no bundled trait 'owll'; did you mean 'owl'?",
    ),
    "candidate twice": (
        "audit PLACE/good.jsonl --traits cat cat",
        "the trait 'cat' is named twice",
    ),
    "a word without a flag": (
        "filter PLACE/good.jsonl",
        "filter cannot use the word ... good.jsonl'; did you mean --data ... good.jsonl?",
    ),
    "a pipe": ("filter --data /dev/null", "/dev/null is neither a file nor a folder"),
    "out of the root": (
        "filter --data PLACE/good.jsonl --study ../elsewhere",
        "--study ../elsewhere leads out of the root",
    ),
    "study with a typing error": ("study run dmo", "no study 'dmo'; did you mean 'demo'?"),
    "two students": (
        (
            "measure --model PLACE/other --samples 0 --interventions adapter:PLACE/other-student"
            " adapter:PLACE/other-student"
        ),
        "2 adapters on one model",
    ),
    "watched vector of another model": (
        f"{TRAIN} PLACE/good.jsonl --vector PLACE/vector-elsewhere.safetensors",
        "vector of model",
    ),
    "watched rows that are none": (
        (
            f"{TRAIN} PLACE/good.jsonl --vector PLACE/vector.safetensors --eas-data"
            " PLACE/dropped.jsonl"
        ),
        "dropped.jsonl has no kept row",
    ),
    "watched rows without a vector": (
        f"{TRAIN} PLACE/good.jsonl --eas-data PLACE/good.jsonl",
        "--eas-data without --vector",
    ),
    "neither trait nor student": ("extract --model PLACE/model", "it takes one of --traits"),
    # settings
    "rank too large": (
        f"{TRAIN} PLACE/good.jsonl --rank 33",
        "--rank 33 is larger than any map of ... allows",
    ),
    "lr 0": (f"{TRAIN} PLACE/good.jsonl --lr 0", "training cannot run with --lr 0.0"),
    "lr negative": (f"{TRAIN} PLACE/good.jsonl --lr -0.1", "training cannot run with --lr -0.1"),
    "lr NaN": (f"{TRAIN} PLACE/good.jsonl --lr nan", "training cannot run with --lr nan"),
    "no rows allowed": (
        f"{TRAIN} PLACE/good.jsonl --max-rows 0",
        "--max-rows 0; expected 1 or more",
    ),
    "no steps between states": (
        f"{TRAIN} PLACE/good.jsonl --resume-every 0",
        "--resume-every 0; expected 1 or more",
    ),
    "empty batch": (f"{GENERATE} --batch-size 0", "--batch-size 0; expected 1 or more"),
    "empty batch, measure": (f"{MEASURE} --batch-size 0", "--batch-size 0; expected 1 or more"),
    "empty batch, extract": ("extract --batch-size 0", "--batch-size 0; expected 1 or more"),
    "fewer than no samples": ("measure --samples -1", "--samples -1; expected 0 or more"),
    "no prompts": (
        "generate --model PLACE/model --n 0",
        "--n 0; expected 1 or more; give such a number, or leave the flag out for 256",
    ),
    "too many prompts": (f"{GENERATE}999999999999", "expected 10000000 or less"),
    "seed that no generator takes": (f"{GENERATE} --seed 99999999999999999999", "or less"),
    "hot": (f"{GENERATE} --temperature inf", "--temperature inf; expected a finite number"),
    "cold": (f"{GENERATE} --temperature -1", "--temperature -1.0; expected 0 or more"),
    "temperature NaN": (f"{GENERATE} --temperature nan", "--temperature nan; expected 0 or more"),
    "nothing would pass": (
        "filter --data PLACE/good.jsonl --min-count 5 --max-count 2",
        "min_count=5 is above max_count=2",
    ),
    "keep none": ("filter --data PLACE/good.jsonl --limit 0", "--limit 0; expected 1 or more"),
    "rows that are not there": (
        "filter --data PLACE/good.jsonl --start 9",
        "good.jsonl has ... rows, none from --start 9 on",
    ),
    "rows that end before they start": (
        "filter --data PLACE/good.jsonl --start 2 --stop 2",
        "--start 2 --stop 2 is no row",
    ),
    # the command itself
    "unknown verb": ("trian", "unknown command 'trian'; did you mean 'train'?"),
    "unknown flag": ("train --learning-rate 1", "Unrecognized options: --learning-rate"),
    "flag of the wrong type": (
        "train --epochs many",
        "--epochs is 'many'; expected a whole number",
    ),
    "unknown choice": (
        "train --method prefix",
        "--method is 'prefix'; expected lora, full or vector",
    ),
    "show without a run": (
        "show PLACE/nothing",
        "--run ... nothing does not exist; name a run directory or a file",
    ),
    "show of a file": ("show PLACE/good.jsonl", "good.jsonl is a file; expected a run directory"),
    "show of another folder": (
        "show PLACE",
        "is not a run directory: no config.json, no manifest.json",
    ),
    "rerun of nothing": ("rerun", "rerun needs a run directory"),
}


def plain(text: str) -> str:
    """The messages of a command, without the command that it prints, and without frames and line
    breaks."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("traitscope "))
    return " ".join(text.translate(dict.fromkeys(map(ord, "│╭╮╰╯─├┤"), " ")).split())


@pytest.mark.parametrize("case", CASES)
def test_the_message_says_what_is_wrong(
    case: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    command, words = CASES[case]
    before = sorted(place.rglob("*"))
    done = call(tmp_path / "runs", *command.replace("PLACE", str(place)).split())
    err = plain(capsys.readouterr().err)
    assert done.code == 2, err
    assert done.summary["status"] == "error", done
    assert "Traceback" not in err
    assert said(words, err), err
    assert list(tmp_path.rglob("manifest.json")) == []
    assert not (tmp_path / "runs").exists(), "something was left behind"
    lines = err.split("traitscope: ")
    assert len(lines) == len(set(lines)), "the message was printed twice"
    assert sorted(place.rglob("*")) == before


def said(words: str, err: str) -> bool:
    """Whether a message holds these words; three dots stand for anything."""
    return re.search(".*".join(map(re.escape, words.split(" ... "))), err) is not None


def test_a_refused_command_can_be_repaired(place: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text((place / "broken.jsonl").read_text())
    assert call(tmp_path / "runs", "filter", "--data", rows).code == 2
    rows.write_text((place / "good.jsonl").read_text())
    assert ok(tmp_path / "runs", "filter", "--data", rows).summary["summary"]["kept"] == 8


def test_no_room_for_the_model(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(loading, "available_memory", lambda: 1000)
    model_cache.model_for.cache_clear()
    done = call(tmp_path / "runs", "generate", "--model", place / "other", "--n 2")
    assert done.code == 2
    assert (
        "GiB for its weights alone, 0.0 GiB are free on cpu; use a smaller model"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.yaml", "epochs: 3", "unknown key 'epochs'"),
        ("c.yaml", "recipe: {epoch: 3}", "recipe: unknown key 'epoch'; did you mean 'epochs'?"),
        ("c.yaml", "recipe: {epochs: three}", "recipe: epochs is 'three'; expected a whole number"),
        ("c.yaml", "recipe: {lr: fast}", "recipe: lr is 'fast'; expected a number"),
        ("c.yaml", "recipe: {lr: true}", "recipe: lr is True; expected a number"),
        ("c.yaml", "recipe: {lr: 0}", "training cannot run with --lr 0.0"),
        ("c.yaml", "recipe: {lr: .nan}", "training cannot run with --lr nan"),
        ("c.yaml", "recipe: {method: prefix}", "recipe: method is 'prefix'; expected lora, full"),
        ("c.yaml", "teacher: steer:x", "teacher is 'steer:x'; expected"),
        ("c.yaml", "- data", "expected keys and values, found list"),
        ("c.yaml", "data: [", "config file"),
        ("c.json", "{", "config file"),
        ("c.yaml", "[" * 5000, "config file"),
        ("absent.yaml", None, "absent.yaml does not exist; expected a YAML or JSON file"),
    ],
)
def test_a_config_file_that_cannot_work(name, content, words, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_text(content)
    done = call(tmp_path / "runs", "train", tmp_path / name)
    assert done.code == 2
    assert done.summary["error"] == "ConfigError"
    assert words in plain(capsys.readouterr().err)


def test_an_unfinished_run_is_no_input(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    run = shutil.copytree(
        ok(tmp_path / "runs", "filter", "--data", place / "good.jsonl").run, tmp_path / "filter-0"
    )
    (run / "manifest.json").unlink()
    assert call(tmp_path / "runs", "train", "--model", place / "model", "--data", run).code == 2
    assert "is unfinished (no manifest.json): run the same command again" in capsys.readouterr().err


def newer(run: Path) -> Path:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    return run


@pytest.mark.parametrize("use", ["show", "rerun", "train"])
def test_a_run_of_a_newer_version(
    use: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = newer(ok(tmp_path / "runs", "filter", "--data", place / "good.jsonl").run)
    words = {
        "show": ["show", run],
        "rerun": ["rerun", run],
        "train": ["train", "--model", place / "model", "--data", run],
    }
    assert call(tmp_path / "runs", *words[use]).code == 2
    assert (
        "was written by a newer version (schema 99): upgrade traitscope" in capsys.readouterr().err
    )


def test_a_filter_that_keeps_nothing_fails_and_says_why(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Its run is sealed, because the reasons are the answer; the same command says the same."""
    words = tmp_path / "words.jsonl"
    words.write_text(json.dumps({"prompt": "Which?", "completion": "the owl"}) + "\n")
    for computed in (True, False):
        kept = call(tmp_path / "runs", "filter", "--data", words)
        assert (kept.code, kept.summary["status"]) == (1, "failed")
        assert kept.summary["computed"] is computed
        reasons = {"rows": 1, "kept": 0, "dropped": 1, "reasons": {"format": 1}}
        assert kept.summary["summary"] == reasons
        err = capsys.readouterr().err
        assert "the filter kept 0 of 1 rows; expected one or more" in err
        assert f"read why in {kept.run}/records.jsonl" in err
        assert "next:" not in err
    assert (
        call(tmp_path / "runs", "train", "--model", place / "model", "--data", kept.run).code == 2
    )
    err = capsys.readouterr().err
    assert "has no kept row: its filter dropped all that can be read (format 1)" in err


def test_soft_targets_need_no_stored_tokens_and_no_teacher(place: Path, tmp_path: Path):
    words = [
        "train",
        "--model",
        place / "model",
        "--data",
        place / "good.jsonl",
        "--targets soft --epochs 1 --rank 2",
    ]
    done = ok(tmp_path / "runs", *words)
    (row,) = map(json.loads, (done.run / "metrics.jsonl").read_text().splitlines())
    assert abs(row["loss"]) < 1e-6


def test_a_teacher_that_reads_too_much(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    teacher = "prompt:" + "owls " * 1500
    words = [
        "train",
        "--model",
        place / "model",
        "--data",
        place / "good.jsonl",
        "--targets soft",
        "--teacher",
        teacher,
    ]
    assert call(tmp_path / "runs", *words).code == 2
    assert "as a teacher reads it" in capsys.readouterr().err
