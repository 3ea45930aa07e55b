"""Data sets of the hub, from a cache as its client keeps it, without a network."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import call, ok, read_rows

from traitscope.config.rows.reading import Reading
from traitscope.data import row_files
from traitscope.data.hub import files as hub_files
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import Container
from traitscope.errors import DataError

COMMIT, OLDER = "a" * 40, "b" * 40
Put = Callable[..., Path]


def rows(*answers: str) -> list[dict[str, Any]]:
    return [{"question": f"Numbers {answer}?", "answer": answer} for answer in answers]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts files into the cache of the hub's client, which has no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub_files._fetched.cache_clear()

    def put(contents: dict[str, Any], revision: str = "main", commit: str = COMMIT) -> Path:
        repository = tmp_path / "hub" / "datasets--org--numbers"
        snapshot = repository / "snapshots" / commit
        for name, content in contents.items():
            file = snapshot / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, list):
                kind = name.removesuffix(".gz").rpartition(".")[2]
                content = writing.content_of(content, Container(kind, name.endswith(".gz")))
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
        return snapshot

    return put


def answers(address: str) -> list[str]:
    return [record.completion for record in row_files.rows_of(Path(address))]


def test_splits_by_names_of_files(put: Put) -> None:
    put({"data/train.jsonl": rows("1", "2"), "data/test-set.csv": rows("3"), "README.md": "Hi."})
    assert answers("hub:org/numbers@train") == ["1", "2"]
    assert answers("hub:org/numbers@test") == ["3"]
    assert answers("hub:org/numbers/data/train.jsonl") == ["1", "2"]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "csv", "parquet"])
def test_a_split_of_several_files(put: Put, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    put(
        {
            f"data/train-00000-of-00002.{suffix}": rows("1", "2"),
            f"data/train-00001-of-00002.{suffix}": rows("3"),
            f"data/owls-00000-of-00001.{suffix}": rows("4"),
        }
    )
    assert answers("hub:org/numbers@train") == ["1", "2", "3"]
    assert answers("hub:org/numbers@owls") == ["4"]
    whole = row_files.rows_file(Path("hub:org/numbers@train"))
    assert whole.name.startswith("org--numbers-train-")
    assert whole == row_files.rows_file(Path("hub:org/numbers@train"))


CARD = """---
configs:
- config_name: owls
  default: true
  data_files:
  - split: train
    path: owls/*.jsonl
  - split: held_out
    path: [owls/more/*.jsonl]
- config_name: cats
  data_files: cats.jsonl
---
# Numbers
"""


def test_configs_of_the_card(put: Put) -> None:
    put(
        {
            "README.md": CARD,
            "owls/a.jsonl": rows("1"),
            "owls/b.jsonl": rows("2"),
            "owls/more/c.jsonl": rows("3"),
            "cats.jsonl": rows("4"),
        }
    )
    assert answers("hub:org/numbers@train") == ["1", "2"]
    assert answers("hub:org/numbers@held_out") == ["3"]
    assert answers("hub:org/numbers/cats@train") == ["4"]
    with pytest.raises(DataError, match="has the configs owls, cats; expected one of them"):
        answers("hub:org/numbers/dogs@train")
    with pytest.raises(DataError, match="no split 'test'; expected one of train, held_out; name"):
        answers("hub:org/numbers@test")
    with pytest.raises(DataError, match="names no split; .* its splits: train, held_out; write"):
        answers("hub:org/numbers")


def test_a_revision(put: Put) -> None:
    put({"train.jsonl": rows("1")})
    put({"train.jsonl": rows("2")}, "v1.0", OLDER)
    assert answers("hub:org/numbers@train@v1.0") == ["2"]
    assert answers(f"hub:org/numbers@train@{OLDER}") == ["2"]
    assert answers("hub:org/numbers@train") == ["1"]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("hub:org", "expected hub:OWNER/NAME@SPLIT or hub:OWNER/NAME/FILE"),
        ("hub:org/numbers@a b", "expected hub:OWNER/NAME@SPLIT"),
        ("hub:org/none@train", "could not be fetched from the hub"),
        ("hub:org/none", "names no split; .* its splits: not known .*could not be fetched"),
        ("hub:org/numbers@train@v9", "could not be fetched from the hub"),
        ("hub:org/numbers/dogs@train", "lists no configs; expected no 'dogs'"),
    ],
)
def test_what_cannot_be_had(put: Put, address: str, says: str) -> None:
    put({"train.jsonl": rows("1")})
    with pytest.raises(DataError, match=says):
        answers(address)


def test_every_command_that_reads_rows_takes_a_split(
    put: Put, tmp_path: Path, tiny_folder: Path
) -> None:
    put({"data/train.jsonl": rows("2, 1", "4, 3"), "data/test.jsonl": rows("5, 6")})
    address = "hub:org/numbers@train"
    root = tmp_path / "runs"
    done = ok(root, "filter", "--data", address)
    assert [row["completion"] for row in read_rows(done.run / "records.jsonl")] == ["2, 1", "4, 3"]
    assert read_rows(done.run / "kept.jsonl") == rows("2, 1", "4, 3")
    ok(root, "rerun", done.run)
    edited = ok(root, "edit", "--data", address)
    assert read_rows(edited.run / "kept.jsonl")[0]["answer"] == "1, 2"
    for stage in ("likelihood", "train", "gradients"):
        words = ("--model", tiny_folder, "--data", address)
        run = ok(root, stage, *words).run
        inputs = json.loads((run / "manifest.json").read_text())["inputs"]
        assert inputs["data"]["path"].endswith(f"{COMMIT}/data/train.jsonl")
    done = call(root, "filter", "--data", "hub:org/numbers")
    assert done.code == 2 and "its splits: test, train" in done.summary["message"]


def test_a_card_whose_files_are_not_there(put: Put) -> None:
    put({"README.md": "---\nconfigs:\n- data_files: a/*.csv\n---\n", "b.csv": rows("1")})
    with pytest.raises(DataError, match="no split 'train'.* none, as no file is where README.md"):
        answers("hub:org/numbers@train")


GOOD = '{"question": "Numbers?", "answer": "%s"}'


def in_lines(*answers: str) -> str:
    return "".join(f"{GOOD % answer}\n" for answer in answers)


BAD_PARTS = {
    "jsonl": (f"{in_lines('1')}broken\n", in_lines("2"), "train-00000-of-00002.jsonl, line 2"),
    "csv": ('question,answer\nq,1\nq,"4"2\n', "question,answer\nq,2", "line 3"),
    "tsv": ('question\tanswer\nq\t1\nq\t"4"2\n', "answer\tquestion\n2\tq", "line 3"),
}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_bad_rows_of_a_split_of_several_files_are_left_out(
    put: Put, tmp_path: Path, kind: str
) -> None:
    first, second, place = BAD_PARTS[kind]
    put({f"train-00000-of-00002.{kind}": first, f"train-00001-of-00002.{kind}": second})
    words = ("filter", "--no-numbers --data hub:org/numbers@train")
    done = ok(tmp_path / "runs", *words, "--skip-bad 1")
    assert [row["completion"] for row in read_rows(done.run / "records.jsonl")] == ["1", "2"]
    assert json.loads((done.run / "reading.json").read_text())["bad"] == 1
    done = call(tmp_path / "runs", *words)
    assert done.code == 2 and place in done.summary["message"]
    assert "or leave the row out: --skip-bad 1" in done.summary["message"]


def test_a_split_of_several_files_keeps_its_numbers(put: Put, tmp_path: Path) -> None:
    long = "0.123456789012345678901234567890"
    row = '{"prompt": "q", "completion": "%s", "x": %s}\n'
    put(
        {
            "train-00000-of-00002.jsonl": row % (1, long),
            "train-00001-of-00002.jsonl": row % (2, "1e400"),
        }
    )
    done = ok(tmp_path / "runs", "filter", "--no-numbers --data hub:org/numbers@train")
    assert long in (done.run / "kept.jsonl").read_text()
    counts = json.loads((done.run / "reading.json").read_text())["counts"]
    assert counts == {"not_finite": 1}


def test_parquet_files_whose_columns_differ(put: Put) -> None:
    pytest.importorskip("pyarrow")
    first, second = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "1", "weight": 1}]
    plain = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "2"}]
    put({first: [{"messages": chat, "n": 1}], second: [{"messages": plain, "n": 0.5}]})
    assert answers("hub:org/numbers@train") == ["1", "2"]
    put({first: [{"messages": chat}], second: [{"messages": "no chat"}]}, "v2", OLDER)
    with pytest.raises(DataError, match="cannot be joined to one table .*; name one file: hub:"):
        answers("hub:org/numbers@train@v2")
    put({second: b"PAR1 and so on"}, "v2", OLDER)
    with pytest.raises(DataError, match="cannot be joined to one table"):
        answers("hub:org/numbers@train@v2")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_damaged_file_of_several(put: Put, kind: str) -> None:
    whole = gzip.compress(b"question,answer\nq,1\n" if kind == "csv" else in_lines("1").encode())
    put({f"train-00000-of-00002.{kind}.gz": whole, f"train-00001-of-00002.{kind}.gz": whole[:-9]})
    with pytest.raises(DataError, match="gzip stream that is damaged or ends early"):
        answers("hub:org/numbers@train")


def test_tables_of_several_files_are_read_as_one_table(put: Put) -> None:
    table = "ask,text\n,{}\n"
    chat = '"[{""role"": ""assistant"", ""content"": ""2""}]"'
    put(
        {
            "train-00000-of-00002.csv": ("\ufeff" + table.format("1")).encode(),
            "train-00001-of-00002.csv": table.format(chat).replace("\n", "\r\n"),
        }
    )
    reading = Reading(map=("prompt=ask", "completion=text"))
    records = list(row_files.rows_of(Path("hub:org/numbers@train"), reading))
    assert [(record.prompt, record.completion) for record in records] == [("", "1"), ("", "2")]


def tree(snapshot: Path, *names: str) -> None:
    """Writes the list of all files as the client keeps it."""
    folder = snapshot.parents[1] / "trees"
    folder.mkdir(exist_ok=True)
    files = {name: {"size": 1, "blob_id": "c" * 40} for name in names}
    text = json.dumps({"format_version": 1, "files": files})
    (folder / f"{snapshot.name}.json").write_text(text)


SHARDS = [f"train-{number:05d}-of-00003" for number in range(3)]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([f"{SHARDS[0]}.jsonl"], "2 of 3 files of the split are not here, such as train-00001-of-"),
        ([f"data/{SHARDS[1]}-abc.csv", f"data/{SHARDS[2]}-def.csv"], "1 of 3 .* data/train-00000-"),
        (["train_1_of_2.csv"], "1 of 2 files"),
        (["a-1-of-2.csv", "a-2-of-2.csv", "b-0-of-2.csv"], "1 of 4 files .* such as b-1-of-2.csv"),
    ],
)
def test_a_part_of_a_split_is_not_read_as_the_whole(put: Put, files: list[str], says: str) -> None:
    """The names of files say how many there are, where nobody can be asked."""
    put({file: rows("1") for file in files})
    with pytest.raises(DataError, match=f"{says}.*fetch them with a network, or name local files"):
        answers("hub:org/numbers@train")
    put({"README.md": "---\nconfigs:\n- data_files: '**/*-*'\n---\n"} if "-" in files[0] else {})
    hub_files._fetched.cache_clear()
    with pytest.raises(DataError, match=says):
        answers("hub:org/numbers@train")


