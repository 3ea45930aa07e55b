"""Counts with their nouns, as people write them: 1 row, 2 rows."""


def counted(n: float, singular: str, plural: str = "") -> str:
    """A count and what is counted, such as 1 row and 3 rows.

    singular: The words behind a count of 1.
    plural: The words behind any other; those behind 1 and an s where none are given.
    """
    return f"{n} {singular if n == 1 else plural or f'{singular}s'}"
