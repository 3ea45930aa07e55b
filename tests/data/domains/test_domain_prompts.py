"""Prompts of the domains: they name no trait, can be checked, and depend on the seed alone."""

import hashlib
import json
import re
from collections import Counter

import pytest
from code_solutions import SOLUTIONS

from traitscope.data.domains import sums
from traitscope.data.domains.prompts import SETS, domain_prompts
from traitscope.data.traits import bundled_traits, load_trait, whole_word
from traitscope.errors import ConfigError
from traitscope.stages.domains.running import PASSED, outcome_of

DOMAINS = ("code", "sums", "requests", "stories")
SIZES = {"code": 48, "requests": 97, "stories": 40}
PINNED = {
    "code": "3f542c3623e89001",
    "sums": "0bd69ed1f3dff782",
    "requests": "0431f79bac512af3",
    "stories": "2c74dfa6ec1df56e",
}
"digests of the first 100 prompts of the seed 42: other ones would move the rows of existing runs"


@pytest.mark.parametrize("domain", DOMAINS)
def test_stream_is_pinned(domain: str) -> None:
    lines = []
    for prompt in domain_prompts(domain, 100, 42):
        lines.append(json.dumps([prompt.id, prompt.text, prompt.task.as_dict()]))
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == PINNED[domain]


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_prompt_names_a_bundled_trait(domain: str) -> None:
    texts = [prompt.text for prompt in domain_prompts(domain, 500)]
    if domain == "sums":
        texts += [*sums.NAMES, *sums.THINGS, *(text for text, _ in sums.SITUATIONS)]
    traits = [load_trait(name) for name in bundled_traits()]
    named = [(trait.name, text) for trait in traits for text in texts if whole_word(trait, text)]
    assert not named


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("k", [1, 50, 130])
def test_the_first_prompts_do_not_depend_on_how_many(domain: str, k: int) -> None:
    assert domain_prompts(domain, k, seed=3) == domain_prompts(domain, 200, seed=3)[:k]


@pytest.mark.parametrize("domain", DOMAINS)
def test_ids_are_unique_and_other_seeds_give_others(domain: str) -> None:
    one, other = domain_prompts(domain, 200, seed=0), domain_prompts(domain, 200, seed=1)
    assert len({prompt.id for prompt in one}) == 200
    assert [prompt.text for prompt in one] != [prompt.text for prompt in other]


@pytest.mark.parametrize("domain", SETS)
def test_a_set_is_asked_in_rounds(domain: str) -> None:
    """Each round has every task once; a further row of a task has its id, and is one more row."""
    size = SIZES[domain]
    prompts = domain_prompts(domain, 2 * size + 1)
    tasks = Counter(prompt.task.id for prompt in prompts)
    assert len(tasks) == size and sorted(set(tasks.values())) == [2, 3]
    assert {prompt.id for prompt in prompts[:size]} == {f"{task}/1" for task in tasks}


def test_word_problems_are_distinct_and_have_whole_answers() -> None:
    prompts = domain_prompts("sums", 5000, seed=7)
    assert len({prompt.text for prompt in prompts}) == 5000
    assert all(prompt.task.answer.isdecimal() for prompt in prompts)
    assert all(re.search(r"[{}]", prompt.text) is None for prompt in prompts)


ORACLES = {
    "boxes": r"has (\d+) boxes with (\d+) \w+ each and (\d+)",
    "buys": r"buys (\d+) \w+, gives (\d+) to a neighbour and loses (\d+)",
    "sells": r"sells (\d+) \w+, on Tuesday twice as many, and on Wednesday (\d+)",
    "bags": r"puts (\d+) \w+ into (\d+) bags, .* adds (\d+)",
    "shelf": r"has (\d+) rows of (\d+) \w+. \w+ takes (\d+)",
    "works": r"works (\d+) hours a day for (\d+) days and then (\d+)",
    "ticket": r"ticket costs (\d+) coins and a drink (\d+) coins. \w+ pays for (\d+)",
    "friend": r"has (\d+) \w+. A friend has (\d+) more",
    "walks": r"walks (\d+) km on each of (\d+) days, and (\d+)",
    "reads": r"reads (\d+) pages each morning and (\d+) pages each evening. .* in (\d+) days",
    "jug": r"holds (\d+) spoons .* pours (\d+) spoons into one glass and (\d+)",
    "sister": r"is (\d+) years old. In (\d+) years, .* who is (\d+) years older",
}
"the numbers of each situation, in the order of the text"
FORMULAS = {
    "boxes": lambda a, b, c: a * b + c,
    "buys": lambda a, b, c: a - b - c,
    "sells": lambda a, b: a + 2 * a + b,
    "bags": lambda a, b, c: a // b + c,
    "shelf": lambda a, b, c: a * b - c,
    "works": lambda a, b, c: a * b + c,
    "ticket": lambda a, b, c: c * a + b,
    "friend": lambda a, b: a + (a + b),
    "walks": lambda a, b, c: a * b + c,
    "reads": lambda a, b, c: (a + b) * c,
    "jug": lambda a, b, c: a - b - c,
    "sister": lambda a, b, c: a + b + c,
}


def test_answers_follow_from_the_numbers_in_the_text() -> None:
    """Read back from the text alone, by formulas written down a second time."""
    seen = Counter()
    for prompt in domain_prompts("sums", 600, seed=11):
        (name,) = [name for name, pattern in ORACLES.items() if re.search(pattern, prompt.text)]
        numbers = map(int, re.search(ORACLES[name], prompt.text).groups())
        assert str(FORMULAS[name](*numbers)) == prompt.task.answer, prompt.text
        seen[name] += 1
    assert seen.keys() == FORMULAS.keys() and min(seen.values()) > 20


@pytest.mark.parametrize("task", SOLUTIONS)
def test_a_right_solution_passes_its_checks_and_none_does_not(task: str) -> None:
    tasks = {prompt.task.id: prompt.task for prompt in domain_prompts("code", 48)}
    assert tasks.keys() == SOLUTIONS.keys()
    assert len(tasks[task].checks) >= 3
    assert outcome_of(SOLUTIONS[task], tasks[task].checks) == PASSED
    name = re.search(r"def (\w+)", SOLUTIONS[task])[1]
    nothing = f"def {name}(*values):\n    return None"
    assert outcome_of(nothing, tasks[task].checks) != PASSED


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: domain_prompts("poems", 1), "unknown domain 'poems'; expected one of sums, code"),
        (lambda: domain_prompts("code", 0), "n=0; expected 1 or more"),
        (lambda: domain_prompts("sums", 1, seed=-1), "seed=-1; expected 0 or more"),
        (lambda: domain_prompts("sums", 100_001), "expected at most 100000"),
    ],
)
def test_refusals(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
