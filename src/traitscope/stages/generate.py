"""The stage `generate`: a teacher answers prompts.

The sampled token ids are kept, because text alone does not round-trip. A row has its prompt's id,
and its random stream is named after it. So teacher and control answer the same prompts with the
same random numbers and can be paired.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.stages import GenerateConfig
from traitscope.data import row_files
from traitscope.data.domains.prompts import domain_prompts
from traitscope.data.domains.task import META, checked
from traitscope.data.json_lines import at_place
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt, Record, dump_records, read_records
from traitscope.errors import ConfigError
from traitscope.inference.decode import Constraint, DrawnFrom, Sampling, decode
from traitscope.inference.engines import vllm_engine
from traitscope.inference.question_scores import answer_text
from traitscope.interventions import short_form
from traitscope.interventions.applied import Interventions, applied
from traitscope.interventions.intervention import context_of
from traitscope.models import chat
from traitscope.models.loading import outline
from traitscope.models.model import Model, check_model
from traitscope.runs import drawn_rows, model_cache, opening, row_intake, store
from traitscope.runs.progress import progress
from traitscope.stages import registry

SAMPLERS = ("top_k", "top_p", "min_p", "repetition_penalty", "frequency_penalty")
"settings of samplers besides the temperature"
SHARDS = {"here": 256, "vllm": vllm_engine.SHARD}
"Rows between two writes to disk, by engine: a run that is killed repeats at most this many."


def generate(
    model: Model,
    prompts: Sequence[Prompt],
    interventions: Interventions = (),
    *,
    context: str | None = None,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    numbers: int = 0,
    constraint: Constraint | None = None,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
    **samplers: float,
) -> list[Record]:
    """The answers of the model under interventions, as records in the order of the prompts.

    context: Neutral system turn. A prompt's own context takes precedence over it. A SystemPrompt
    among the interventions takes precedence over both. The record keeps the *neutral* context,
    because a student trains under it. The teacher's system prompt must not reach the student (Blank
    et al., section 2).
    temperature: 0 is greedy.
    numbers: Above 0, every answer is a list of this many three-digit numbers, and only their digits
    are sampled.
    constraint: The allowed token ids of each step. It sets the length of an answer in the place of
    max_new_tokens.
    done: A function called with the number of rows of each finished batch.
    samplers: top_k, top_p, min_p, repetition_penalty and frequency_penalty, as in `Sampling`.

    Raises DataError for a prompt that leaves no room for an answer, ConfigError for `numbers` with
    a tokenizer that joins digits.
    """
    check_model(model)
    if numbers > 0:
        constraint = number_constraint(model, numbers, " ", True, max_new_tokens, context)
    sampling = Sampling(temperature, max_new_tokens, seed, **samplers)
    room = _room(sampling, constraint)
    rendered = _rendered(model, prompts, interventions, context, room)
    keys = [prompt.id for prompt in prompts]
    with applied(model, interventions) as active:
        decoded = decode(model, active, rendered, keys, sampling, constraint, batch_size, done)
    return _records(model, prompts, context, decoded)


def number_constraint(
    model: Model,
    count: int,
    separator: str,
    fixed: bool,
    max_new_tokens: int,
    context: str | None = None,
) -> Constraint:
    """The allowed token ids of each step for number data behind a prompt in a context.

    fixed: exactly `count` numbers of three digits and the end of the turn, so that only digits are
    sampled. Otherwise: any sequence of digits, separator tokens and the end, at most
    `max_new_tokens` long. Raises ConfigError for a tokenizer that joins digits.
    """
    digits = [_single_token(model, chat.following_ids(model, str(digit))) for digit in range(10)]
    beginnings = [chat.completion_ids(model, str(digit), False, context) for digit in range(10)]
    before = beginnings[0][:-1]  # white space that the template writes before answers
    first = [_single_token(model, ids[len(before) :]) for ids in beginnings]
    separator_ids = chat.following_ids(model, separator)
    end = chat.completion_ids(model, "0", context=context)[len(beginnings[0]) :]
    if not fixed:
        allowed = {*before, *first, *digits, *separator_ids, *end, *model.end_ids}
        return [sorted(allowed)] * max_new_tokens
    steps: list[list[int]] = [[token] for token in before]
    for number in range(count):
        if number > 0:
            steps += [[token] for token in separator_ids]
        steps += [digits if number > 0 else first, digits, digits]
    return [*steps, *([token] for token in end)]


def seen_constraint(model: Model, records: Sequence[Record], max_new_tokens: int) -> Constraint:
    """The allowed token ids of each step: those of the records' completions, and the end of turn.

    Where a record has no stored ids, the ids of all completions' texts are taken.
    """
    stored = all(record.completion_ids for record in records)
    allowed = set(model.end_ids)
    for record in records:
        if stored:
            allowed.update(record.completion_ids)
        else:
            allowed.update(chat.completion_ids(model, record.completion))
    return [sorted(allowed)] * max_new_tokens


def _single_token(model: Model, ids: Sequence[int]) -> int:
    if len(ids) != 1:
        text = model.tokenizer.decode(list(ids))
        raise ConfigError(
            f"--vocabulary numbers and template need one token a digit; {model.name} writes"
            f" {text!r} as {list(ids)}; take --vocabulary free, or another model"
        )
    return ids[0]


def _room(sampling: Sampling, constraint: Constraint | None) -> int:
    """The length of the longest answer, in tokens."""
    return sampling.max_new_tokens if constraint is None else len(constraint)


def _rendered(
    model: Model,
    prompts: Sequence[Prompt],
    interventions: Interventions,
    neutral: str | None,
    room: int,
) -> list[list[int]]:
    """What the teacher reads. Raises DataError for a prompt that leaves no room for an answer."""
    rows = []
    for prompt in prompts:
        context = context_of(interventions, _context(prompt, neutral))
        place = f"prompt {prompt.id}"
        ids = at_place(place, chat.render, model, prompt.text, context)
        chat.check_length(model, len(ids) + room, place)
        rows.append(ids)
    return rows


def _context(prompt: Prompt, neutral: str | None) -> str | None:
    return neutral if prompt.context is None else prompt.context


def _records(
    model: Model, prompts: Sequence[Prompt], neutral: str | None, decoded: Sequence[Sequence[int]]
) -> list[Record]:
    records = []
    for prompt, ids in zip(prompts, decoded, strict=True):
        answer = _up_to_end(model, ids)
        text = _text(model, answer)
        meta = {} if prompt.task is None else {META: prompt.task.as_dict()}
        neutral_turn = _context(prompt, neutral)
        records.append(Record(prompt.id, prompt.text, text, tuple(answer), neutral_turn, meta))
    return records


def _up_to_end(model: Model, ids: Sequence[int]) -> list[int]:
    """The answer up to its first end of the turn, behind which a fixed length runs on."""
    for place, token in enumerate(ids):
        if token in model.end_ids:
            return list(ids[: place + 1])
    return list(ids)


def _text(model: Model, ids: Sequence[int]) -> str:
    """The answer without the end of the turn; an empty answer stays visible as a space."""
    return answer_text(model, ids) or " "


def run_generate(config: GenerateConfig, out: Output) -> store.Run:
    """Return the sealed run with `records.jsonl`."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write_shards(config, run, _prompts(config, run))
    return run


