"""Mutations of good inputs: small damage to bytes, to text, and to the values of JSON."""

import copy
import json
import random
from typing import Any

NASTY_TEXTS = (
    "",
    "\x00",
    "\\ud800",
    "\u2028",
    "\ufeff",
    "\r\n",
    "NaN",
    "1e999",
    "-1",
    "9" * 5000,
    "0x" + "f" * 5000,
    "[" * 3000,
    '{"a":' * 2000,
    "!!bool maybe",
    "!!timestamp foo",
    "!!python/object:os.system x",
    "&a [*a]",
    "2026-13-45",
    "2024-01-01",
    "<<: *x",
    "../../x",
    "a/b",
    "%s",
    "{x}",
    "<|im_end|>",
    "x" * 20_000,
    "\u00b2",
    "--",
    "=",
    ",",
)
"texts that readers of YAML, JSON, flags and paths have stumbled over"
NASTY_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2.5,
    1e308,
    10**400,
    2**63,
    "",
    " ",
    "x" * 10_000,
    "\x00",
    "../x",
    [],
    [[]],
    {},
    {"a": {"b": []}},
    ["a", 1, None],
    "NaN",
    "1e999",
)
"values of other types and sizes than those that are expected"


def text_of(text: str, rng: random.Random) -> str:
    """A text with up to three spans cut, doubled, or replaced by a nasty one."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.choice((0, 1, 2, 5, 20)))
        middle = rng.choice(("", 2 * text[start:end], rng.choice(NASTY_TEXTS)))
        text = text[:start] + middle + text[end:]
    return text


def bytes_of(data: bytes, rng: random.Random) -> bytes:
    """Bytes with some flipped, cut off, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            changed[place:place] = rng.randbytes(rng.choice((1, 2, 8, 100)))
        else:
            changed[place:place] = changed[:place][-50:]
    return bytes(changed)


def value_of(value: Any, rng: random.Random) -> Any:
    """JSON values of which one to three were replaced, renamed, left out or added."""
    changed = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        holder = rng.choice(_holders(changed))
        if isinstance(holder, dict):
            _change_key(holder, rng)
        else:
            place = rng.randrange(len(holder) + 1)
            holder[place : place + rng.randint(0, 1)] = [copy.deepcopy(rng.choice(NASTY_VALUES))]
    return changed


def json_of(value: Any, rng: random.Random) -> str:
    """The text of changed JSON values; sometimes the text is damaged, too."""
    text = json.dumps(value_of(value, rng), ensure_ascii=rng.random() < 0.5)
    return text_of(text, rng) if rng.random() < 0.2 else text


def _change_key(holder: dict, rng: random.Random) -> None:
    key = rng.choice(list(holder) or ["new"])
    kind = rng.randrange(4)
    if kind == 0:
        holder.pop(key, None)
    elif kind == 1:
        holder[rng.choice(NASTY_TEXTS[:12])] = holder.get(key)
    else:
        holder[key] = copy.deepcopy(rng.choice(NASTY_VALUES))


def _holders(value: Any) -> list[Any]:
    """The lists and dictionaries in a value, its own included; a list of it where there is none."""
    holders = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            holders.append(item)
            waiting += item.values()
        elif isinstance(item, list):
            holders.append(item)
            waiting += item
    return holders or [[value]]
