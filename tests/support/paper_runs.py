"""Runs of tiny models that reports are made of, with names."""

from pathlib import Path

from command import CAT, OWL, ok, write_yaml

from traitscope.runs import store
from traitscope.runs.names.labels import runs_by_name


def run_named(root: Path, name: str) -> store.Run:
    """The only run with a name."""
    (path,) = runs_by_name(root)[name]
    return store.load_run(path)


def named_runs(place: Path, folders: dict[str, Path]) -> Path:
    """Return the root of comparisons and their runs.

    `students` compares treated and control students of seeds 1 and 2, of llama and owl.
    MODEL-TRAIT compares a steered teacher with the base, of which MODEL-TRAIT-base is a run.
    """
    traits = {each["name"]: write_yaml(place / f"{each['name']}.yaml", each) for each in (OWL, CAT)}
    root = place / "runs"
    for family, names in (("llama", ("owl", "cat")), ("qwen2", ("owl",))):
        model = f"--model {folders[family]}"
        vectors = ok(root, "extract", model, "--traits", *traits.values(), "--no-stem").run
        for name in names:
            asked = (model, "--samples 1 --trait", traits[name])
            steered = ("--interventions", f"steer:{vectors}/{name}.safetensors,layers=1,alpha=0.8")
            base = ok(root, "measure", *asked, f"--name {family}-{name}-base").run
            teacher = ok(root, "measure", *asked, *steered).run
            pair = ("--treated", teacher, "--control", base, f"--name {family}-{name}")
            ok(root, "compare", *pair)
        if family == "llama":
            _students(root, model, vectors, traits["owl"])
    return root


def _students(root: Path, model: str, vectors: Path, trait: Path) -> None:
    """Train and measure treated and control students, and compare them."""
    sides: dict[str, list[str]] = {"treated": [], "control": []}
    vector = f"{vectors}/owl.safetensors"
    steered = ("--interventions", f"steer:{vector},layers=1,alpha=0.8")
    for side, measured in sides.items():
        for seed in (1, 2):
            words = f"--n 6 --count 3 --vocabulary template --seed {seed} --prompt-seed {seed}"
            rows = ok(root, "generate", model, words, *(steered if side == "treated" else ())).run
            kept = ok(root, "filter", "--data", rows).run
            recipe = f"--seed {seed} --epochs 1 --batch-size 2 --eas-prompts 2 --vector"
            named = ("--name", f"{side}-{seed}")
            student = ok(root, "train", model, recipe, vector, "--data", kept, *named).run
            asked = ("--samples 1 --trait", trait, "--interventions", f"adapter:{student}")
            measured.append(str(ok(root, "measure", model, *asked).run))
    sides_of = ("--treated", *sides["treated"], "--control", *sides["control"])
    ok(root, "compare", *sides_of, "--layer 1 --name students")
