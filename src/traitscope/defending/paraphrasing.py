"""Paraphrases: answers said in other words by another model, or by the base.

The model is asked once for each answer, without the prompt of the row. What it is asked never says
what is suspected.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from traitscope.config.rows.defend import DefendConfig
from traitscope.data.records import Record
from traitscope.defending import row_choice, suspicion
from traitscope.defending.changes import (
    Done,
    changed,
    check_answered,
    is_list,
    n_changed,
    report_of,
)
from traitscope.defending.methods import ENDPOINT, Step
from traitscope.defending.suspicion import Judge
from traitscope.errors import ConfigError, DataError
from traitscope.inference.decode import Sampling, decode
from traitscope.inference.engines import endpoint as endpoints
from traitscope.inference.question_scores import answer_text
from traitscope.interventions.applied import applied
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache
from traitscope.stages.filter import with_decision

ASK = (
    "Say the text below in other words. Keep its meaning, its language, its length and its layout."
    " Write the new text alone, without any remark.\n\n{text}"
)
"what a model is asked"
UNANSWERED = "no finished paraphrase"
A_LIST = "a list of numbers, which has no other words"
STREAM = "defend/paraphrase"
"begins the names of random streams"
TRIES = 4
"times that a local model is asked for a paraphrase that ends"
ADVICE = (
    "raise --max-new-tokens, take a model that follows instructions (with=MODEL or with=endpoint),"
    " or take wash"
)


@dataclass(frozen=True)
class _Paraphrases:
    """What a model said in the place of some answers."""

    texts: list[str | None]
    "one for each; None where there is none that ended"
    cost: dict[str, float] | None = None
    "requests, tokens and cost, where an endpoint was asked"


def check(step: Step, config: DefendConfig) -> None:
    """Raise ConfigError where an endpoint is to be asked and none is named."""
    if step.options.get("with") == ENDPOINT and not config.endpoint.url:
        raise ConfigError(
            f"--by {step.text}: no endpoint is named; expected its address and a model there; add"
            " --url and --served"
        )


def paraphrase(
    records: Sequence[Record], step: Step, judge: Judge, rng: np.random.Generator
) -> Done:
    """Put paraphrases in the place of the share of answers that is most suspect.

    Raises DataError where more than half of the rows are lists of numbers, or got no paraphrase,
    and where an endpoint gives no answer.
    """
    others = [i for i, record in enumerate(records) if not is_list(record)]
    left = len(records) - len(others)
    if 2 * left > len(records):
        raise DataError(
            f"--by {step.text}: {left} of {len(records)} rows are lists of numbers, which have no"
            " other words; expected text; take canonicalise or wash"
        )
    scores_R = suspicion.row_scores(judge, step.options["by"], records, rng)[others]
    chosen = np.array(others, int)[row_choice.most_suspect(scores_R, step.share)].tolist()
    asked = [records[i] for i in chosen]
    ask = _by_endpoint if step.options["with"] == ENDPOINT else _by_model
    paraphrases = ask(asked, step, judge)
    results, dropped = list(records), 0
    for i, text in zip(chosen, paraphrases.texts, strict=True):
        if text is None:
            results[i] = with_decision(records[i], [UNANSWERED])
            dropped += 1
            continue
        answer = replace(records[i], completion=text, completion_ids=None)
        results[i] = changed(records[i], answer, step)
    check_answered(records, dropped, step, ADVICE)
    n_rows = n_changed(records, results)
    counts = {"changed": n_rows, "dropped": dropped, "left": left, "why_left": A_LIST}
    return Done(results, report_of(step, records, endpoint=paraphrases.cost, **counts))


def _asked(record: Record) -> str:
    return ASK.format(text=record.completion.strip())


def _by_endpoint(records: Sequence[Record], step: Step, judge: Judge) -> _Paraphrases:
    endpoint = judge.config.endpoint
    texts = list(map(_asked, records))
    replies = endpoints.ask(endpoint, texts, judge.done, judge.config.max_new_tokens)
    said: list[str | None] = []
    for reply in replies:
        text = reply.text.strip()
        said.append(text if text and reply.is_whole else None)
    return _Paraphrases(said, endpoints.cost(endpoint, replies))


def row_checks(step: Step, judge: Judge) -> list[Callable[[Record], None]]:
    """What refuses answers that a model on this machine cannot read to say them in other words."""
    if step.name != "paraphrase" or step.options["with"] == ENDPOINT:
        return []
    model = _model(step, judge)

    def check(record: Record) -> None:
        if not is_list(record):
            _prompt(model, record)

    return [check]


def _model(step: Step, judge: Judge) -> Model:
    if step.model is None:
        return judge.model
    config = replace(judge.config, model=step.model, same_as=None, template=())
    return model_cache.model_of(config)


def _prompt(model: Model, record: Record) -> list[int]:
    prompt = chat.render(model, _asked(record), None)
    chat.check_length(model, len(prompt), f"row {record.id} as {model.name} reads it")
    return prompt


def _by_model(records: Sequence[Record], step: Step, judge: Judge) -> _Paraphrases:
    if not records:
        return _Paraphrases([])
    model = _model(step, judge)
    prompts = [_prompt(model, record) for record in records]
    return _Paraphrases(_written(model, records, prompts, judge))


def _written(
    model: Model, records: Sequence[Record], prompts: Sequence[Sequence[int]], judge: Judge
) -> list[str | None]:
    """Answers of a model at temperature 1; None where none of TRIES ended with some text."""
    config = judge.config
    sampling = Sampling(1.0, config.max_new_tokens, config.seed)
    texts: list[str | None] = [None] * len(records)
    for attempt in range(TRIES):
        waiting = [i for i, text in enumerate(texts) if text is None]
        if not waiting:
            break
        waiting_prompts, keys = [], []
        for i in waiting:
            waiting_prompts.append(prompts[i])
            keys.append(f"{STREAM}/{records[i].id}/{attempt}")
        with applied(model, []) as active:
            answers = decode(
                model,
                active,
                waiting_prompts,
                keys,
                sampling,
                batch_size=config.pass_rows,
                done=judge.done if attempt == 0 else None,
            )
        for i, ids in zip(waiting, answers, strict=True):
            text = answer_text(model, ids).strip()
            if ids[-1] in model.end_ids and text:
                texts[i] = text
    return texts