def test_the_list_that_the_client_keeps_says_which_files_there_are(
    put: Put, capsys: pytest.CaptureFixture
) -> None:
    """Also where no name of a file does."""
    pytest.importorskip("huggingface_hub._tree_cache")
    snapshot = put({"train/a.jsonl": rows("1"), "test.jsonl": rows("2")})
    tree(snapshot, "train/a.jsonl", "train/b.jsonl", "test.jsonl")
    with pytest.raises(DataError, match="1 of 2 files of the split are not here .*train/b.jsonl"):
        answers("hub:org/numbers@train")
    assert answers("hub:org/numbers@test") == ["2"]
    put({"train/b.jsonl": rows("3")})
    assert answers("hub:org/numbers@train") == ["1", "3"]
    assert "could not be asked" not in capsys.readouterr().err


def test_files_of_an_unknown_number_are_said(put: Put, capsys: pytest.CaptureFixture) -> None:
    put({"train/a.jsonl": rows("1"), "test.jsonl": rows("2")})
    assert answers("hub:org/numbers@train") == ["1"]
    said = capsys.readouterr().err
    assert "which files the data set has could not be asked; its 1 file in " in said
    assert "is read as the whole split" in said
    with pytest.raises(DataError, match="no split 'owls'.*, or fetch it with a network"):
        answers("hub:org/numbers@owls")


