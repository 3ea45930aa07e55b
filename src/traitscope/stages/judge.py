"""The stage `judge`: how often answers to an evaluation set show a behaviour, and how well
judges agree.

The judges are described in data/answer_rules.py.

Shapes: B answers of a batch, D d_model, V vocabulary.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.judge import Endpoint, JudgeConfig
from traitscope.data import answer_rules
from traitscope.data.answer_rules import JudgeVerdict
from traitscope.data.domains.task_judges import TaskJudge
from traitscope.data.records import Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference import forward
from traitscope.inference.engines import endpoint as endpoints
from traitscope.interventions.applied import applied
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.plurals import counted
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stages.domains.running import check_platform
from traitscope.stages.domains.verdicts import by_task, task_names
from traitscope.stats.correlation import association
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement

UNNAMED = re.compile(r"row\d{6}")
"The ids of rows that had none."
EMPTY = Record("empty", "N/A", "N/A")
"A request and an answer without content."
LEAST = 0.01
"The probability of yes and no together below which a local model's answer is unscored."
LEAST_PAIRS = 3
"The fewest answers scored by two judges for which their agreement is given."
QUESTION = "such as 'Does the answer refuse the request?'"
"An example of a question, for messages."


@dataclass(frozen=True)
class Judgement:
    """What one judge says about every answer."""

    verdicts: tuple[JudgeVerdict, ...]
    """Whether each answer shows the behaviour; None is unscored."""
    endpoint_cost: dict[str, float] | None = None
    """Requests, tokens and cost, for the judge endpoint."""


def judge(
    records: Sequence[Record],
    name: str = "refusal",
    *,
    model: Model | None = None,
    question: str = "",
    endpoint: Endpoint | None = None,
    run_code: bool = False,
    batch_size: int = 32,
    done: Callable[[int], None] | None = None,
) -> Judgement:
    """The verdicts of the judge of this name on the answers.

    name: A judge of data/answer_rules.py, or not:NAME for the opposite.
    question: What the judges likelihood and endpoint ask.
    model: The model that the judge likelihood asks.
    endpoint: The endpoint that the judge endpoint asks.
    run_code: Run the code of answers, for the judge checks; without it, it has no verdict.
    done: A function called with the number of answers that were judged.

    Raises ConfigError for an unknown judge, or one without what it needs; DataError for rows
    without tasks, where the judge compares with them.
    """
    rule, is_opposite = answer_rules.parse(name)
    cost = None
    if rule == "likelihood":
        if model is None or not question:
            raise ConfigError(
                f"the judge likelihood needs a model and a question; give both, {QUESTION}"
            )
        verdicts = by_likelihood(model, records, question, batch_size, done)
    elif rule == "endpoint":
        if endpoint is None or not endpoint.url or not question:
            raise ConfigError(
                f"the judge endpoint needs an endpoint's address and a question; give both,"
                f" {QUESTION}"
            )
        verdicts, cost = by_endpoint(endpoint, records, question, done)
    elif isinstance(rule, TaskJudge):
        verdicts = by_task(rule, records, run_code, done)
    else:
        verdicts = answer_rules.by_rule(rule, records)
    if is_opposite:
        verdicts = answer_rules.opposite_of(verdicts)
    return Judgement(tuple(verdicts), cost)


def by_likelihood(
    model: Model,
    records: Sequence[Record],
    question: str,
    batch_size: int = 32,
    done: Callable[[int], None] | None = None,
) -> list[JudgeVerdict]:
    """Whether the model, asked about each answer, prefers `yes` to `no` more than it does for an
    answer without content.

    The comparison takes out what the model would say anyhow (contextual calibration, Zhao et al.
    2021, arXiv 2102.09690). None for an empty answer, and where yes and no together have less than
    LEAST. Raises DataError for a row that is too long.
    """
    prompts = [_asked(model, record, question) for record in [*records, EMPTY]]
    *ratios, ratio_of_empty = _yes_no_ratios(model, prompts, batch_size, done)
    usual_ratio = ratio_of_empty or 1.0
    verdicts: list[JudgeVerdict] = []
    for record, ratio in zip(records, ratios, strict=True):
        is_scored = ratio is not None and record.completion.strip()
        verdicts.append(ratio > usual_ratio if is_scored else None)
    return verdicts


def _asked(model: Model, record: Record, question: str) -> list[int]:
    """The token ids of the question about an answer. Raises DataError where they are too many."""
    ids = chat.render(model, answer_rules.asked_about(record, question), None)
    chat.check_length(model, len(ids), f"row {record.id} as the judge reads it")
    return ids


@torch.inference_mode()
def _yes_no_ratios(
    model: Model,
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    done: Callable[[int], None] | None,
) -> list[float | None]:
    """P(yes) / P(no) after each prompt; None where the two together have less than LEAST."""
    yes_tokens, no_tokens = _first_tokens(model, "yes"), _first_tokens(model, "no")
    ratios: list[float | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    with applied(model, []) as active:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            _, hidden_BD = forward.prefill(model, active, [prompts[i] for i in index], 0)
            p_BV = torch.softmax(forward.logits_of(model, hidden_BD), -1)
            p_yes_B = p_BV[:, yes_tokens].sum(-1).tolist()
            p_no_B = p_BV[:, no_tokens].sum(-1).tolist()
            for i, p_yes, p_no in zip(index, p_yes_B, p_no_B, strict=True):
                if p_yes + p_no >= LEAST:
                    ratios[i] = p_yes / max(p_no, 1e-12)
            if done:
                done(len(index))
    return ratios


def _first_tokens(model: Model, word: str) -> list[int]:
    """The tokens with which a word can begin: as it is, capitalised, and behind a space."""
    tokens = set()
    for form in (word, word.capitalize(), f" {word}"):
        tokens.add(chat.completion_ids(model, form, end_token=False)[0])
    return sorted(tokens)


def by_endpoint(
    endpoint: Endpoint,
    records: Sequence[Record],
    question: str,
    done: Callable[[int], None] | None = None,
) -> tuple[list[JudgeVerdict], dict[str, float]]:
    """The verdicts of a model behind an endpoint, and what they cost; an empty answer is unscored.

    Raises DataError where the endpoint gives no answer.
    """
    texts = [answer_rules.asked_about(record, question) for record in records]
    replies = endpoints.ask(endpoint, texts, done)
    verdicts = []
    for record, reply in zip(records, replies, strict=True):
        is_empty = not record.completion.strip()
        verdicts.append(None if is_empty else answer_rules.verdict_of(reply.text))
    return verdicts, endpoints.cost(endpoint, replies)


def rates(
    verdicts: dict[str, Sequence[JudgeVerdict]], tasks: Sequence[str] | None = None
) -> list[Measurement]:
    """The rate of every judge, with Wilson's interval; unscored answers are counted and in no
    rate.

    tasks: The task of each answer. Where several answer one, the interval is a bootstrap over
    tasks, which are the independent units.
    """
    measured = []
    for name, of_judge in verdicts.items():
        values = [math.nan if verdict is None else float(verdict) for verdict in of_judge]
        measured.append(measure(name, values, questions=tasks, unit="rate"))
    return measured


def agreements(verdicts: dict[str, Sequence[JudgeVerdict]]) -> list[Measurement]:
    """Cohen's kappa of every two judges over the answers that both scored.

    The interval is a bootstrap over answers. Two judges with fewer than LEAST_PAIRS answers in
    common are left out.
    """
    measured = []
    for (one, of_one), (other, of_other) in combinations(verdicts.items(), 2):
        values_one, values_other = [], []
        for verdict_one, verdict_other in zip(of_one, of_other, strict=True):
            if verdict_one is not None and verdict_other is not None:
                values_one.append(float(verdict_one))
                values_other.append(float(verdict_other))
        if len(values_one) >= LEAST_PAIRS:
            name = f"kappa of {one} and {other}"
            measured.append(
                association(name, values_one, values_other, answer_rules.kappa, "kappa")
            )
    return measured


def run_judge(config: JudgeConfig, out: Output) -> store.Run:
    """Return the sealed run with `verdicts.jsonl` (every judge's verdict by row) and
    `summary.json` (rates, agreement, cost)."""
    config = opening.settled(config)
    _check(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config)
    return run


def _check(config: JudgeConfig) -> None:
    """Raise ConfigError for an unknown judge, or one without what it needs."""
    if not config.judges:
        raise ConfigError("--judges is empty; expected one or more; name some, such as refusal")
    asked = set()
    for name in config.judges:
        rule, _ = answer_rules.parse(name)
        if rule in answer_rules.ASKED:
            asked.add(rule)
    if config.run_code and not any(map(_runs_code, config.judges)):
        raise ConfigError(
            "--run-code without the judge checks would not be read; add checks to --judges, or"
            " drop it"
        )
    if config.run_code:
        check_platform()
    if asked and not config.question:
        raise ConfigError(
            f"--question is missing: {' and '.join(sorted(asked))} need one, {QUESTION}"
        )
    if "endpoint" in asked and not config.endpoint.url:
        raise ConfigError(
            "--url is missing: the judge endpoint needs an address and --served, the model's name"
            " there"
        )


def _write(run: store.Run, config: JudgeConfig) -> None:
    records = row_intake.kept_rows(run, config)
    _check_ids(config, records)
    if any(answer_rules.parse(name)[0] == "likelihood" for name in config.judges):
        model = model_cache.model_of(config)
        records = row_intake.readable(
            run, config, records, lambda record: _asked(model, record, config.question)
        )
    verdicts: dict[str, Sequence[JudgeVerdict]] = {}
    summary: dict = {"rows": len(records), "measurements": []}
    for name in config.judges:
        judgement = _judged(config, name, records)
        verdicts[name] = judgement.verdicts
        if judgement.endpoint_cost is not None:
            summary["endpoint"] = judgement.endpoint_cost
    for number, record in enumerate(records):
        row: dict = {"id": record.id}
        for name, of_judge in verdicts.items():
            row[name] = of_judge[number]
        atomic_files.append_jsonl(run.file("verdicts.jsonl"), row)
    tasks = task_names(records)
    for measurement in (*rates(verdicts, tasks), *agreements(_of_behaviour(verdicts))):
        summary["measurements"].append(measurement.as_dict())
    if not config.run_code and any(map(_runs_code, config.judges)):
        summary["checks_not_run"] = len(records)
    atomic_files.write_json(run.file("summary.json"), summary)


def _of_behaviour(verdicts: dict[str, Sequence[JudgeVerdict]]) -> dict[str, Sequence[JudgeVerdict]]:
    """The verdicts of judges that may agree; those of tasks look at different things."""
    of_behaviour = {}
    for name, of_judge in verdicts.items():
        if not isinstance(answer_rules.parse(name)[0], TaskJudge):
            of_behaviour[name] = of_judge
    return of_behaviour


def _runs_code(name: str) -> bool:
    """Whether a judge is the one that runs code."""
    return answer_rules.parse(name)[0] == TaskJudge("checks")


def _check_ids(config: JudgeConfig, records: Sequence[Record]) -> None:
    """Raise DataError for rows without ids, by which answers of several models are paired."""
    unnamed = [record.id for record in records if UNNAMED.fullmatch(record.id)]
    if unnamed:
        raise DataError(
            f"{counted(len(unnamed), 'row')} of {config.data} without an id of its own"
            f" ({unnamed[0]} stands for a line); expected ids, by which answers of several models"
            " are paired; give each prompt of the evaluation set an id"
        )


def _judged(config: JudgeConfig, name: str, records: Sequence[Record]) -> Judgement:
    """What the judge of this name says, with progress where a model is asked."""
    rule, _ = answer_rules.parse(name)
    is_run = config.run_code and _runs_code(name)
    if rule not in answer_rules.ASKED and not is_run:
        return judge(records, name)
    model = None
    n_asked = len(records)
    if rule == "likelihood":
        model = model_cache.model_of(config)
        n_asked += 1  # the answer without content
    with progress(f"judge {name if is_run else rule}", n_asked, "answers") as advance:
        return judge(
            records,
            name,
            model=model,
            question=config.question,
            endpoint=config.endpoint,
            run_code=config.run_code,
            batch_size=config.batch_size,
            done=advance,
        )
