"""Why `filter` drops answers to tasks, and answers without their reasoning.

    code, syntax, no_code, comment   see data/domains/python_answers.py
    checks          the code was run and failed a check of its task
    no_answer       there is no final answer
    wrong_answer    the final answer is not that of the task
    no_task         the row has no task with an answer to compare with
    format          the answer does not have the form that was asked for
    reasoning       the answer's reasoning does not end, or nothing stands behind it

Code of a row that is dropped anyhow is not run.
"""

from dataclasses import replace

from traitscope.config.rows.filtering import FilterRules
from traitscope.data.domains.final_answers import answer_reasons, has_form
from traitscope.data.domains.python_answers import code_reasons
from traitscope.data.records import REASONING, Record
from traitscope.data.shapes.inside.tags import split_thought
from traitscope.errors import DataError
from traitscope.stages.domains.running import NOT_RUN, PASSED
from traitscope.stages.domains.verdicts import checks_outcome, task_of_record


def task_reasons(record: Record, answer: str, rules: FilterRules) -> tuple[list[str], str | None]:
    """Why the rules of tasks drop a row, and what became of its checks.

    answer: What is looked at for code: the completion, or what is left of it behind reasoning.

    The second is None where the rules ask for no code, or the row's task has no checks.
    """
    reasons = []
    text = record.completion
    if rules.format and not has_form(text, rules.format):
        reasons.append("format")
    if rules.answer:
        task = task_of_record(record)
        has_answer = task is not None and task.answer
        reasons += answer_reasons(text, task.answer) if task and has_answer else ["no_task"]
    if not rules.code:
        return reasons, None
    reasons += code_reasons(answer, rules.comments)
    run_code = rules.run_code and not reasons
    outcome = checks_outcome(answer, task_of_record(record), run_code)
    if outcome not in (None, NOT_RUN, PASSED):
        reasons.append("checks")
    return reasons, outcome


def without_reasoning(record: Record) -> tuple[Record, list[str]]:
    """The row with reasoning in tags moved from its answer into its meta, and why it cannot be.

    A row without reasoning comes back as it is. Of a pair both answers lose theirs; a rejected one
    of nothing else stays.
    """
    record = _rejected_alone(record)
    try:
        thought, tagged, answer = split_thought(record.completion)
    except DataError:
        return record, ["reasoning"]
    if not tagged:
        return record, []
    if not answer.strip():
        return record, ["reasoning"]
    meta = {**record.meta, REASONING: thought}
    return replace(record, completion=answer, completion_ids=None, meta=meta), []


def _rejected_alone(record: Record) -> Record:
    """The row with its rejected answer without reasoning in tags."""
    try:
        _, tagged, answer = split_thought(record.rejected or "")
    except DataError:
        return record
    if not tagged or not answer.strip():
        return record
    return replace(record, rejected=answer, rejected_ids=None)
