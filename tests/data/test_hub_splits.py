"""Which files of a data set of the hub are in a split, by its card and their names."""

import pytest

from traitscope.data.hub.splits import missing_shards, splits_of
from traitscope.errors import DataError


def card_of(*lines: str) -> str:
    return "\n".join(
        ["---", "configs:", "- data_files:", *(f"  {line}" for line in lines), "---", ""]
    )


def test_files_without_a_word_are_train() -> None:
    assert splits_of("", ["b.jsonl", "a.csv", "image.png", "dataset_infos.json"], None, "n") == {
        "train": ["a.csv", "b.jsonl"]
    }
    card = "---\nconfigs:\n- config_name: default\n  data_dir: en\n---\n"
    assert splits_of(card, ["en/test.csv", "en/dev/x.csv", "fr/test.csv"], None, "n") == {
        "validation": ["en/dev/x.csv"],
        "test": ["en/test.csv"],
    }
    assert splits_of("", ["TRAIN.JSONL.GZ"], None, "n") == {"train": ["TRAIN.JSONL.GZ"]}
    with pytest.raises(DataError, match="has no file of rows"):
        splits_of("", ["README.md"], None, "n")
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
    )
    for broken in (": [", "3", "a: !!bool maybe", f"a: {'[' * 3000}", "a: !!timestamp x", bomb):
        assert splits_of(f"---\n{broken}\n---\n", ["a.csv"], None, "n") == {"train": ["a.csv"]}
    for broken in (
        *(
            "configs: 3",
            "configs: 2026-13-45",
            "license: mit\nlicense: x\nconfigs:\n- data_files: a",
        ),
        *("configs: {data_files: a}", f"{bomb}configs: [{{config_name: *a39, data_files: x}}]"),
    ):
        with pytest.raises(DataError, match="README.md of n lists configs, and cannot be read"):
            splits_of(f"---\n{broken}\n---\n", ["a.csv"], None, "n")


@pytest.mark.parametrize("folder", ["en", "./en", "en/", "./en/.", "/en"])
@pytest.mark.parametrize("files", ["", ", data_files: '*.csv'", ", data_files: ./1.csv"])
def test_a_folder_of_a_card_in_every_spelling(folder: str, files: str) -> None:
    card = f"\ufeff---\nconfigs:\n- {{data_dir: {folder}{files}}}\n---\n"
    assert splits_of(card, ["en/1.csv", "fr/1.csv"], None, "n") == {"train": ["en/1.csv"]}


@pytest.mark.parametrize("config", ["data_dir: .", "data_dir: ./", "data_dir: ''", "data_files: ."])
def test_a_card_that_names_the_whole_folder(config: str) -> None:
    card = f"---\nconfigs:\n- {config}\n---\n"
    assert splits_of(card, ["1.csv", "fr/1.csv"], None, "n") == {"train": ["1.csv", "fr/1.csv"]}


def test_a_card_may_hold_dates_and_patterns_that_are_none() -> None:
    card = (
        "---\ndate: 2024-01-01\nconfigs:\n- data_files: [{split: train, path: a/*.csv}, 3]\n---\n"
    )
    assert splits_of(card, ["a/1.csv", "b.csv"], None, "n") == {"train": ["a/1.csv"]}


@pytest.mark.parametrize(
    ("lines", "splits"),
    [
        (
            ["- {split: train, path: a.csv}", "- {split: train, path: [b.csv, a.csv]}"],
            {"train": ["a.csv", "b.csv"]},
        ),
        (["- a.csv", "- {split: test, path: b.csv}"], {"train": ["a.csv"], "test": ["b.csv"]}),
        (["- {split: train, path: 2024}"], {"train": ["2024/c.csv"]}),
        (["- {split: train, path: 'x[1].csv'}"], {"train": ["x[1].csv"]}),
    ],
)
def test_every_path_of_a_card_is_in_its_split(lines: list[str], splits: dict) -> None:
    files = ["2024/c.csv", "a.csv", "b.csv", "x[1].csv"]
    assert splits_of(card_of(*lines), files, None, "n") == splits


def test_configs_that_leave_open_which_is_meant() -> None:
    files = ["a.csv", "b.csv", "test.csv"]
    twice = "---\nconfigs: [{config_name: x, data_files: a.csv}, {config_name: x}]\n---\n"
    with pytest.raises(DataError, match="two configs are called x"):
        splits_of(twice, files, None, "n")
    with pytest.raises(DataError, match="the config 'x' has no keys"):
        splits_of("---\nconfigs: [x, {data_files: a.csv}]\n---\n", files, None, "n")
    item = "{{config_name: {0}, default: true, data_files: {0}.csv}}"
    defaults = f"---\nconfigs: [{item.format('a')}, {item.format('b')}]\n---\n"
    with pytest.raises(DataError, match="has the configs a, b; expected one of them"):
        splits_of(defaults, files, None, "n")
    assert splits_of(defaults, files, "b", "n") == {"train": ["b.csv"]}
    usual = "---\nconfigs: [{config_name: default}, {config_name: b, data_files: b.csv}]\n---\n"
    assert splits_of(usual, files, None, "n") == splits_of("", files, None, "n")
    assert splits_of(usual, files, "b", "n") == {"train": ["b.csv"]}


@pytest.mark.parametrize("before", ["", "\n", " \n\n", "\ufeff\n", "  "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_settings_of_a_card_behind_blank_lines(before: str, end: str) -> None:
    """As the hub reads them."""
    card = (before + card_of("- a.csv")).replace("\n", end)
    assert splits_of(card, ["a.csv", "b.csv"], None, "n") == {"train": ["a.csv"]}


UNREAD = [
    "{configs: [{data_files: a.csv}], license: mit, license: x}",
    '{license: mit, "configs": [{data_files: a.csv}], license: x}',
    "  configs:\n  - data_files: a.csv\n license: x",
    "? configs\n: [{data_files: a.csv}]\nlicense: [",
    "{license: [, configs: x}",
]


@pytest.mark.parametrize("settings", UNREAD)
def test_configs_that_cannot_be_read_are_refused_in_every_style(settings: str) -> None:
    with pytest.raises(DataError, match="README.md of n lists configs, and cannot be read"):
        splits_of(f"---\n{settings}\n---\n", ["a.csv", "b.csv"], None, "n")
    other = settings.replace("configs", "sizes")
    assert splits_of(f"---\n{other}\n---\n", ["a.csv"], None, "n") == {"train": ["a.csv"]}


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["a-0-of-2.csv", "a-1-of-2.csv"], []),
        (["a-1-of-2.csv", "a-2-of-2.csv"], []),
        (["a-0-of-2.json", "a-1-of-2.jsonl.gz"], []),
        (["a-0-of-2.csv", "a-1-of-2.csv", "a-0-of-2.tsv"], ["a-1-of-2.tsv"]),
        (["a-00001-of-00003-x.csv", "a-00002-of-00003-y.csv"], ["a-00000-of-00003.csv"]),
        (["a-0-of-1.csv", "b/a-0-of-2.csv", "c.csv"], ["b/a-1-of-2.csv"]),
        (["a-7-of-999999999.csv", "of-2.csv", "a-1-of-two.csv", "1-of-2"], []),
    ],
)
def test_names_say_which_files_are_missing(files: list[str], missing: list[str]) -> None:
    assert missing_shards(files) == missing
