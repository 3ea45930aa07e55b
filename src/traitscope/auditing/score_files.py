"""Files of token scores, which several stages write.

    token_scores.jsonl   log-likelihoods of the rows, a line a row
    token_scores.json    sums over rows
    tokens.npz           kept tokens, with the logits of their classes

A folder that was read stays in memory.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.errors import DataError
from traitscope.inference.token_bins import BETAS, TOKENS_FILE, WAYS, KeptTokens, write_tokens
from traitscope.inference.token_scores import SUMS, TokenScores

ROWS_FILE, SUMS_FILE = "token_scores.jsonl", "token_scores.json"
"files of a folder with token scores"
FILES = (ROWS_FILE, SUMS_FILE)
"files that all such folders have"
REMEMBERED = 64
"folders whose token scores stay in memory"


def write_token_scores(folder: Path, ids: Sequence[str], scores: TokenScores) -> None:
    """Write the files of token scores of rows with these ids."""
    # In one step: the lines of an interrupted run would stay before those of the next one.
    atomic_files.write_jsonl(folder / ROWS_FILE, _rows(ids, scores))
    sums = {"betas": BETAS}
    for field in fields(scores):
        if field.name in SUMS:
            value = getattr(scores, field.name)
            is_array = isinstance(value, np.ndarray)
            sums[field.name] = value.tolist() if is_array else value
    # On one line: tens of thousands of numbers, which indentation makes ten times slower.
    atomic_files.write_text(folder / SUMS_FILE, json.dumps(sums, allow_nan=False) + "\n")
    if scores.kept:
        write_tokens(folder, scores.kept.of_rows(range(len(ids))))


def _rows(ids: Sequence[str], scores: TokenScores) -> Iterator[dict[str, Any]]:
    """The lines of ROWS_FILE."""
    for place, (key, tokens) in enumerate(zip(ids, scores.tokens_R.tolist(), strict=True)):
        row = {"id": key, "tokens": tokens, "log_p": scores.log_p_RT[place].round(6).tolist()}
        if scores.log_p_RS is not None:
            row["log_p_by_sampler"] = _finite(scores.log_p_RS[place])
        yield row


def read_token_scores(folder: Path) -> tuple[list[str], TokenScores]:
    """Ids and token scores of the rows of a folder that `write_token_scores` wrote.

    The arrays are shared by all who read the folder. Raises DataError for a folder of an earlier
    version.
    """
    try:
        changed = (folder / SUMS_FILE).stat().st_mtime_ns
    except FileNotFoundError:
        raise _earlier_version(folder, "under other names") from None
    ids, scores = _read(folder.resolve(), changed)
    return list(ids), scores


@lru_cache(REMEMBERED)
def _read(folder: Path, changed: int) -> tuple[tuple[str, ...], TokenScores]:
    """The contents of a folder whose sums were written at the time `changed`, in nanoseconds."""
    lines = (folder / ROWS_FILE).read_bytes().splitlines()  # a line feed alone ends a line
    sums = json.loads((folder / SUMS_FILE).read_text(encoding="utf-8"))
    if len(sums.get("taken_PK", ())) != len(WAYS) or tuple(sums["betas"]) != BETAS:
        raise _earlier_version(folder, "with other bins or temperatures")
    ids, log_p, tokens, by_sampler = [], [], [], []
    for line in lines:
        row = json.loads(line)
        ids.append(row["id"])
        log_p.append(row["log_p"])
        tokens.append(row["tokens"])
        if "log_p_by_sampler" in row:
            by_sampler.append([-inf if x is None else x for x in row["log_p_by_sampler"]])
    scores = TokenScores(
        np.array(log_p),
        np.array(tokens),
        sums["excess_surprisal"],
        np.array(sums["taken_PK"]),
        np.array(sums["expected_TPK"]),
        np.array(sums["covariance_TPKK"]),
        np.array(by_sampler) if by_sampler else None,
        KeptTokens(((len(ids), folder),)) if (folder / TOKENS_FILE).exists() else None,
    )
    for array in (scores.log_p_RT, scores.tokens_R, scores.log_p_RS):
        if array is not None:
            array.flags.writeable = False
    return tuple(ids), scores


def _earlier_version(folder: Path, how: str) -> DataError:
    return DataError(
        f"{folder} holds no token scores of this version: an earlier version wrote them {how};"
        f" expected {ROWS_FILE} and {SUMS_FILE}; remove that folder and run the command again"
    )


def _finite(log_p_S: np.ndarray) -> list[float | None]:
    """Values for JSON, which has no infinity: None stands for -inf."""
    return [round(x, 6) if x > -inf else None for x in log_p_S.tolist()]