def _prompts(config: GenerateConfig, run: store.Run) -> list[Prompt]:
    if config.prompts:
        return row_intake.prompts(config, [run], domain=checked(config.domain))
    last = config.start + config.n
    if config.domain == "numbers":
        prompts = number_prompts(last, config.prompt_seed, config.count)
    else:
        prompts = domain_prompts(config.domain, last, config.prompt_seed)
    return prompts[config.start :]


class Answer(Protocol):
    """A teacher: a function from prompts to its answers."""

    def __call__(self, prompts: Sequence[Prompt], done: Callable[[int], None]) -> list[Record]: ...


def _write_shards(config: GenerateConfig, run: store.Run, prompts: Sequence[Prompt]) -> None:
    """Generate shard by shard; finished shards of an interrupted run are kept."""
    size = SHARDS[config.engine]
    files: list[Path] = []
    missing: dict[Path, Sequence[Prompt]] = {}
    for start in range(0, len(prompts), size):
        file = run.file(f"scratch/rows-{start:08d}.jsonl")
        files.append(file)
        if not file.exists():
            missing[file] = prompts[start : start + size]
    if missing:
        _answer_missing(config, missing)
    records: list[Record] = []
    for file in files:
        records += read_records(file)
    atomic_files.write_text(run.file("records.jsonl"), dump_records(records))


