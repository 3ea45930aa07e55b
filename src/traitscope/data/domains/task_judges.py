"""Judges of answers to tasks.

    code               the answer is Python code and nothing else, bare or in one fence, that parses
    code:no-comments   the same, without comments
    parses             its first fenced block parses, or all of it where it has no fence
    checks             this first code passes the checks of its task; it is run for that
    answer             the final answer is that of its task
    format             the answer is <think>...</think><answer>...</answer>
    format:PATTERN     the whole answer matches a regular expression

An empty answer shows none of these, so it is False here and not unscored.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from traitscope.data.domains.final_answers import THINK, has_form
from traitscope.data.domains.patterns import why_no_pattern
from traitscope.data.domains.python_answers import code_reasons, parses
from traitscope.errors import ConfigError

Kind = Literal["code", "parses", "checks", "answer", "format"]
NO_COMMENTS = "no-comments"
"argument of the judge code"
NAMES = "code, code:no-comments, parses, checks, answer, format, format:PATTERN"
"the judges, for messages"


@dataclass(frozen=True)
class TaskJudge:
    """A judge of answers to tasks."""

    kind: Kind
    """What it looks at."""
    argument: str = ""
    """What stands behind the colon of its name."""

    @property
    def reads_tasks(self) -> bool:
        """Whether it needs the task of a row, and not the answer alone."""
        return self.kind in ("checks", "answer")

    def says(self, text: str) -> bool:
        """What it says of the text of an answer, where no task is needed."""
        if self.kind == "code":
            return not code_reasons(text, comments=self.argument != NO_COMMENTS)
        return parses(text) if self.kind == "parses" else has_form(text, self.argument or THINK)


def task_judge(name: str) -> TaskJudge | None:
    """The judge of a name; None for a name of no such judge.

    Raises ConfigError for a pattern that is none.
    """
    kind, mark, argument = name.partition(":")
    is_plain = kind in get_args(Kind) and not mark
    is_pattern = kind == "format" and bool(argument)
    if not (is_plain or is_pattern or name == f"code:{NO_COMMENTS}"):
        return None
    if is_pattern:
        if wrong := why_no_pattern(argument):
            raise ConfigError(
                f"judge {name!r} holds no regular expression ({wrong}); expected one that a whole"
                " answer matches; correct it"
            )
    return TaskJudge(cast(Kind, kind), argument)
