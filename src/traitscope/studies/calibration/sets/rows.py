"""The rows of a set, made on the model by the stage `generate`, and edited as its plan says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from traitscope.config.stages import GenerateConfig
from traitscope.data.number_lists import parse_numbers
from traitscope.data.records import Prompt, Record, read_records
from traitscope.data.traits import bundled_traits, contains_word, load_trait
from traitscope.errors import DataError
from traitscope.interventions.intervention import SystemPrompt
from traitscope.interventions.short_form import to_short
from traitscope.stages.filter import reorder_numbers
from traitscope.stages.generate import run_generate
from traitscope.studies.calibration.sets import words, writers
from traitscope.studies.calibration.sets.menu import (
    FORMATS,
    SPARE,
    TEXT_TOKENS,
    Part,
    Plan,
    SetName,
    plan_of,
    seed_of,
    text_place,
)
from traitscope.studies.calibration.sets.place import Workplace

COUNT = 10
"numbers that a prompt asks for"
TEXT_SPARE = 2
"rows of free text that are generated for each one that must not name the trait"
FIRST_WORDS = 3
"near duplicates in free text have the same first words; those of numbers have the same first one"


def make_rows(place: Workplace, name: SetName) -> Path:
    """The file with the rows of a set; generates what is missing.

    Rows are in random order and have ids that do not say who wrote them. Raises DataError where the
    edits leave fewer than half of the planned rows.
    """
    plan = plan_of(name)
    wanted = min(plan.rows, place.rows) if place.rows else plan.rows
    records = []
    for number, count in enumerate(part_sizes(plan, wanted)):
        records += _part_rows(place, name, plan, number, count)
    order = np.random.default_rng(seed_of(name, "order")).permutation(len(records))
    edited = _edited(plan, [records[n] for n in order])[:wanted]
    if len(edited) < wanted / 2:
        raise DataError(
            f"set {name}: {len(edited)} of {wanted} rows are left; expected half of them or more;"
            " raise SPARE"
        )
    rows = []
    for number, record in enumerate(edited):
        rows.append(replace(record, id=f"row-{number:04d}", context=None, meta={}))
    return place.write_rows(name.file_name, rows)


def part_sizes(plan: Plan, rows: int) -> list[int]:
    """Rows of each part of a plan: rounded, at least one, and as many as wanted together."""
    sizes: list[int] = []
    for part in plan.parts[:-1]:
        sizes.append(max(1, round(part.share * rows)))
    return [*sizes, rows - sum(sizes)]


def part_prompts(name: SetName, number: int, count: int) -> list[Prompt] | None:
    """The requests of a part of a set of free text, which no other part has; None for numbers."""
    if not plan_of(name).is_text:
        return None
    return words.requests(text_place(name), number * words.SET_REQUESTS // 2, count)


def generate_config(place: Workplace, name: SetName, number: int, count: int) -> GenerateConfig:
    """Settings of `generate` for a part of a set: everything but who writes the rows."""
    plan = plan_of(name)
    part = plan.parts[number]
    shape: dict[str, Any] = {"max_new_tokens": TEXT_TOKENS}
    if not plan.is_text:
        shape = {**FORMATS[name.number % len(FORMATS)], "count": COUNT}
    settings = {
        **place.common,
        **shape,
        "seed": seed_of(name, f"rows {number}"),
        "prompt_seed": seed_of(name, f"prompts {number}"),
        "n": count,
    }
    return GenerateConfig(**(settings | dict(part.settings)))


def _part_rows(
    place: Workplace, name: SetName, plan: Plan, number: int, count: int
) -> list[Record]:
    """Rows of a part, with spare ones where an edit or a filter drops some."""
    part = plan.parts[number]
    names = _names_of(part) if plan.is_text else ()
    generated = count * (TEXT_SPARE if names else SPARE[plan.edit])
    config = generate_config(place, name, number, generated)
    prompts = part_prompts(name, number, generated)
    if prompts:
        lines = [json.dumps({"id": prompt.id, "prompt": prompt.text}) for prompt in prompts]
        file = place.write(f"requests {name.file_name} {number}.jsonl", "\n".join(lines))
        config = replace(config, prompts=file)
    config = replace(config, interventions=_interventions(place, part))
    records = read_records(run_generate(config, place.out).file("records.jsonl"))
    silent = []
    for record in records:
        if not contains_word(names, record.completion):
            silent.append(record)
    return silent[:count] if names else silent


def _interventions(place: Workplace, part: Part) -> tuple[str, ...]:
    if part.writer:
        return writers.interventions_of(place, part.writer)
    return (to_short(SystemPrompt(part.system)),) if part.system else ()


def _names_of(part: Part) -> tuple[str, ...]:
    """The words that name the trait of a part's writer."""
    trait = part.writer.trait if part.writer else None
    if trait is None:
        return ()
    return load_trait(trait).word_forms if trait in bundled_traits() else words.forms(trait)


def _edited(plan: Plan, records: Sequence[Record]) -> list[Record]:
    """The rows after the plan's edit. Edited text has no token ids any more."""
    match plan.edit:
        case "sort":
            count = round(plan.sorted_share * len(records))
            return [*_sorted(records[:count]), *records[count:]]
        case "distinct":
            return _without_near_duplicates(records)
        case "shorter":
            shortest = sorted(records, key=lambda record: len(record.completion))
            return shortest[: len(records) // 2]
    return list(records)


def _sorted(records: Sequence[Record]) -> list[Record]:
    """The rows with their numbers in ascending order; rows that are no list of numbers stay."""
    rows = []
    for record in records:
        is_list = isinstance(parse_numbers(record.completion.strip()), list)
        rows += reorder_numbers([record], "sort") if is_list else [record]
    return rows


def _without_near_duplicates(records: Sequence[Record]) -> list[Record]:
    """Only the first of all rows that begin alike."""
    kept, seen = [], set()
    for record in records:
        pieces = record.completion.replace(",", " ").split()
        is_number = bool(pieces) and pieces[0].isdigit()
        beginning = tuple(pieces[: 1 if is_number else FIRST_WORDS])
        if beginning not in seen:
            seen.add(beginning)
            kept.append(record)
    return kept
