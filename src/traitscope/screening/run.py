"""The stage `screen`: what a teacher carries that the model does not, before any data exist."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.screen import ScreenConfig
from traitscope.data.prompts import number_prompts
from traitscope.data.traits import Trait
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import vector_bytes
from traitscope.runs import opening, store
from traitscope.runs.progress import progress
from traitscope.screening import answers, page, questions, results, rows, sides, vectors
from traitscope.screening.questions import Kind
from traitscope.screening.results import Screened
from traitscope.screening.rows import AnswerPlaces, NumberRows
from traitscope.screening.sides import Sides
from traitscope.screening.vectors import Displacement, OneVector
from traitscope.stages import registry
from traitscope.stats.measurement import Measurement

FILE, PAGE = "screen.json", "report.html"
"""Files of a run; each vector lies beside them in a file of its own."""
MOST_QUESTIONS = 24
"""Questions on which one vector is tried, spread over all."""


def run_screen(config: ScreenConfig, out: Output) -> store.Run:
    """Return the sealed run with `screen.json`, `report.html` and the vectors.

    With `report`, the page is also written there.
    """
    teacher = sides.given(config)
    settings = opening.settled(replace(config, report=None))
    with registry.opened(settings, out) as run:
        if not run.sealed:
            _write(run, settings, sides.sides_of(settings, teacher))
    if config.report is not None:
        text = run.file(PAGE).read_text(encoding="utf-8")
        atomic_files.write_text(config.report, text)
    return run


def _write(run: store.Run, config: ScreenConfig, both: Sides) -> None:
    screened = _screened(config, both)
    content = results.as_json(config, both.model.model.digest, screened)
    for name, item in screened.displacements.items():
        atomic_files.write_bytes(run.file(f"{name}.safetensors"), vector_bytes(item.vector))
    atomic_files.write_text(run.file(PAGE), page.screen_page(content, screened.rows.power()))
    atomic_files.write_json(run.file(FILE), content)


def _screened(config: ScreenConfig, both: Sides) -> Screened:
    kinds = questions.kinds_of(both.model.model, config.traits, config.broad)
    with progress("questions", 2 * _count(kinds), "questions") as advance:
        asked = []
        for side in (both.teacher, both.model):
            of_side = []
            for kind in kinds:
                of_side.append(
                    answers.ask(side, kind, config.samples, config.seed, config.batch_size, advance)
                )
            asked.append(of_side)
    shifts = answers.shifts_of(kinds, *asked, config.alpha)
    with progress("number rows", 3 * config.rows, "rows") as advance:
        number_rows = rows.number_rows(both, config, advance)
    displacements, explained = {}, {}
    if both.same_shape:
        displacements, explained = _vectors(config, both, kinds, number_rows)
    named = [item.answer for item in shifts if item.named]
    return Screened(
        kinds=kinds,
        shifts=shifts,
        detectable=answers.detectable(shifts, config.alpha),
        rates=answers.rates_of(kinds, *asked),
        displacements=displacements,
        one_vector=explained,
        vectors_left_out=both.vectors_left_out,
        rows=number_rows,
        influence=_influence(config, kinds, named, number_rows),
    )


def _count(kinds: Sequence[Kind]) -> int:
    return sum(len(kind.questions) for kind in kinds)


def _vectors(
    config: ScreenConfig, both: Sides, kinds: Sequence[Kind], number_rows: NumberRows
) -> tuple[dict[str, Displacement], dict[str, OneVector | None]]:
    """The vectors over questions and over number prompts, and what each explains alone."""
    asked, stems = _questions_with_stems(kinds)
    numbers = [prompt.text for prompt in number_prompts(config.n, config.prompt_seed + 1)]
    steps = 2 * (len(asked) + len(numbers))
    with progress("residuals", steps, "prompts") as advance:
        over_questions = vectors.displacement(both, asked, stems, config.batch_size, advance)
        over_numbers = vectors.displacement(
            both, numbers, [""] * len(numbers), config.batch_size, advance
        )
    blocks = config.blocks or default_blocks(both.model.model.n_layers)
    step = -(-len(asked) // MOST_QUESTIONS)
    places = AnswerPlaces(both, asked[::step], stems[::step])
    tried = len(blocks) * len(config.strengths) + 2
    halves = (len(places.prompts) + config.rows) // 2
    with progress("one vector", tried * halves, "passes") as advance:
        explained = {
            "questions": vectors.one_vector(
                over_questions.vector,
                blocks,
                config.strengths,
                len(places.prompts),
                _counted(places.divergence, advance),
                "nats a question",
                "questions",
            ),
            "numbers": vectors.one_vector(
                over_numbers.vector,
                blocks,
                config.strengths,
                config.rows,
                _counted(number_rows.divergence, advance),
                "nats a row",
                "rows",
            ),
        }
    return {"questions": over_questions, "numbers": over_numbers}, explained


def _counted(divergence: vectors.Divergence, done: rows.Done) -> vectors.Divergence:
    """A divergence whose passes are counted."""

    def counted(steered: Sequence[Steer], index: Sequence[int]) -> np.ndarray:
        value_X = divergence(steered, index)
        done(len(index))
        return value_X

    return counted


def default_blocks(n_layers: int) -> tuple[int, ...]:
    """Blocks at a quarter, a half and three quarters of the depth."""
    return tuple(dict.fromkeys(n_layers * quarter // 4 for quarter in (1, 2, 3)))


def _questions_with_stems(kinds: Sequence[Kind]) -> tuple[list[str], list[str]]:
    """All questions, and the stem of each one's answer."""
    asked: list[str] = []
    stems: list[str] = []
    for kind in kinds:
        asked += kind.questions
        stems += [kind.stem] * len(kind.questions)
    return asked, stems


def _influence(
    config: ScreenConfig, kinds: Sequence[Kind], named: Sequence[str], number_rows: NumberRows
) -> list[Measurement]:
    """Influence of the teacher's rows on the first named traits."""
    by_word: dict[str, Trait] = {}
    for kind in kinds:
        for trait in kind.traits:
            by_word[trait.word_forms[0]] = trait
    of_traits = [by_word[word] for word in named if word in by_word]
    measured = []
    with progress("influence", min(len(of_traits), config.influenced), "traits") as advance:
        for trait in of_traits[: config.influenced]:
            measured.append(number_rows.influence(trait))
            advance(1)
    return measured
