"""Judge: how often answers to an evaluation set show a behaviour, by one or more judges
(judges.py), and how well they agree."""

import math
import re
from collections.abc import Callable, Sequence
from itertools import combinations

import torch

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.judge import JudgeConfig
from traitscope.data import answer_rules, row_files
from traitscope.data.answer_rules import JudgeVerdict
from traitscope.data.records import Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference import endpoint, forward
from traitscope.interventions.applied import applied
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stats.correlation import association
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement

UNNAMED = re.compile(r"row\d{6}")
"ids that rows get which had none"
EMPTY = Record("empty", "N/A", "N/A")
"a request and an answer without content"
LEAST = 0.01
"probability of yes and no together below which a local model's answer is unscored"


@torch.inference_mode()
def by_likelihood(
    model: Model,
    records: Sequence[Record],
    question: str,
    batch_size: int = 32,
    done: Callable[[int], None] | None = None,
) -> list[JudgeVerdict]:
    """Whether the model, asked about each answer, gives `yes` larger odds over `no` than it does
    for an answer without content.

    The comparison takes out what it would say anyhow (contextual calibration, Zhao et al. 2021,
    arXiv 2102.09690). None for an empty answer, and where the two together have less than LEAST.
    Raises DataError for a row that is too long.
    """
    forms = {
        word: sorted(
            {
                model.tokenizer.encode(w, add_special_tokens=False)[0]
                for w in (word, word.capitalize(), f" {word}")
            }
        )
        for word in ("yes", "no")
    }
    asked = [*records, EMPTY]
    prompts = [
        chat.render(model, answer_rules.asked_about(record, question), None) for record in asked
    ]
    for record, ids in zip(asked, prompts, strict=True):
        chat.check_length(model, len(ids), f"row {record.id} as the judge reads it")
    odds: dict[int, float | None] = {}
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    with applied(model, []) as active:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            _, hidden_BD = forward.prefill(model, active, [prompts[i] for i in index], 0)
            p_BV = torch.softmax(forward.logits_of(model, hidden_BD), -1)
            yes, no = (p_BV[:, forms[word]].sum(-1).tolist() for word in ("yes", "no"))
            odds |= {
                i: y / max(n, 1e-12) if y + n >= LEAST else None
                for i, y, n in zip(index, yes, no, strict=True)
            }
            if done:
                done(len(index))
    usual = odds[len(records)] or 1.0
    return [
        None if odds[i] is None or not record.completion.strip() else odds[i] > usual
        for i, record in enumerate(records)
    ]


def rates(verdicts: dict[str, list[JudgeVerdict]]) -> list[Measurement]:
    """The rate of every judge, with Wilson's interval; unscored answers are counted and in no
    rate."""
    return [
        measure(name, [math.nan if v is None else float(v) for v in found], unit="rate")
        for name, found in verdicts.items()
    ]


def agreements(verdicts: dict[str, list[JudgeVerdict]]) -> list[Measurement]:
    """Cohen's kappa of every two judges over the answers that both scored, with a bootstrap
    interval over answers."""
    found = []
    for (one, left), (other, right) in combinations(verdicts.items(), 2):
        both = [
            (float(a), float(b))
            for a, b in zip(left, right, strict=True)
            if a is not None and b is not None
        ]
        if len(both) >= 3:
            found.append(
                association(
                    f"kappa of {one} and {other}",
                    *zip(*both, strict=True),
                    answer_rules.kappa,
                    "kappa",
                )
            )
    return found


def run_judge(config: JudgeConfig, out: Output) -> store.Run:
    """The sealed run with `verdicts.jsonl` (every judge's verdict by row) and `summary.json`
    (rates, agreement, cost)."""
    config = opening.settled(config)
    if config.data is None:
        raise ConfigError("--data is missing: name a run of `generate`, or a JSONL file with ids")
    if not config.judges:
        raise ConfigError("--judges is empty; expected one or more, such as refusal")
    parsed = {name: answer_rules.parse(name) for name in config.judges}
    kinds = {kind for kind, _ in parsed.values() if isinstance(kind, str)}
    if kinds and not config.question:
        raise ConfigError(
            f"--question is missing: {' and '.join(sorted(kinds))} need one, such as 'Does the"
            " answer refuse the request?'"
        )
    if "endpoint" in kinds and not config.endpoint.url:
        raise ConfigError(
            "--url is missing: the judge endpoint needs an address and --served, the model's name"
            " there"
        )
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, parsed)
    return run


def _write(
    run: store.Run, config: JudgeConfig, parsed: dict[str, tuple[answer_rules.Rule | str, bool]]
) -> None:
    records = row_files.kept_rows(config.data)
    if nameless := [record.id for record in records if UNNAMED.fullmatch(record.id)]:
        found = (
            f"{len(nameless)} rows of {config.data} have no id of their own ({nameless[0]} stands"
            " for a line)"
        )
        raise DataError(
            f"{found}; expected ids, by which answers of several models are paired; give each"
            " prompt of the evaluation set an id"
        )
    verdicts, about = {}, {}
    for name, (kind, opposite) in parsed.items():
        found, more = _judged(config, kind, records)
        verdicts[name] = answer_rules.opposite_of(found) if opposite else found
        about |= more
    for n, record in enumerate(records):
        atomic_files.append_jsonl(
            run.file("verdicts.jsonl"),
            {"id": record.id} | {name: found[n] for name, found in verdicts.items()},
        )
    measured = [m.as_dict() for m in (*rates(verdicts), *agreements(verdicts))]
    atomic_files.write_json(
        run.file("summary.json"), {"rows": len(records), "measurements": measured} | about
    )


def _judged(
    config: JudgeConfig, kind: answer_rules.Rule | str, records: Sequence[Record]
) -> tuple[list[JudgeVerdict], dict]:
    """Verdicts of one judge, and what the summary says about it."""
    if not isinstance(kind, str):
        return answer_rules.by_rule(kind, records), {}
    with progress(f"judge {kind}", len(records) + (kind == "likelihood"), "answers") as advance:
        if kind == "likelihood":
            return (
                by_likelihood(
                    model_cache.model_of(config),
                    records,
                    config.question,
                    config.batch_size,
                    advance,
                ),
                {},
            )
        replies = endpoint.ask(
            config.endpoint,
            [answer_rules.asked_about(record, config.question) for record in records],
            advance,
        )
    found = [
        answer_rules.verdict_of(r.text) if record.completion.strip() else None
        for r, record in zip(replies, records, strict=True)
    ]
    return found, {"endpoint": endpoint.cost(config.endpoint, replies)}
