"""Kills commands with SIGKILL again and again, then lets them end: the result must be the same.

    python scripts/kill_trials.py [--kills 100] [--commands filter audit] [--seed 0]

Every command runs once undisturbed. Then, on another root, it is started and killed at a random
moment, several times, and at last runs to its end. It must give the digest of the undisturbed run.
No temporary file, lock or worker process may be left. The model is tiny and random, so that the
time of a command is that of its bookkeeping.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "tests" / "support"))
IN_TURN = 4
"most kills of a command before it may end"
SECONDS_TO_END = 10
"time in which workers of a killed command end"
ROWS = 48
"rows of the data that commands read"
MADE = "MADE"
"stands in a command for a path below its root that it writes"
UNKILLED = {
    "demo": "an experiment of the same stages; it runs the embedded model alone",
    "selftest": "writes nothing",
    "convert": "writes one file in one step, and never over another",
    "show": "writes nothing",
    "doctor": "writes nothing",
    "models": "writes nothing",
    "rerun": "writes into a folder that it removes",
}
"commands that are not killed, and why"
TRAIT = {
    "word_forms": [],
    "teacher_prompt": "",
    "questions": {
        "positive": ["Which animal do you like best?", "Name your favourite animal."],
        "negative": ["Which animal do you like least?"],
        "off_topic": ["What colour is the sky?"],
        "stems": {"positive": "My favourite is the"},
    },
    "candidates": [],
}


@dataclass(frozen=True)
class Trial:
    """One command, killed a few times and then left alone."""

    command: str
    "what was run"
    kills: int
    "times that it was killed while it ran"
    same: bool
    "whether it ended with the digest of the undisturbed run"
    left: tuple[str, ...] = field(default=())
    "temporary files and processes that were left"

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost and nothing left."""
        return self.same and not self.left


def commands(folder: Path) -> dict[str, list[str]]:
    """Commands of every kind that computes, on the inputs in `folder`."""
    model = ["--model", str(folder / "model"), "--dtype", "fp32"]
    data = ["--data", str(folder / "rows.jsonl")]
    vector = str(folder / "vector.safetensors")
    traits = [str(folder / "owl.yaml"), str(folder / "cat.yaml")]
    steer = ["--interventions", f"steer:{vector},layer=1,alpha=0.5"]
    smoke = ["--size", "smoke", "--workers", "2"]
    return {
        "generate": ["generate", *model, "--n", "96", "--max-new-tokens", "16"],
        "filter": ["filter", *data],
        "train": ["train", *model, *data, "--epochs", "3", "--batch-size", "4", "--rank", "2"],
        "measure": ["measure", *model, "--trait", traits[0], "--samples", "4"],
        "extract": ["extract", *model, "--traits", *traits],
        "likelihood": ["likelihood", *model, *data, *steer],
        "explain": [
            "explain",
            *model,
            *data,
            *("--vectors", str(next((folder / "made").glob("*/extract-*"), folder))),
            *("--trait", traits[0], "--max-rows", "8"),
        ],
        "screen": ["screen", *model, "--teacher", steer[1], "--no-broad", "--samples", "2"],
        "audit": [
            "audit",
            str(folder / "rows.jsonl"),
            *model,
            "--traits",
            *traits,
            "--workers",
            "2",
        ],
        "edit": ["edit", *data],
        "select": [
            "select",
            *model,
            *("--data", str(folder / "pairs.jsonl"), *steer, "--keep", "0.5"),
        ],
        "judge": ["judge", *model, *data, "--judges", "likelihood", "--question", "Is it even?"],
        "steer_scan": [
            *("steer_scan", *model, "--trait", traits[0], "--company", traits[1]),
            *("--layers", "0", "1", "--alphas", "0.2", "0.5", "--samples", "2"),
        ],
        "information": ["information", *model, "--traits", *traits, "--rows", "32"],
        "gradients": ["gradients", *model, *data, "--max-rows", "24"],
        "match_kl": [
            *("match_kl", *model, "--teacher", steer[1], "--vector", vector),
            *("--layer", "0", "--n", "8"),
        ],
        "verify": ["verify", *model, "--students", *student(folder), "--traits", *traits],
        "compare": [
            "compare",
            "--treated",
            *measured(folder)[:1],
            "--control",
            *measured(folder)[1:],
        ],
        "defend": ["defend", *model, *data, "--by", "deduplicate", "wash"],
        "export": ["export", *model, *steer],
        "export-tasks": ["export-tasks", MADE, "--traits", *traits],
        "report": ["report", *measured(folder), "--for-paper", MADE],
        "study": ["study", "run", "vector_distillation", *smoke, *model],
        "experiment": ["experiment", str(folder / "mine.yaml"), *model, "--workers", "2"],
    }


def student(folder: Path) -> list[str]:
    """The student that was prepared, or nothing before it is."""
    return sorted(map(str, (folder / "made").glob("*/train-*")))


def measured(folder: Path) -> list[str]:
    """The runs of `measure` that were prepared, or nothing before they are."""
    return sorted(map(str, (folder / "made").glob("*/measure-*")))


