"""A run is named by what can change it, computed once, sealed last, and anything that happens to it
later is noticed."""

import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import traitscope
from traitscope.atomic_files import append_jsonl, write_json, write_text
from traitscope.errors import StoreError
from traitscope.runs import code_version, locks, manifests, store
from traitscope.runs.lineage import lineage, verify
from traitscope.runs.manifests import file_sha256
from traitscope.runs.store import address, find_runs, load_run, stage_run

CONFIG = {"seed": 3, "train": {"lr": 1e-3, "layers": [1, 2]}}
ENV = os.environ | {"PYTHONPATH": str(Path(traitscope.__file__).parents[1])}
STAGE = """
import sys, time
from pathlib import Path
from traitscope.atomic_files import write_text
from traitscope.runs.store import stage_run
folder, resumable, pause = Path(sys.argv[1]), sys.argv[2] == "resume", float(sys.argv[3])
with stage_run(folder, "train", {"seed": 3}, resumable=resumable) as run:
    if not run.sealed:
        with open(folder / "computed.log", "a") as side:
            side.write("once\\n")
        write_text(run.file("a.txt"), "a")
        write_text(run.file("scratch/step.pt"), "1")
        print("half", flush=True)
        time.sleep(pause)
        write_text(run.file("sub/b.txt"), "b")
print(run.digest)
"""


def start(folder: Path, how: str, pause: float) -> subprocess.Popen:
    command = [sys.executable, "-c", STAGE, str(folder), how, str(pause)]
    return subprocess.Popen(
        command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def make(folder: Path, stage: str = "train", text: str = "hello", **settings):
    with stage_run(folder, stage, settings.pop("config", CONFIG), **settings) as run:
        if not run.sealed:
            write_text(run.file("out/a.txt"), text)
            append_jsonl(run.file("metrics.jsonl"), {"step": 1, "loss": 0.5})
    return load_run(run.path)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- the address


KEYS = st.text(max_size=5)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3), max_leaves=8
)
CONFIGS = st.dictionaries(KEYS, VALUES, max_size=4)


def backwards(value):
    if isinstance(value, dict):
        return {key: backwards(item) for key, item in reversed(value.items())}
    return tuple(backwards(item) for item in value) if isinstance(value, list) else value


@given(CONFIGS)
def test_the_address_ignores_key_order_and_survives_a_json_file(config):
    expected = address("train", config, {}, None)
    assert address("train", backwards(config), {}, None) == expected
    assert address("train", json.loads(json.dumps(config)), {}, None) == expected
    assert len(expected) == 16 and set(expected) <= set("0123456789abcdef")


@given(CONFIGS, CONFIGS)
def test_different_configs_have_different_addresses(a, b):
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (address("train", a, {}, None) == address("train", b, {}, None)) is same


def test_every_argument_counts():
    calls = [
        ("train", CONFIG, {"data": "aa"}, "m"),
        ("measure", CONFIG, {"data": "aa"}, "m"),
        ("train", CONFIG | {"seed": 4}, {"data": "aa"}, "m"),
        ("train", CONFIG | {"train": {"lr": 1e-3, "layers": [2, 1]}}, {"data": "aa"}, "m"),
        ("train", CONFIG | {"seed": "3"}, {"data": "aa"}, "m"),
        ("train", CONFIG | {"new": None}, {"data": "aa"}, "m"),
        ("train", CONFIG, {"data": "ab"}, "m"),
        ("train", CONFIG, {"rows": "aa"}, "m"),
        ("train", CONFIG, {}, "m"),
        ("train", CONFIG, {"data": "aa"}, "n"),
        ("train", CONFIG, {"data": "aa"}, None),
    ]
    assert len({address(*call) for call in calls}) == len(calls)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), Path("x"), {1: 2}, {1, 2}, b"x"])
def test_what_json_cannot_hold_is_refused_by_place(bad):
    with pytest.raises(StoreError, match=r"config\.train\.1\.lr is "):
        address("train", {"train": [0, {"lr": bad}]}, {}, None)


@pytest.mark.parametrize("stage", ["", "a/b", "..", "Train", "a-b"])
def test_a_stage_must_be_able_to_name_a_folder(stage):
    with pytest.raises(StoreError, match="cannot name a folder"):
        address(stage, {}, {}, None)


# --- sealing