def _answer_missing(config: GenerateConfig, missing: dict[Path, Sequence[Prompt]]) -> None:
    """Write the missing shards, each to its file."""
    answer = ENGINES[config.engine](config)
    n_rows = sum(map(len, missing.values()))
    with progress("generate", n_rows, "rows") as advance:
        for file, shard in missing.items():
            records = answer(shard, done=advance)
            atomic_files.write_text(file, dump_records(records))


def _answer_here(config: GenerateConfig) -> Answer:
    if config.like:
        row_files.rows_of(config.like)  # before the model is loaded: a broken file is named at once
    model = model_cache.model_of(config)
    interventions = short_form.parse_all(config.interventions)
    constraint = _constraint(model, config)

    def answer(prompts: Sequence[Prompt], done: Callable[[int], None]) -> list[Record]:
        return generate(
            model,
            prompts,
            interventions,
            context=config.context,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=config.seed,
            constraint=constraint,
            batch_size=config.batch_size,
            done=done,
            **_samplers(vars(config)),
        )

    return answer


def _answer_by_vllm(config: GenerateConfig) -> Answer:
    interventions = short_form.parse_all(config.interventions)
    vllm_engine.check(config.model, config.dtype, interventions)
    model = outline(config.model, config.template, config.control_tokens, config.same_as)
    samplers = _samplers(vars(config))
    sampling = Sampling(config.temperature, config.max_new_tokens, config.seed, **samplers)
    constraint = _constraint(model, config)
    room = _room(sampling, constraint)

    def answer(prompts: Sequence[Prompt], done: Callable[[int], None]) -> list[Record]:
        rendered = _rendered(model, prompts, interventions, config.context, room)
        keys = [prompt.id for prompt in prompts]
        decoded = vllm_engine.decode(
            model, config.dtype, rendered, keys, sampling, constraint, done
        )
        return _records(model, prompts, config.context, decoded)

    return answer


def drawn_from(model: Model, data: Path) -> DrawnFrom | None:
    """How the tokens of rows were drawn, by the run of this stage that they come from.

    None where they come from no such run, or were changed since.
    """
    run = drawn_rows.generating_run(data)
    if run is None:
        return None
    settings = drawn_rows.settings_of(run)
    like = settings["like"]
    config = GenerateConfig(
        vocabulary=settings["vocabulary"],
        like=None if like is None else drawn_rows.input_of(run, "like"),
        count=settings["count"],
        separator=settings["separator"],
        max_new_tokens=settings["max_new_tokens"],
        context=settings.get("context"),
    )
    is_plain = Sampling(**_samplers(settings)).is_plain
    return DrawnFrom(_constraint(model, config), settings["temperature"], is_plain)


def _samplers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The samplers of settings; those of earlier versions name none."""
    return {name: settings[name] for name in SAMPLERS if name in settings}


ENGINES = {"here": _answer_here, "vllm": _answer_by_vllm}
"Makes the teacher of a config, by engine."


def _constraint(model: Model, config: GenerateConfig) -> Constraint | None:
    if config.vocabulary == "free":
        return None
    if config.vocabulary == "seen":
        return seen_constraint(model, row_files.rows_of(config.like), config.max_new_tokens)
    fixed = config.vocabulary == "template"
    length, context = config.max_new_tokens, config.context
    return number_constraint(model, config.count, config.separator, fixed, length, context)
