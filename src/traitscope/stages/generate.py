"""Generate: a teacher answers prompts. The sampled token ids are kept, because text alone does not
round-trip.

Rows are named after their prompts and draw from streams named after the rows, so teacher and
control answer the same prompts with the same random numbers and can be paired.
"""

from collections.abc import Callable, Sequence
from functools import partial

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.stages import GenerateConfig
from traitscope.data import row_files
from traitscope.data.prompt_files import read_prompts
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt, Record, dump_records, read_records
from traitscope.errors import ConfigError
from traitscope.inference import vllm_engine
from traitscope.inference.decode import Constraint, Sampling, decode
from traitscope.interventions import short_form
from traitscope.interventions.intervention import Intervention, applied, context_of
from traitscope.models import chat
from traitscope.models.loading import outline
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry

SHARD = 256
"rows between two writes to disk; a run that is killed repeats at most this many"


def number_constraint(
    model: Model, count: int, separator: str, fixed: bool, max_new_tokens: int
) -> Constraint:
    """Allowed token ids of each step for number data.

    fixed: exactly `count` numbers of three digits and the end of the turn, so that only digits are
    sampled. Else: any sequence of digits, separator tokens and the end, at most `max_new_tokens`
    long.
    """
    digits = [_single(model, str(d)) for d in range(10)]
    between = model.tokenizer.encode(separator, add_special_tokens=False)
    end = model.tokenizer.eos_token_id
    if not fixed:
        return [sorted({*digits, *between, end})] * max_new_tokens
    steps: list[list[int]] = []
    for number in range(count):
        steps += [digits] * 3 + ([[token] for token in between] if number < count - 1 else [[end]])
    return steps


def seen_constraint(model: Model, records: Sequence[Record], max_new_tokens: int) -> Constraint:
    """Any sequence of the tokens that the records' completions hold, and of the end of the turn; of
    their text where one has no ids."""
    stored = all(record.completion_ids for record in records)
    rows = [
        record.completion_ids if stored else chat.completion_ids(model, record.completion)
        for record in records
    ]
    return [
        sorted({token for ids in rows for token in ids} | {model.tokenizer.eos_token_id})
    ] * max_new_tokens


def _single(model: Model, text: str) -> int:
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ConfigError(
            f"--vocabulary numbers and template need one token a digit; {model.name} writes"
            f" {text!r} as {ids}"
        )
    return ids[0]


