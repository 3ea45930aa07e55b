"""The files of each split of a data set on the hub, from its card and the names of its files.

A card (README.md) may list configs and their files. Without such a list the names of files and
folders say the split, as `datasets` reads them: `data/train-00000-of-00002.parquet`, `test.jsonl`,
`validation/part.csv`. Where none says one, all files are `train`. Source: the hub's pages on the
structure of repositories and on manual configuration.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

from traitscope.errors import DataError
from traitscope.plain_values import NotPlainError, from_yaml

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"suffixes of files with rows, each also with .gz behind it"
NOT_ROWS = ("dataset_infos.json", "dataset_dict.json", "state.json", "dataset_info.json")
"JSON files that describe a data set"
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"words in names of files that say a split"
SHARD = re.compile(r"(?:^|.*/)([\w.-]+?)-\d{5}-of-\d{5}(?:-\w+)?\.")
"a file that is one of several of a split"
NUMBERED = re.compile(r"(.*?)[-_.](\d{1,6})[-_]of[-_](\d{1,6})(?:-\w+)?(\..*)")
"a file that says which one it is of how many"
FRONT = re.compile(r"\A\s*---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
"the settings at the beginning of a card"
LISTS_CONFIGS = re.compile(r"""\bconfigs["']?\s*:""")
"the key of configs in settings that cannot be read"
USUAL = "default"
"name of a config that has none"
Splits = dict[str, list[str]]
"files by split"


def splits_of(card: str, files: Sequence[str], config: str | None, name: str) -> Splits:
    """The files of each split of a config.

    card: The text of README.md, empty where there is none.
    files: All files of the data set, as paths in it.
    config: Name of a config; None takes the only one, or the default.
    name: The data set, for messages.

    Raises DataError for a config that is not there, and where one must be named.
    """
    data = sorted(file for file in files if _holds_rows(file))
    if not data:
        raise DataError(
            f"{name} has no file of rows ({', '.join(sorted(files)[:5]) or 'no file'}); expected"
            f" {', '.join(SUFFIXES)}; name another data set, or write its rows into such a file"
        )
    configs = _configs(card, name)
    if not configs:
        if config not in (None, USUAL):
            raise DataError(
                f"{name} lists no configs; expected no {config!r} before @; write {name}@SPLIT"
            )
        return _by_names(data)
    chosen = _chosen(configs, config, name)
    return _by_patterns(chosen, data)


def unmatched(
    card: str, files: Sequence[str], config: str | None, name: str, split: str
) -> list[str]:
    """What a card lists for a split, and no file of rows is there; as `splits_of` otherwise."""
    configs = _configs(card, name)
    if not configs:
        return []
    chosen = _chosen(configs, config, name)
    patterns = (_listed(chosen) or {}).get(split, ())
    data = [file for file in files if _holds_rows(file)]
    return [pattern for pattern in patterns if not _matching(data, pattern, _folder(chosen))]


def missing_shards(files: Sequence[str]) -> list[str]:
    """Names of the files that are missing by what the names of the others say.

    `train-00000-of-00002.csv` says that there is `train-00001-of-00002.csv`.
    """
    sets: dict[tuple[str, str], dict[str, set[int]]] = {}
    for file in files:
        if part := NUMBERED.fullmatch(file):
            stem, number, total, suffix = part.groups()
            sets.setdefault((stem, total), {}).setdefault(suffix, set()).add(int(number))
    missing = []
    for (stem, total), numbers in sets.items():
        there = set().union(*numbers.values())
        if len(there) == sum(map(len, numbers.values())):  # one set, of several formats perhaps
            numbers = {next(iter(numbers)): there}
        for suffix, present in numbers.items():
            first = 1 if int(total) in present else 0
            for number in sorted(set(range(first, first + int(total))) - present):
                missing.append(f"{stem}-{number:0{len(total)}}-of-{total}{suffix}")
    return missing


def _holds_rows(file: str) -> bool:
    path = PurePosixPath(file.lower().removesuffix(".gz"))
    return path.suffix in SUFFIXES and path.name not in NOT_ROWS