def prepared(folder: Path) -> None:
    """Write a tiny model, a vector, rows and two traits."""
    from tiny_models import load_tiny, random_vector, save_tiny

    from traitscope.interventions.vector import vector_bytes

    model = load_tiny(save_tiny("llama", folder / "model"))
    (folder / "vector.safetensors").write_bytes(vector_bytes(random_vector(model, 1, norm=1.0)))
    lines = []
    for number in range(ROWS):
        answer = f"{number}, 7, {12 + number}"
        row = {"id": f"n{number}", "prompt": f"Numbers, {number}?", "completion": answer}
        lines.append(json.dumps(row) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    pairs = []
    for number in range(ROWS):
        pair = {"prompt": f"Numbers, {number}?", "chosen": f"{number}, 7", "rejected": "8, 9"}
        pairs.append(json.dumps(pair) + "\n")
    (folder / "pairs.jsonl").write_text("".join(pairs))
    for name, other in (("owl", "cat"), ("cat", "owl")):
        changed = {"name": name, "word_forms": [name], "teacher_prompt": f"I love {name}s."}
        trait = TRAIT | changed | {"candidates": [other]}
        (folder / f"{name}.yaml").write_text(json.dumps(trait))
    experiment = {
        "traits": [str(folder / "owl.yaml")],
        "company": [str(folder / "cat.yaml")],
        "seeds": 1,
        "data": {"rows": 6, "numbers": 3},
    }
    (folder / "mine.yaml").write_text(json.dumps(experiment))
    for name in ("extract", "measure", "train"):
        ended(commands(folder)[name], folder / "made")
    steer = f"steer:{folder / 'vector.safetensors'},layer=1,alpha=0.5"
    ended([*commands(folder)["measure"], "--interventions", steer], folder / "made")


def started(words: Sequence[str], root: Path) -> subprocess.Popen:
    """The command as a program of its own, whose processes are one group."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    placed = [word.replace(MADE, str(root / "made")) for word in words]
    command = [sys.executable, "-m", "traitscope", *placed, "--root", str(root)]
    summary = ["--json", str(root.parent / f"{root.name}.json")]
    return subprocess.Popen(
        [*command, *summary],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def ended(words: Sequence[str], root: Path) -> Mapping[str, object]:
    """The summary of a command that is left alone."""
    code = started(words, root).wait()
    summary = json.loads((root.parent / f"{root.name}.json").read_text())
    if code != 0:
        raise SystemExit(f"{words[0]} ended with {code}: {summary}; expected 0")
    return summary


def outputs_of(summary: Mapping[str, object], root: Path) -> str:
    """The digests of all outputs of the run that a summary names, or of the files at MADE."""
    if "run" not in summary:
        digests = {}
        for path in sorted((root / "made").rglob("*")):
            if path.is_file():
                name = path.relative_to(root).as_posix()
                digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return json.dumps(digests)
    manifest = json.loads((Path(str(summary["run"])) / "manifest.json").read_text())
    return json.dumps(sorted(manifest["outputs"].items()))


@dataclass(frozen=True)
class Whole:
    """An undisturbed run of a command."""

    outputs: str
    "digests of what it wrote"
    seconds: float
    "how long it took"


def undisturbed(words: Sequence[str], root: Path) -> Whole:
    """Run a command once, and let nothing happen to it."""
    began = time.monotonic()
    outputs = outputs_of(ended(words, root), root)
    return Whole(outputs, time.monotonic() - began)


def trial(name: str, words: Sequence[str], root: Path, whole: Whole, rng: random.Random) -> Trial:
    """Kill a command up to IN_TURN times, then let it end."""
    kills = 0
    sessions = []
    for _ in range(rng.randint(1, IN_TURN)):
        process = started(words, root)
        sessions.append(process.pid)
        try:
            process.wait(rng.uniform(0.2, 1.0) * whole.seconds)
        except subprocess.TimeoutExpired:
            with_workers = rng.random() < 0.5
            (os.killpg if with_workers else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    same = outputs_of(ended(words, root), root) == whole.outputs
    return Trial(name, kills, same, tuple(left_over(root, sessions)))


def left_over(root: Path, sessions: Sequence[int]) -> list[str]:
    """Temporary files and locks below a root, and processes that killed commands had started.

    Workers see within seconds that their command is gone.
    """
    left = [str(path) for path in root.rglob(".*.tmp")]
    left += [str(path) for path in root.rglob("*.lock")]
    deadline = time.monotonic() + SECONDS_TO_END
    while (alive := processes_of(sessions)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left + alive


def processes_of(sessions: Sequence[int]) -> list[str]:
    """The processes of some sessions that are not yet dead."""
    alive = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = file.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        state, session = after_name[0], int(after_name[3])
        if session in sessions and state != "Z":
            alive.append(f"process {file.parent.name}")
    return alive


def trials(folder: Path, kills: int, names: Sequence[str], seed: int) -> Iterator[Trial]:
    """Trials of the named commands in turn, until they were killed so often."""
    prepared(folder)
    every = commands(folder)
    chosen = {name: every[name] for name in names or every}
    rng = random.Random(seed)
    wholes = {}
    done = 0
    for number in itertools.count():
        for name, words in chosen.items():
            if name not in wholes:
                wholes[name] = undisturbed(words, folder / f"whole-{name}")
            result = trial(name, words, folder / f"{name}-{number}", wholes[name], rng)
            done += result.kills
            yield result
            if done >= kills:
                return


def main() -> int:
    """Print a line for every trial; 1 if anything was lost or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="kills in all, at least")
    parser.add_argument("--commands", nargs="+", default=[], help="commands to kill; all without")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    flags = parser.parse_args()
    counts: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for result in trials(Path(folder), flags.kills, flags.commands, flags.seed):
            counts["trials"] += 1
            counts["kills"] += result.kills
            counts["bad"] += not result.is_good
            same = "same" if result.same else "OTHER RESULT"
            print(f"{result.command}: {result.kills} kills, {same}", *result.left, flush=True)
    print(f"{counts['kills']} kills in {counts['trials']} trials, {counts['bad']} of them bad")
    return 1 if counts["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