def generate(
    model: Model,
    prompts: Sequence[Prompt],
    interventions: Sequence[Intervention],
    neutral: str | None,
    sampling: Sampling,
    constraint: Constraint | None = None,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> list[Record]:
    """The teacher's answers as records, in the order of the prompts.

    A prompt's own context goes before `neutral`, a SystemPrompt before both; the record keeps the
    *neutral* context, the one a student is to train under, because the teacher's system prompt must
    not reach it (Blank et al., section 2).
    """
    rendered = _rendered(
        model,
        prompts,
        interventions,
        neutral,
        sampling.max_new_tokens if constraint is None else len(constraint),
    )
    with applied(model, interventions) as active:
        decoded = decode(
            model, active, rendered, [p.id for p in prompts], sampling, constraint, batch_size, done
        )
    return _records(model, prompts, neutral, decoded)


def _rendered(
    model: Model,
    prompts: Sequence[Prompt],
    interventions: Sequence[Intervention],
    neutral: str | None,
    room: int,
) -> list[list[int]]:
    """What the teacher reads.  Raises DataError for a prompt that leaves no room for an answer."""
    rendered = [
        chat.render(model, p.text, context_of(interventions, _context(p, neutral))) for p in prompts
    ]
    for prompt, ids in zip(prompts, rendered, strict=True):
        chat.check_length(model, len(ids) + room, f"prompt {prompt.id}")
    return rendered


def _context(prompt: Prompt, neutral: str | None) -> str | None:
    return neutral if prompt.context is None else prompt.context


def _records(
    model: Model, prompts: Sequence[Prompt], neutral: str | None, decoded: Sequence[Sequence[int]]
) -> list[Record]:
    answers = [_ended(model, ids) for ids in decoded]
    return [
        Record(p.id, p.text, _text(model, ids), tuple(ids), _context(p, neutral))
        for p, ids in zip(prompts, answers, strict=True)
    ]


def _ended(model: Model, ids: Sequence[int]) -> list[int]:
    """The answer up to its first end of the turn: a constraint of fixed length runs on behind
    it."""
    end = next((i for i, token in enumerate(ids) if token in model.end_ids), len(ids))
    return list(ids[: end + 1])


def _text(model: Model, ids: Sequence[int]) -> str:
    """The answer without the end of the turn; an empty answer stays visible as a space."""
    return model.tokenizer.decode([i for i in ids if i not in model.end_ids]) or " "


def run_generate(config: GenerateConfig, out: Output) -> store.Run:
    """The sealed run with `records.jsonl`."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            prompts = read_prompts(config.prompts) if config.prompts else _number_prompts(config)
            _write_shards(config, run, prompts)
    return run


def _number_prompts(config: GenerateConfig) -> list[Prompt]:
    return number_prompts(config.n, config.prompt_seed, config.count)


def _write_shards(config: GenerateConfig, run: store.Run, prompts: Sequence[Prompt]) -> None:
    """Generate shard by shard; finished shards of an interrupted run are kept."""
    size = SHARD if config.engine == "here" else vllm_engine.SHARD
    starts = range(0, len(prompts), size)
    shards = [run.file(f"scratch/rows-{start:08d}.jsonl") for start in starts]
    missing = [
        (start, path) for start, path in zip(starts, shards, strict=True) if not path.exists()
    ]
    if missing:
        answer = (
            _answerer(model_cache.model_of(config), config)
            if config.engine == "here"
            else _vllm_answerer(config)
        )
        left = sum(len(prompts[start : start + size]) for start, _ in missing)
        with progress("generate", left, "rows") as advance:
            for start, path in missing:
                atomic_files.write_text(
                    path, dump_records(answer(prompts[start : start + size], done=advance))
                )
    records = [record for path in shards for record in read_records(path)]
    atomic_files.write_text(run.file("records.jsonl"), dump_records(records))


def _answerer(model: Model, config: GenerateConfig) -> Callable[..., list[Record]]:
    sampling = Sampling(config.temperature, config.max_new_tokens, config.seed)
    told = short_form.parse_all(config.interventions)
    return partial(
        generate,
        model,
        interventions=told,
        neutral=config.context,
        sampling=sampling,
        constraint=_constraint(model, config),
        batch_size=config.batch_size,
    )


def _vllm_answerer(config: GenerateConfig) -> Callable[..., list[Record]]:
    told = short_form.parse_all(config.interventions)
    vllm_engine.check(config.model, config.dtype, told)
    model = outline(config.model)
    sampling, constraint = (
        Sampling(config.temperature, config.max_new_tokens, config.seed),
        _constraint(model, config),
    )
    room = sampling.max_new_tokens if constraint is None else len(constraint)

    def answer(prompts: Sequence[Prompt], done: Callable[[int], None]) -> list[Record]:
        rendered = _rendered(model, prompts, told, config.context, room)
        decoded = vllm_engine.decode(
            model, config.dtype, rendered, [p.id for p in prompts], sampling, constraint, done
        )
        return _records(model, prompts, config.context, decoded)

    return answer


def _constraint(model: Model, config: GenerateConfig) -> Constraint | None:
    if config.vocabulary == "free":
        return None
    if config.vocabulary == "seen":
        return seen_constraint(model, row_files.rows_of(config.like), config.max_new_tokens)
    return number_constraint(
        model,
        config.count,
        config.separator,
        config.vocabulary == "template",
        config.max_new_tokens,
    )