def _configs(card: str, name: str) -> dict[str, Mapping[str, Any]]:
    """The configs of a card by their names; none where none of them names files.

    Raises DataError for settings that list configs and cannot be read: other files might be taken.
    """
    front = FRONT.match(card.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))
    if front is None:
        return {}
    try:
        settings = from_yaml(front[1], dates=True)
    except NotPlainError as error:
        if LISTS_CONFIGS.search(front[1]):
            raise _unread(name, str(error)) from None
        return {}
    listed = settings.get("configs") if isinstance(settings, dict) else None
    if listed and not isinstance(listed, list):
        raise _unread(name, "configs is no list")
    configs: dict[str, Mapping[str, Any]] = {}
    for item in listed or ():
        if not isinstance(item, dict):
            raise _unread(name, f"the config {item!r:.40} has no keys")
        called = str(item.get("config_name", USUAL))
        if called in configs:
            raise _unread(name, f"two configs are called {called}")
        configs[called] = item
    name_files = [item for item in configs.values() if "data_files" in item or "data_dir" in item]
    return configs if name_files else {}


def _unread(name: str, reason: str) -> DataError:
    return DataError(
        f"README.md of {name} lists configs, and cannot be read ({reason}); expected YAML with a"
        f" list of configs; name a file: {name}/FILE"
    )


def _chosen(
    configs: Mapping[str, Mapping[str, Any]], config: str | None, name: str
) -> Mapping[str, Any]:
    if config is None:
        defaults = [item for item in configs.values() if item.get("default") is True]
        if len(configs) == 1 or len(defaults) == 1:
            return (*defaults, *configs.values())[0]
        config = USUAL
    if config not in configs:
        raise DataError(
            f"{name} has the configs {', '.join(configs)}; expected one of them before @; write"
            f" {name}/{next(iter(configs))}@SPLIT"
        )
    return configs[config]


def _by_patterns(config: Mapping[str, Any], files: Sequence[str]) -> Splits:
    """The files that the patterns of a config match, by split."""
    folder = _folder(config)
    inside = [file for file in files if not folder or file.startswith(f"{folder}/")]
    listed = _listed(config)
    if listed is None:
        return _by_names(inside)
    splits: Splits = {}
    for split, patterns in listed.items():
        matched = set()
        for pattern in patterns:
            matched |= _matching(inside, pattern, folder)
        splits[split] = sorted(matched)
    return splits


def _folder(config: Mapping[str, Any]) -> str:
    return _plain(str(config.get("data_dir") or ""))


def _listed(config: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """The patterns that a config lists for each split; None where it lists none.

    A split may be named several times. A pattern without a split is of train.
    """
    given = config.get("data_files")
    if given is None:
        return None
    pairs: list[tuple[Any, Any]] = []
    if isinstance(given, dict):
        pairs += given.items()
    for item in () if isinstance(given, dict) else given if isinstance(given, list) else (given,):
        is_named = isinstance(item, dict)
        pairs.append(
            (item.get("split", "train"), item.get("path")) if is_named else ("train", item)
        )
    listed: dict[str, list[str]] = {}
    for split, paths in pairs:
        patterns = paths if isinstance(paths, list) else [paths]
        listed.setdefault(str(split), []).extend(map(str, patterns))
    return listed


def _matching(files: Sequence[str], pattern: str, folder: str) -> set[str]:
    """The files that a pattern matches, which may stand below the folder of its config."""
    whole = _plain(f"{folder}/{pattern}" if folder else pattern)
    return {file for file in files if _matches(file, whole)}


def _plain(path: str) -> str:
    """A path inside a data set without `.` and further slashes; empty for the whole."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _matches(file: str, pattern: str) -> bool:
    """Whether a pattern with * and ** matches a path; a folder matches all that lies in it."""
    if not pattern or file == pattern or file.startswith(f"{pattern}/"):
        return True
    if "**" not in pattern and file.count("/") != pattern.count("/"):
        return False
    return fnmatch(file, pattern) or fnmatch(file, pattern.replace("**/", ""))


def _by_names(files: Sequence[str]) -> Splits:
    """The files by the split that their names say; all of them train where none says one."""
    splits: Splits = {}
    for file in files:
        split = _said_by(file)
        if split is not None:
            splits.setdefault(split, []).append(file)
    return splits or {"train": list(files)}


def _said_by(file: str) -> str | None:
    if shard := SHARD.match(file):
        return _split_in(shard[1]) or shard[1]
    for part in reversed(PurePosixPath(file).parts):
        if split := _split_in(part):
            return split
    return None


def _split_in(name: str) -> str | None:
    """The split that a word of a name says."""
    words = re.split(r"[^a-z]+", name.lower())
    for split, synonyms in WORDS.items():
        if set(synonyms) & set(words):
            return split
    return None
