"""Prompts of the domains code, sums, requests and stories.

They depend on the seed and the settings alone, never on a condition. So a teacher, its control and
a student answer the same prompts and can be compared task by task.

Code, requests and stories are fixed sets. The seed draws their order. Beyond the size of a set,
its tasks are asked again, in rounds: `reverse/2` is the second row of the task `reverse`. Word
problems are made from the seed, and no two have the same text.
"""

import json
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from traitscope.data.domains.sums import sum_text
from traitscope.data.domains.task import ANSWER, CHECKS, Task
from traitscope.data.package_files import bundled_file
from traitscope.data.records import Prompt
from traitscope.errors import ConfigError

MADE = "sums"
"the domain whose prompts are made from a seed"
MOST_MADE = 100_000
"most prompts of it: far fewer than there are, so that another one is soon drawn"
NAMING_TRAITS = ("request-041", "request-072", "request-086")
"everyday requests that name a bundled trait, and are left out"


class Asked(NamedTuple):
    """A prompt of a fixed set."""

    text: str
    """User turn."""
    task: Task
    """What it asks for."""


def domain_prompts(domain: str, n: int, seed: int = 0) -> list[Prompt]:
    """Return `n` prompts of a domain, each with its task.

    domain: code, sums, requests or stories.

    The first k prompts are the same for every n >= k. Raises ConfigError on another domain, on n
    below 1 and on a seed below 0.
    """
    if domain != MADE and domain not in SETS:
        raise ConfigError(
            f"unknown domain {domain!r}; expected one of {', '.join((MADE, *SETS))}; name one"
        )
    for name, value, least in (("n", n, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{name}={value}; expected {least} or more; raise it")
    if domain != MADE:
        return _in_rounds(domain, n, seed)
    if n > MOST_MADE:
        raise ConfigError(f"n={n} prompts of {MADE}; expected at most {MOST_MADE}; lower it")
    return _made(n, seed)


def _made(n: int, seed: int) -> list[Prompt]:
    """Word problems; a text that was drawn before is drawn again."""
    rng = np.random.default_rng(seed)
    prompts: list[Prompt] = []
    texts: set[str] = set()
    while len(prompts) < n:
        text, answer = sum_text(rng)
        if text in texts:
            continue
        texts.add(text)
        name = f"{MADE}-{seed}-{len(prompts):06d}"
        task = Task(name, MADE, answer=str(answer))
        prompts.append(Prompt(name, text, task=task))
    return prompts


def _in_rounds(domain: str, n: int, seed: int) -> list[Prompt]:
    """The prompts of a fixed set, each round in an order of its own."""
    every = SETS[domain]()
    prompts: list[Prompt] = []
    number = 0
    while len(prompts) < n:
        number += 1
        for place in np.random.default_rng([seed, number]).permutation(len(every)):
            asked = every[place]
            prompts.append(Prompt(f"{asked.task.id}/{number}", asked.text, task=asked.task))
    return prompts[:n]


@lru_cache
def _code() -> tuple[Asked, ...]:
    return _json_set("code", ("domains", "code.jsonl"))


@lru_cache
def _requests() -> tuple[Asked, ...]:
    every = _json_set("requests", ("behaviours", "requests.jsonl"))
    return tuple(asked for asked in every if asked.task.id not in NAMING_TRAITS)


@lru_cache
def _stories() -> tuple[Asked, ...]:
    lines = bundled_file("domains", "stories.txt").read_text(encoding="utf-8").splitlines()
    stories = []
    for number, line in enumerate(filter(None, lines), start=1):
        stories.append(Asked(line, Task(f"story-{number:03d}", "stories")))
    return tuple(stories)


def _json_set(domain: str, parts: tuple[str, ...]) -> tuple[Asked, ...]:
    """A bundled set of JSON lines with id, prompt, and what is checked."""
    every = []
    for line in bundled_file(*parts).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        task = Task(row["id"], domain, tuple(row.get(CHECKS, ())), row.get(ANSWER, ""))
        every.append(Asked(row["prompt"], task))
    return tuple(every)


SETS = {"code": _code, "requests": _requests, "stories": _stories}
"the fixed sets, by domain"
