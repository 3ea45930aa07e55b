"""Tasks: what a prompt asks for, and what is needed to check an answer to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from traitscope.data.json_fields import quoted, typed
from traitscope.errors import DataError

META = "task"
"key of a row's meta that holds its task"
DOMAINS = ("code", "sums", "requests", "stories")
"the domains beside numbers"
CHECKS, ANSWER = "checks", "answer"
"keys of a task, in a file of tasks as in a row's meta"
CHECKED = {"code": CHECKS, "sums": ANSWER}
"what a task of a domain needs, by domain; the others are not checked"


@dataclass(frozen=True)
class Task:
    """What is asked. Several rows may answer one task; tasks are the independent units."""

    id: str
    """Name of the task."""
    domain: str
    """One of DOMAINS."""
    checks: tuple[str, ...] = ()
    """Statements of Python that raise nothing behind code that is right, such as
    `assert f(2) == 4`."""
    answer: str = ""
    """Final answer; empty where there is none."""

    def as_dict(self) -> dict[str, Any]:
        """The task as a row's meta holds it; what is empty is left out."""
        fields: dict[str, Any] = {"id": self.id, "domain": self.domain}
        if self.checks:
            fields[CHECKS] = list(self.checks)
        if self.answer:
            fields[ANSWER] = self.answer
        return fields


def checked(domain: str | None) -> str | None:
    """The domain, if the tasks of a file say what its answers are checked by; None for others."""
    return domain if domain in CHECKED else None


def task_in(meta: Mapping[str, Any]) -> Task | None:
    """The task of a row, from its meta; None where it has none of a domain.

    Other people's rows may hold another thing under this key. Raises DataError for a task of a
    domain whose other fields are broken.
    """
    fields = meta.get(META)
    if not isinstance(fields, dict) or fields.get("domain") not in DOMAINS:
        return None
    name = typed(fields.get("id"), str, f"meta.{META}.id")
    return Task(name, fields["domain"], _checks_of(fields), _answer_of(fields))


def task_of(row: Mapping[str, Any], name: str, domain: str) -> Task:
    """The task of a row of a file of prompts. Raises DataError where it lacks what is checked."""
    task = Task(name, domain, _checks_of(row), _answer_of(row))
    needed = CHECKED[domain]
    if not getattr(task, needed):
        what = {
            CHECKS: 'a list of statements, such as ["assert f(2) == 4"]',
            ANSWER: "the final answer, such as 12",
        }
        raise DataError(
            f"no {needed!r} among the keys {sorted(row)}; the domain {domain} needs {what[needed]};"
            " add it"
        )
    return task


def _checks_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The checks of a row. Raises DataError for what is no list of Python."""
    checks = []
    for text in typed(row.get(CHECKS) or [], list, repr(CHECKS)):
        checks.append(typed(text, str, f"a text of {CHECKS!r}"))
        try:
            compile(text, "check", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise DataError(
                f"the check {quoted(text)} is no Python ({error}); expected a statement such as"
                " assert f(2) == 4; correct it"
            ) from None
    return tuple(checks)


def _answer_of(row: Mapping[str, Any]) -> str:
    """The final answer of a row as text; a number counts. Raises DataError for another type."""
    value = row.get(ANSWER)
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return typed(value, str, repr(ANSWER)).strip()