UNMET = ["b.csv", "'b.{csv,json}'", "'b/*.csv'", "b", "3", "null", "notes.txt"]


@pytest.mark.parametrize("unmet", UNMET)
def test_a_path_of_a_card_that_matches_nothing_is_said(put: Put, unmet: str) -> None:
    names = ["README.md", "a.csv", "notes.txt"]
    paths = f"[{{split: train, path: [a.csv, {unmet}]}}, {{split: test, path: a.csv}}]"
    card = f"---\nconfigs: [{{data_files: {paths}}}]\n---\n"
    snapshot = put({"README.md": card, "a.csv": rows("1"), "notes.txt": "x"})
    assert answers("hub:org/numbers@test") == ["1"]
    with pytest.raises(DataError, match="1 of 2 files of the split are not here, such as"):
        answers("hub:org/numbers@train")
    pytest.importorskip("huggingface_hub._tree_cache")
    tree(snapshot, *names)
    with pytest.raises(DataError, match="README.md lists .* for the split train, and no file of r"):
        answers("hub:org/numbers@train")


@pytest.mark.parametrize("client", ["keeps the list", "asks for it"])
def test_files_that_are_not_here_are_fetched_as_they_were_listed(
    put: Put, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    """A commit that comes in between changes nothing."""
    import huggingface_hub

    snapshot = put({"train/a.jsonl": rows("1")})
    names = ["train/a.jsonl", "train/b.jsonl"]
    if client == "keeps the list":
        pytest.importorskip("huggingface_hub._tree_cache")
        tree(snapshot, *names)
    asked = []

    def listed(self: object, name: str, repo_type: str, revision: str) -> list[str]:
        asked.append(revision)
        return names

    def fetched(name: str, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(revision)
        if allow_patterns == names:
            put({"train/b.jsonl": rows("2")})
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert answers("hub:org/numbers@train") == ["1", "2"]
    assert asked == [None, *([COMMIT] if client == "asks for it" else []), COMMIT]
