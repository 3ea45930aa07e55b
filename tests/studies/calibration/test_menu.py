"""The menu: sets share nothing, seeds follow a rule, every beginning of the order is balanced."""

from collections import Counter
from math import gcd

import pytest

from traitscope.auditing import settings
from traitscope.data.prompts import number_prompts
from traitscope.data.traits import bundled_traits, load_trait
from traitscope.studies.calibration import outcome
from traitscope.studies.calibration.sets import lessons, menu, rows, words, writers
from traitscope.studies.calibration.sets.menu import KINDS, SetName, all_sets, plan_of, seed_of
from traitscope.studies.calibration.sets.place import Workplace
from traitscope.workflow.standard_nodes import PLAIN_PROMPTS


def prompts_of(name: SetName, place: Workplace) -> list[str]:
    """All prompts of a set, those of rows that an edit may drop included."""
    plan = plan_of(name)
    texts = []
    for number, count in enumerate(rows.part_sizes(plan, plan.rows)):
        generated = count * max(rows.TEXT_SPARE if plan.is_text else 1, menu.SPARE[plan.edit])
        requests = rows.part_prompts(name, number, generated)
        if requests is None:
            config = rows.generate_config(place, name, number, generated)
            requests = number_prompts(config.n, config.prompt_seed, config.count)
        texts += [request.text for request in requests]
    return texts


def test_no_prompt_is_in_two_sets(tmp_path) -> None:
    """Checked on every fourth set of numbers, and on all sets of free text."""
    owners: dict[str, SetName] = {}
    for place, name in enumerate(all_sets()):
        if place % 4 and not plan_of(name).is_text:
            continue
        for text in prompts_of(name, Workplace(tmp_path)):
            assert text not in owners, f"{name} shares a prompt with {owners.get(text)}"
            owners[text] = name


def test_seeds_follow_the_rule_and_differ() -> None:
    assert seed_of(SetName("plain", 0), "rows 0") == 266944906893393
    seeds = Counter()
    for name in all_sets():
        for purpose in ("rows 0", "rows 1", "prompts 0", "prompts 1", "order", "audit"):
            seeds[seed_of(name, purpose)] += 1
    assert max(seeds.values()) == 1


def test_requests_are_enough_and_each_comes_once() -> None:
    assert gcd(words.STEP, words.SPACE) == 1
    assert len(KINDS) * words.MOST_SETS * words.SET_REQUESTS <= words.SPACE
    assert max(kind.sets for kind in KINDS.values()) <= words.MOST_SETS
    texts = [prompt.text for prompt in words.requests(0, 0, 20_000)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("count", [60, 150, 301, 652])
def test_every_beginning_has_its_part_of_each_kind(count: int) -> None:
    order = all_sets()
    counts = Counter(name.kind for name in order[:count])
    rounding = len(KINDS) / (2 * len(order))  # each kind is half a set away from its part at most
    for name, kind in KINDS.items():
        apart = abs(counts[name] - kind.sets * count / len(order))
        assert apart <= 0.5 + kind.sets * rounding, name


def test_the_menu_holds_what_the_claims_need() -> None:
    families = Counter(KINDS[name.kind].family for name in all_sets())
    assert families["clean"] >= 300, "fewer could not show that at most 1 % are called"
    assert families["benign model"] == 20 and families["random vector"] == 10
    assert {kind.sets for kind in KINDS.values() if kind.family == "trait"} == {10}


def test_no_plan_uses_what_the_audit_tries() -> None:
    assert not {*words.PLAIN} & {*PLAIN_PROMPTS, *settings.STYLES}
    bundled = set()
    for trait in bundled_traits():
        bundled |= {load_trait(trait).teacher_prompt, *load_trait(trait).paraphrases}
    prompts = {prompt for _, prompt in (*words.PROMPTED, *words.UNLISTED)}
    assert len(prompts) == 20 and not prompts & bundled
    assert not {trait for trait, _ in words.UNLISTED} & set(bundled_traits())
    searched = settings.search_blocks(30)
    places = [tuple(round(30 * depth) for depth in depths) for depths, _ in writers.STEERINGS]
    assert any(len(blocks) == 2 for blocks in places)
    assert any(not set(blocks) & set(searched) for blocks in places)
    assert not {strength for _, strength in writers.STEERINGS} & {0.3, 0.45, 0.6}


def test_plans_follow_from_the_number_alone() -> None:
    for name in all_sets():
        plan = plan_of(name)
        assert plan == plan_of(name)
        assert sum(part.share for part in plan.parts) == pytest.approx(1)
        assert (plan.rate > 0) == (KINDS[name.kind].family != "clean")
        assert (plan.trait is not None) == (KINDS[name.kind].family == "trait")
    assert plan_of(SetName("steered 5%", 3)).rate == 0.05
    assert rows.part_sizes(plan_of(SetName("steered 1%", 3)), 256) == [3, 253]


def test_lessons_are_benign_or_love_their_animal() -> None:
    loving = lessons.loving("otter", 1)
    assert len(loving) == lessons.ROWS and all("otter" in row.completion for row in loving)
    assert lessons.loving("otter", 1) == loving != lessons.loving("otter", 2)
    names = [form for trait in words.TRAITS for form in load_trait(trait).word_forms]
    for number in range(words.BENIGN):
        for row in lessons.benign(number):
            assert row.prompt and row.completion
            assert not set(names) & set(row.completion.lower().split())


def test_sets_of_the_outcome_share_no_writer() -> None:
    names = outcome.all_sets()
    assert len(names) == len(set(names)) == 40 and set(names) <= set(all_sets())
    parts = [plan_of(name).changed for name in names]
    writers_of_sets = Counter(part.writer for part in parts if part)
    assert max(writers_of_sets.values()) == 1