def test_the_manifest_says_what_ran(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("{}\n")
    facts = {}
    with stage_run(tmp_path / "s", "train", CONFIG, {"rows": data}, model="m", facts=facts) as run:
        assert (
            not run.sealed and json.loads(run.file("config.json").read_text())["config"] == CONFIG
        )
        write_text(run.file("a.txt"), "a")
        write_text(run.file("adapter/config.json"), "{}")
        write_text(run.file("log.txt"), "noise")
        write_text(run.file("scratch/x"), "noise")
        write_text(run.file(".a.txt.0123abcd.tmp"), "left over")
        facts |= {"device": "cpu", "threads": 2, "rows": 1}
    manifest = run.manifest()
    assert list(manifest["outputs"]) == ["a.txt", "adapter/config.json"]
    assert manifest["inputs"]["rows"] == {"path": "../../rows.jsonl", "digest": file_sha256(data)}
    assert (manifest["seed"], manifest["device"], manifest["threads"], manifest["rows"]) == (
        3,
        "cpu",
        2,
        1,
    )
    assert manifest["seconds"] >= 0 and manifest["peak_memory_mib"] > 1 and manifest["model"] == "m"
    assert set(manifest["versions"]) == {"python", "traitscope", "torch", "transformers", "numpy"}
    assert sorted(p.name for p in run.path.iterdir()) == [
        "a.txt",
        "adapter",
        "config.json",
        "log.txt",
        "manifest.json",
    ]
    assert load_run(run.path).sealed and verify(run.path) == []


def test_the_disk_holds_every_output_before_the_manifest_says_so(tmp_path, monkeypatch):
    """The order counts where the power fails: outputs and their folders first, then the manifest,
    which is flushed under its temporary name."""
    flushed = []

    def flush(handle: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{handle}"))
        flushed.append((place.name, (run.path / "manifest.json").exists()))

    with stage_run(tmp_path, "train", CONFIG) as run:
        write_text(run.file("sub/a.txt"), "a")
        (run.path / "b.txt").write_text("written without a flush")
        monkeypatch.setattr(os, "fsync", flush)
    names = [name for name, _ in flushed]
    assert {"a.txt", "b.txt", "sub", run.path.name} <= set(names)
    before = names[: next(i for i, name in enumerate(names) if name.startswith(".manifest.json"))]
    assert {"a.txt", "b.txt", "sub"} <= set(before)
    assert not any(sealed for name, sealed in flushed if name != run.path.name)


def test_writing_flushes_the_file_and_its_folder(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: flushed.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
    )
    write_text(tmp_path / "a.txt", "a")
    assert [path.name.split(".")[1] for path in flushed[:1]] == ["a"]
    assert flushed[-1] == tmp_path


def test_a_sealed_run_is_returned_untouched(tmp_path):
    first = make(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in first.path.rglob("*")}
    with stage_run(tmp_path, "train", CONFIG) as run:
        assert run.sealed and run.path == first.path
    assert {p: p.stat().st_mtime_ns for p in first.path.rglob("*")} == before


def test_the_digest_depends_on_results_only(tmp_path):
    rows = tmp_path / "rows"
    rows.write_text("x")
    runs = [
        make(tmp_path / "a"),
        make(tmp_path / "b" / "c"),
        make(tmp_path / "a", inputs={"rows": rows}),
    ]
    assert len({run.digest for run in runs}) == 1 and len({run.address for run in runs}) == 2
    assert make(tmp_path / "d", text="other").digest != runs[0].digest


def test_an_exception_leaves_the_run_unsealed(tmp_path):
    with pytest.raises(KeyError, match="boom"), stage_run(tmp_path, "train", CONFIG) as run:
        raise KeyError("boom")
    assert [found.sealed for found in find_runs(tmp_path)] == [False]
    for act in (
        lambda: run.digest,
        lambda: load_run(run.path),
        lambda: make(tmp_path, "measure", inputs={"i": run}),
    ):
        with pytest.raises(StoreError, match="unfinished.*run the same command again to continue"):
            act()


def test_an_unsealed_directory_is_moved_aside_or_resumed(tmp_path):
    for text in ("one", "two"):
        with pytest.raises(KeyError), stage_run(tmp_path, "train", CONFIG) as run:
            assert sorted(p.name for p in run.path.iterdir()) == ["config.json"]
            write_text(run.file("a.txt"), text)
            raise KeyError
    with stage_run(tmp_path, "train", CONFIG, resumable=True) as run:
        assert run.file("a.txt").read_text() == "two"
    assert (tmp_path / f"{run.path.name}.stale-1" / "a.txt").read_text() == "one"
    with pytest.raises(KeyError), stage_run(tmp_path, "filter", CONFIG):
        raise KeyError
    with stage_run(tmp_path, "filter", CONFIG):
        pass
    assert len(list(tmp_path.glob("*.stale-*"))) == 1, "a folder without results was kept"
    assert run.path in [found.path for found in find_runs(tmp_path)]


def test_a_stage_that_overwrites_config_json_is_not_sealed(tmp_path):
    with (
        pytest.raises(StoreError, match="overwritten by the stage"),
        stage_run(tmp_path, "train", CONFIG) as run,
    ):
        write_json(run.file("config.json"), {"model_type": "llama"})
    assert not manifests.is_sealed(run.path)


def test_links_are_not_sealed(tmp_path):
    (tmp_path / "elsewhere").write_text("x")
    with pytest.raises(StoreError, match="is a link"), stage_run(tmp_path, "train", CONFIG) as run:
        run.file("a.txt").symlink_to(tmp_path / "elsewhere")


def test_a_name_cannot_lead_out_of_the_run(tmp_path):
    run = make(tmp_path)
    for name in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(StoreError, match="leads out of the run"):
            run.file(name)


def test_git_describes_only_a_checkout_that_tracks_the_package(tmp_path):
    def git(*words):
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True
        )

    (tmp_path / "store.py").write_text("")
    assert code_version.described(tmp_path) is None
    git("init", "-q")
    assert code_version.described(tmp_path) is None
    git("add", "store.py")
    assert code_version.described(tmp_path) is None
    git("commit", "-q", "-m", "first")
    clean = code_version.described(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "store.py").write_text("changed")
    assert code_version.described(tmp_path) == clean | {"dirty": True}


# --- crashes and company


@pytest.mark.parametrize("how", ["redo", "resume"])
def test_kill_9_then_the_same_call_gives_the_undisturbed_digest(tmp_path, how):
    with start(tmp_path / "killed", how, 60) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    again, undisturbed = start(tmp_path / "killed", how, 0), start(tmp_path / "other", how, 0)
    assert again.communicate(timeout=20) == undisturbed.communicate(timeout=20)
    stale = [path.name for path in (tmp_path / "killed").glob("*.stale-*")]
    assert len(stale) == (1 if how == "redo" else 0)
    (run,) = find_runs(tmp_path / "killed")
    assert run.sealed and verify(run.path) == [] and not run.file("scratch").exists()


def test_two_processes_compute_once(tmp_path):
    first = start(tmp_path, "redo", 1.0)
    assert first.stdout.readline() == "half\n"
    second = start(tmp_path, "redo", 1.0)
    out, err = second.communicate(timeout=20)
    assert out == first.communicate(timeout=20)[0]
    assert (
        err.count("\n") == 1
        and f"waiting for process {first.pid} on {platform.node()} to finish" in err
        and "train-" in err
    )
    assert (tmp_path / "computed.log").read_text() == "once\n"


def test_a_waiter_that_finds_the_run_sealed_lets_go_of_the_lock(tmp_path, monkeypatch):
    done = make(tmp_path / "other").path
    flock = locks.fcntl.flock

    def finish_meanwhile(stream, how):
        flock(stream, how)
        shutil.copytree(done, tmp_path / done.name)

    monkeypatch.setattr(locks.fcntl, "flock", finish_meanwhile)
    with stage_run(tmp_path, "train", CONFIG) as run:
        assert run.sealed
        assert not locks.lock_of(run.path).exists()


@pytest.mark.parametrize("how", ["done", "refused"])
def test_a_lock_goes_with_its_process_and_takes_the_empty_folders_along(tmp_path, how):
    """Folders that were there before stay."""
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "made" / "too" / f"train-{'0' * 16}"
    with suppress(KeyError), locks.locked(path):
        assert locks.lock_of(path).read_text() == f"process {os.getpid()} on {platform.node()}"
        if how == "refused":
            raise KeyError
        path.mkdir()
    assert list(tmp_path.rglob("*.lock")) == list(tmp_path.rglob(".locks")) == []
    assert path.exists() is (how == "done")
    assert list((tmp_path / "there").iterdir()) == ([path.parents[1]] if how == "done" else [])


def test_one_holds_the_lock_at_a_time_although_each_deletes_it(tmp_path):
    path = tmp_path / "made" / f"train-{'0' * 16}"
    inside, most = [], []

    def hold(number: int) -> None:
        for _ in range(100):
            with locks.locked(path):
                inside.append(number)
                most.append(len(inside))
                time.sleep(1e-4)
                inside.remove(number)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(hold, range(6)))
    assert len(most) == 600 and set(most) == {1}
    assert list(tmp_path.rglob("*.lock")) == list(tmp_path.rglob(".locks")) == []


