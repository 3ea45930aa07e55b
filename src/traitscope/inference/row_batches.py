"""Batches of rows that a model reads together: rows of one prompt, or rows of like length."""

from collections.abc import Sequence

from traitscope.inference.token_rows import Row


def batches(rows: Sequence[Row], size: int) -> list[list[int]]:
    """Indices of rows that are read together, at most `size` of them.

    Rows of one prompt are read together where they fill half a batch, in batches of like size.
    Rows so much longer that padding costs more than another reading of their prompt are read apart.
    The other rows are read by length.
    """
    ranked = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i in ranked:
        by_prompt.setdefault(rows[i].prompt_ids, []).append(i)
    fewest_shared = max(3, size) / 2
    shared = {}
    for prompt, same_prompt in by_prompt.items():
        if len(same_prompt) >= fewest_shared:
            shared[prompt] = same_prompt
    rest = [i for i in ranked if rows[i].prompt_ids not in shared]
    groups = []
    for start in range(0, len(rest), size):
        groups.append(rest[start : start + size])
    for prompt, same_prompt in shared.items():
        lengths = [len(rows[i].completion_ids) for i in same_prompt]
        for index in _by_length(same_prompt, lengths, len(prompt)):
            groups += _equal_parts(index, -(-len(index) // size))
    return groups


def _equal_parts(index: list[int], parts: int) -> list[list[int]]:
    """The indices in `parts` consecutive pieces, whose lengths differ by one at most."""
    cut = []
    for n in range(parts):
        start = n * len(index) // parts
        end = (n + 1) * len(index) // parts
        cut.append(index[start:end])
    return cut


def _by_length(ranked: list[int], lengths: list[int], most: int) -> list[list[int]]:
    """Rows ranked by length, in groups: no row makes its group pad by more than `most` tokens."""
    groups = [ranked[:1]]
    held = lengths[0]
    for row, length in zip(ranked[1:], lengths[1:], strict=True):
        if len(groups[-1]) * length - held > most:
            groups.append([])
            held = 0
        groups[-1].append(row)
        held += length
    return groups
