"""What judges of tasks say of rows."""

from collections.abc import Callable, Sequence

from traitscope.data.answer_rules import JudgeVerdict
from traitscope.data.domains.final_answers import answer_reasons
from traitscope.data.domains.python_answers import first_code_in
from traitscope.data.domains.task import ANSWER, CHECKS, Task, task_in
from traitscope.data.domains.task_judges import TaskJudge
from traitscope.data.json_lines import at_place
from traitscope.data.records import Record
from traitscope.errors import DataError
from traitscope.stages.domains.running import NOT_RUN, PASSED, outcome_of

NO_CODE = "it is no code"
"what is said of an answer with checks, of which nothing can be run"


def by_task(
    judge: TaskJudge,
    records: Sequence[Record],
    run_code: bool = False,
    done: Callable[[int], None] | None = None,
) -> list[JudgeVerdict]:
    """The verdict of a judge of tasks on every answer; None where the row has nothing to compare.

    run_code: Run the code of answers, for the judge checks. Without it all its verdicts are None:
    nothing was run, so nothing passed.
    done: A function called with the number of answers that were judged.

    Raises DataError where no row has a task that the judge could compare with.
    """
    tasks = list(map(task_of_record, records))
    if judge.reads_tasks:
        _check_some(judge, tasks)
    verdicts: list[JudgeVerdict] = []
    for record, task in zip(records, tasks, strict=True):
        verdicts.append(_verdict(judge, record.completion, task, run_code))
        if done:
            done(1)
    return verdicts


def task_of_record(record: Record) -> Task | None:
    """The task of a row; None where it has none. Raises DataError, with its id, for a bad one."""
    return at_place(f"row {record.id}", task_in, record.meta)


def task_names(records: Sequence[Record]) -> list[str] | None:
    """The task of each row, by which rows are grouped; None where no row has one.

    A row without a task is a group of its own.
    """
    names = []
    has_tasks = False
    for record in records:
        task = task_of_record(record)
        has_tasks |= task is not None
        names.append(f"row {record.id}" if task is None else f"{task.domain} {task.id}")
    return names if has_tasks else None


def checks_outcome(text: str, task: Task | None, run_code: bool) -> str | None:
    """PASSED, NOT_RUN or what went wrong, for an answer; None where its task has no checks."""
    if task is None or not task.checks:
        return None
    if not run_code:
        return NOT_RUN
    code = first_code_in(text)
    return NO_CODE if code is None else outcome_of(code, task.checks)


def _verdict(judge: TaskJudge, text: str, task: Task | None, run_code: bool) -> JudgeVerdict:
    if judge.kind == "checks":
        outcome = checks_outcome(text, task, run_code)
        return None if outcome in (None, NOT_RUN) else outcome == PASSED
    if judge.kind == "answer":
        return None if task is None or not task.answer else not answer_reasons(text, task.answer)
    return judge.says(text)


def _check_some(judge: TaskJudge, tasks: Sequence[Task | None]) -> None:
    key = CHECKS if judge.kind == "checks" else ANSWER
    if not any(task is not None and getattr(task, key) for task in tasks):
        domain = "code" if judge.kind == "checks" else "sums"
        raise DataError(
            f"no row has a task with {key!r}, which the judge {judge.kind} compares with; expected"
            f" rows of generate --domain {domain}, or of generate --domain {domain} --prompts FILE;"
            " generate them so, or leave this judge out"
        )