# --- damage


def test_damage_is_named(tmp_path):
    run = make(tmp_path)
    file, metrics, old = (
        run.file("out/a.txt"),
        run.file("metrics.jsonl"),
        run.manifest()["outputs"]["out/a.txt"],
    )
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    metrics.unlink()
    run.file("extra.bin").write_bytes(b"")
    edit(run.file("config.json"), config={})
    config, extra, missing, changed = verify(run.path)
    assert f"{file} changed: sha256 is {file_sha256(file)}, sealed was {old}" in changed
    assert (
        f"{metrics} is missing" in missing
        and "extra.bin was added" in extra
        and "config.json changed" in config
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', "\xff"])
def test_an_unreadable_manifest_is_one_problem(tmp_path, text):
    run = make(tmp_path)
    run.file("manifest.json").write_text(text, encoding="latin-1")
    (problem,) = verify(run.path)
    assert "manifest.json" in problem
    with pytest.raises(StoreError, match="manifest.json"):
        make(tmp_path)


def test_a_newer_schema_is_refused(tmp_path):
    run = make(tmp_path)
    edit(run.file("manifest.json"), schema=manifests.SCHEMA + 1)
    for act in (lambda: load_run(run.path), lambda: make(tmp_path), lambda: run.digest):
        with pytest.raises(StoreError, match="newer version .*upgrade traitscope"):
            act()
    assert "upgrade traitscope" in verify(run.path)[0]
    run.file("manifest.json").unlink()
    edit(run.file("config.json"), schema=manifests.SCHEMA + 1)
    with pytest.raises(StoreError, match="upgrade traitscope"):
        make(tmp_path, resumable=True)


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="there is no run directory"):
        load_run(tmp_path / "none")
    with pytest.raises(StoreError, match="is not a run directory"):
        load_run(tmp_path)
    with pytest.raises(StoreError, match="there is no folder"):
        find_runs(tmp_path / "none")
    with pytest.raises(StoreError, match="input 'rows': there is no file or run"):
        make(tmp_path, inputs={"rows": tmp_path / "none"})
    run = make(tmp_path)
    run.path.rename(tmp_path / f"train-{address('train', {}, {}, None)}")
    with pytest.raises(StoreError, match="it was renamed"):
        make(tmp_path, config={})


