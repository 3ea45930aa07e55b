"""Texts that surely have more tokens than a model takes, known by their characters alone."""

import json
from functools import lru_cache
from typing import Any

COMPOSED = 4
"most characters that NFC makes one of"


def most_characters(tokenizer: Any, tokens: int) -> int | None:
    """The most characters of a text of so many tokens; None where no bound is known.

    tokens * longest * composed. `longest` is the longest entry of a vocabulary of bytes, which
    spells a character in one byte or more. `composed` is COMPOSED with NFC, else 1. A tokenizer
    that takes characters away, such as spaces beside a token, has no bound.
    """
    longest = _longest(tokenizer)
    return None if longest is None else tokens * longest


@lru_cache(maxsize=8)
def _longest(tokenizer: Any) -> int | None:
    """The most characters of a text that a token can stand for; None where no bound is known."""
    from tokenizers.pre_tokenizers import ByteLevel

    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return None
    plan = json.loads(fast.to_str())
    normalizer = (plan.get("normalizer") or {}).get("type")
    steps = plan.get("pre_tokenizer") or {}
    kinds = {step.get("type") for step in steps.get("pretokenizers", [steps])}
    is_of_bytes = "ByteLevel" in kinds and kinds <= {"ByteLevel", "Digits", "Split"}
    removes = any(step.get("behavior") == "Removed" for step in steps.get("pretokenizers", [steps]))
    strips = any(token["lstrip"] or token["rstrip"] for token in plan.get("added_tokens", ()))
    cuts = plan.get("truncation") is not None
    if not is_of_bytes or removes or strips or cuts or normalizer not in (None, "NFC"):
        return None
    vocabulary = fast.get_vocab(with_added_tokens=True)
    if plan["model"]["type"] != "BPE" or not vocabulary.keys() >= set(ByteLevel.alphabet()):
        return None  # bytes that it has not are left out
    return max(map(len, vocabulary)) * (COMPOSED if normalizer else 1)
