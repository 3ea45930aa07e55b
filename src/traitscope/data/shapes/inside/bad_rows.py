"""Bad rows of a file: the first of them, and whether they are too many."""

from traitscope.data.shapes.intake import Intake, Reading, Usual
from traitscope.errors import DataError
from traitscope.plurals import counted

BY_FILTER = (
    "these flags are those of filter, whose run can stand here: traitscope filter --no-numbers"
    " --data FILE"
)
"what to do about bad rows where a command has no flags that say how rows are read"


class BadRows:
    """The bad rows of a file, and whether they are too many."""

    def __init__(self, reading: Reading, intake: Intake, are_prompts: bool = False) -> None:
        self.reading = reading
        self.intake = intake
        self.are_prompts = are_prompts
        self.first = ""
        self.next_place = ""

    def add(self, place: str, reason: str) -> None:
        """Count a bad row."""
        self.intake.add_bad(place, reason)
        if not self.first:
            self.first = f"{place}: {reason}"
        elif not self.next_place:
            self.next_place = place

    @property
    def are_too_many(self) -> bool:
        """Whether more rows are bad than may be left out; of prompts none may be."""
        allowed = self.reading.skip_bad
        return allowed != "all" and self.intake.bad > allowed

    def check(self) -> None:
        """Raise DataError where they are too many, with the first of them and their number.

        It names the command that has the flags which it advises.
        """
        if not self.are_too_many:
            return
        message = f"{self.first}{self._others()}"
        has_no_flags = isinstance(self.reading, Usual) and not self.reading.has_flags
        if has_no_flags and not self.are_prompts and "--" in message:
            message += f"; {BY_FILTER}"
        raise DataError(message)

    def _others(self) -> str:
        """What a message says of bad rows behind the first one."""
        count = self.intake.bad
        if count == self.intake.rows:
            rows = "the only row" if count == 1 else f"all {count} rows"
            return f"; {rows} of the file cannot be read"
        others = ""
        if count > 1:
            others = f"; {counted(count - 1, 'more bad row')}, the next is {self.next_place}"
        if self.are_prompts:
            return others
        what = "leave the row out" if count == 1 else "leave all out"
        return f"{others}; or {what}: --skip-bad {count}"