# --- lineage


def chain(root: Path) -> list[store.Run]:
    data = root / "rows.jsonl"
    write_text(data, "{}\n")
    first = make(root / "study", "generate", inputs={"rows": data})
    second = make(root / "study", "filtering", inputs={"records": first.path})
    return [
        first,
        second,
        make(root / "other", inputs={"kept": second, "metrics": first.file("metrics.jsonl")}),
    ]


def test_a_moved_root_still_verifies_and_shows_its_lineage(tmp_path):
    runs = chain(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = [tmp_path / "new" / run.path.relative_to(tmp_path / "old") for run in runs]
    assert [verify(path) for path in moved] == [[], [], []]
    tree = lineage(moved[2])
    first = tree["inputs"]["kept"]["inputs"]["records"]
    assert (tree["stage"], first["stage"], first["path"]) == ("train", "generate", str(moved[0]))
    assert (
        first["inputs"]["rows"]["state"] == "file" and first["digest"] == load_run(moved[0]).digest
    )
    assert tree["inputs"]["metrics"]["stage"] == "generate"
    inputs = {"kept": moved[1], "metrics": moved[0] / "metrics.jsonl"}
    with stage_run(tmp_path / "new" / "other", "train", CONFIG, inputs) as run:
        assert run.sealed


def test_changed_and_missing_inputs(tmp_path):
    first, second, third = chain(tmp_path)
    first.file("out/a.txt").write_text("changed")
    (problem,) = verify(second.path)
    assert "input 'records'" in problem and f"made from {first.digest}" in problem
    assert verify(third.path) == []
    (tmp_path / "rows.jsonl").unlink()
    second.file("manifest.json").unlink()
    tree = lineage(third.path)
    assert tree["inputs"]["kept"]["state"] == "damaged"
    assert tree["inputs"]["metrics"]["inputs"]["rows"]["state"] == "missing"


# --- places that cannot be written


@contextmanager
def small_disk(path: Path, size: int):
    """A real file system of `size` bytes; skips where mounting is not allowed."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
    if sys.platform != "linux" or os.geteuid() or subprocess.call(mount, stderr=subprocess.DEVNULL):
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    with small_disk(tmp_path / "disk", 65536) as disk:
        with (
            pytest.raises(StoreError, match="big.txt.*disk is full"),
            stage_run(disk, "train", CONFIG) as run,
        ):
            write_text(run.file("a.txt"), "a")
            write_text(run.file("big.txt"), "x" * 10**5)
        assert sorted(p.name for p in run.path.iterdir()) == ["a.txt", "config.json"]
        with pytest.raises(StoreError, match="disk is full"):
            for step in range(10**4):
                append_jsonl(disk / "metrics.jsonl", {"step": step, "text": "x" * 100})
        assert all(
            json.loads(line)["text"] for line in (disk / "metrics.jsonl").read_text().splitlines()
        )


def test_no_space_for_the_manifest_leaves_the_run_unsealed(tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if Path(target).name == "manifest.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="manifest.json.*disk is full"):
        make(tmp_path)
    monkeypatch.undo()
    (run,) = find_runs(tmp_path)
    assert not run.sealed and not list(tmp_path.rglob("*.tmp"))
    assert verify(make(tmp_path).path) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_read_only_place_is_named(tmp_path, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    write = tmp_path / "a.txt"
    with pytest.raises(StoreError, match=r"a\.txt.*read-only"):
        write_text(write, "x")
    monkeypatch.setattr(Path, "mkdir", refuse)
    for act in (
        lambda: make(tmp_path / "runs"),
        lambda: append_jsonl(write, {}),
        lambda: write_text(write, "x"),
    ):
        with pytest.raises(StoreError, match="read-only"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_expected(tmp_path):
    (tmp_path / "runs").write_text("")
    for act in (
        lambda: make(tmp_path / "runs"),
        lambda: write_text(tmp_path / "runs" / "a.txt", "x"),
    ):
        with pytest.raises(StoreError, match="a file is where a folder is expected"):
            act()


def test_writing_replaces_whole_files_and_refuses_nan(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": 1, "a": "é"})
    assert list(json.loads(path.read_text("utf-8"))) == ["b", "a"]
    (path.parent / "plain").write_text("")
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode
    (path.parent / "plain").unlink()
    for write in (write_json, append_jsonl):
        with pytest.raises(StoreError, match=r"a\.json as JSON"):
            write(path, {"loss": float("nan")})
    assert list(path.parent.iterdir()) == [path] and json.loads(path.read_text("utf-8"))["b"] == 1


def test_importing_the_store_is_cheap():
    code = "import sys, traitscope.runs.store; sys.exit('torch' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", code], env=ENV) == 0


@pytest.mark.parametrize("damage", ["edited", "same size", "deleted"])
def test_a_sealed_run_is_checked_before_it_is_used(tmp_path, damage):
    """As a result that is there already, and as an input; a second look reads no file again."""
    with stage_run(tmp_path, "generate", CONFIG) as made:
        write_text(made.file("a.txt"), "one")
    with stage_run(tmp_path, "train", CONFIG, {"data": made}) as run:
        write_text(run.file("b.txt"), "two")
    for _ in range(2):
        with stage_run(tmp_path, "train", CONFIG, {"data": made}) as again:
            assert again.sealed
    if damage == "deleted":
        made.file("a.txt").unlink()
    else:
        made.file("a.txt").write_text("One" if damage == "same size" else "longer")
    with stage_run(tmp_path, "train", CONFIG, {"data": made}) as again:
        assert again.sealed, "it was made of what is in its manifest"
    says = "is missing" if damage == "deleted" else "changed after it was sealed"
    with pytest.raises(StoreError, match=says), stage_run(tmp_path, "generate", CONFIG):
        pass
    with (
        pytest.raises(StoreError, match=says),
        stage_run(tmp_path, "measure", CONFIG, {"data": made}),
    ):
        raise AssertionError("computed from an input that was changed")
    assert not list(tmp_path.glob("measure-*"))
