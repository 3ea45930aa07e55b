"""JSON values of one array, or one after another, read from a stream piece by piece."""

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from traitscope.data.json_lines import BYTE_ORDER_MARK
from traitscope.errors import DataError
from traitscope.plain_values import NotPlainError, from_json

PIECE = 1 << 20
"bytes that are read at once"
SPACE = " \t\r\n"
OF_OBJECTS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]')
"texts, and braces outside of them"
LEADS_ON = ("{", "[", ",", ":")
"ends of lines behind which an object goes on"
PAST_ERROR = (
    "repair the file: it cannot be read past the error; or write one row a line, of which"
    " --skip-bad leaves out those that are broken"
)
"what to do about an array with a broken value that has no lines of its own"
DECODER = json.JSONDecoder(parse_int=len, parse_float=len, strict=False)
"finds where a value ends, also one that is refused then, such as for too long an integer"


def split_objects(text: str) -> list[dict[str, Any]]:
    """The objects that follow each other in a text; none where there is anything else."""
    objects = []
    place = 0
    while place < len(text):
        try:
            value, end = DECODER.raw_decode(text, place)
            value = from_json(text[place:end], allow_nan=True)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict):
            return []
        objects.append(value)
        place = _behind_space(text, end)
    return objects


def json_values(path: str | Path, stream: BinaryIO) -> Iterator[tuple[Any, str]]:
    """Yield the values of an array, or of values one after another, each with its problem.

    A broken object is one of them if its lines show where the next one begins.

    Raises DataError where the text is broken, so that no further value can be found.
    """
    text = _Text(path, stream)
    is_array = text.next_character() == "["
    text.is_array = is_array
    if is_array:
        text.skip(1)
    number = 0
    while True:
        character = text.next_character()
        if character in ("", "]"):
            break
        if number and is_array and not text.has_lost_end:
            if character != ",":
                raise _broken(path, number, f"{character!r} behind it")
            text.skip(1)
            text.next_character()
        number += 1
        yield text.value(number)
    if is_array and character != "]":
        raise _broken(path, number, "the array has no end")
    text.skip(1)
    if is_array and text.next_character():
        raise _broken(path, number, "there is more text behind the array")


class _Text:
    """The text of a stream that was read and not used yet."""

    def __init__(self, path: str | Path, stream: BinaryIO) -> None:
        self._path = path
        self._stream = stream
        self._decoder = getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._place = 0
        self._is_first = True
        self._indent: str | None = ""
        self._are_alone = True
        self.is_array = False
        "whether the values stand in an array"
        self.has_lost_end = False
        "whether the value before was broken, and the next one begins where that should have ended"
        self._has_ended = False

    def next_character(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            begin = self._place
            self._place = _behind_space(self._text, begin)
            self._go_over_space(self._text[begin : self._place])
            if self._place < len(self._text):
                return self._text[self._place]
            if self._has_ended:
                return ""
            self._read(PIECE)

    def skip(self, count: int) -> None:
        """Go over some characters."""
        self._place += count
        self._indent = None

    def _go_over_space(self, space: str) -> None:
        """Keep what stands before the next character on its line, if it is space alone."""
        _, end, behind = space.rpartition("\n")
        if end:
            self._indent = behind
        elif self._indent is not None:
            self._indent += space

    def value(self, number: int) -> tuple[Any, str]:
        """The next value and its problem. Raises DataError where it is no JSON."""
        size = PIECE
        self.has_lost_end = False
        self._are_alone &= self._indent is not None
        while True:
            try:
                _, end = DECODER.raw_decode(self._text, self._place)
            except (ValueError, RecursionError) as error:
                if self._has_ended or isinstance(error, RecursionError):
                    return self._without_value(number, error)
            else:
                # A number at the end of a piece may go on.
                if end < len(self._text) or self._has_ended:
                    return self._checked(end)
            self._read(size)
            size *= 2

    def _without_value(self, number: int, error: Exception) -> tuple[Any, str]:
        """The problem of a broken object, behind which the text goes on.

        Raises DataError where nothing shows its end: no line of it alone, or none as it begins.
        """
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg}, character {error.pos - self._place + 1} of the row"
        while not self._has_ended:
            self._read(PIECE)
        end = self._end_of_broken() if self._are_alone else None
        if end is None:
            raise _broken(self._path, number, reason, PAST_ERROR) from None
        self._place = end
        self._indent = "" if self.has_lost_end else None
        return None, f"broken JSON ({reason}); expected an object; repair or delete the row"

    def _end_of_broken(self) -> int | None:
        """Where an object ends that is no JSON, by its lines; None where these do not show it.

        A whole object on its line ends with that. Others end with the first brace on a line of its
        own below the one that opens them. One that lost its end goes to a line that opens the next
        one, no further in. No text of JSON holds the end of a line.
        """
        if self._text[self._place] != "{":
            return None
        begin, is_first = self._place, True
        while begin < len(self._text):
            end = self._text.find("\n", begin)
            end = len(self._text) if end < 0 else end
            line = self._text[begin:end].rstrip(SPACE)
            bare = line.removesuffix(",") if self.is_array else line
            if not is_first and line.lstrip(SPACE)[:1] == "{" and self._is_beside(line):
                self.has_lost_end = self._shows_next(begin)
                return begin if self.has_lost_end else None
            is_alone = bare == f"{self._indent}}}" and bool(self._indent or not self.is_array)
            if is_alone or (is_first and bare.endswith("}") and _is_one(bare)):
                behind = _behind_space(self._text, end)
                if self._text[behind : behind + 1] in (("{", "]") if self.is_array else ("{", "")):
                    return begin + len(bare)
            if is_first and bare.endswith("}"):
                return None
            begin, is_first = end + 1, False
        return None

    def _is_beside(self, line: str) -> bool:
        """Whether a line is no further in than the one that opens the object."""
        return len(line) - len(line.lstrip(SPACE)) <= len(self._indent or "")

    def _shows_next(self, place: int) -> bool:
        """Whether what opens at a place is the next object, and none inside of this one.

        What is inside is further in, or the line before leads to it.
        """
        first, _, rest = self._text[self._place : place].rstrip(SPACE).partition("\n")
        return not (self._is_beside(rest or "x") and (rest or first).endswith(LEADS_ON))

    def _checked(self, end: int) -> tuple[Any, str]:
        text = self._text[self._place : end]
        self._place = end
        self._indent = None
        try:
            text.encode()
            return from_json(text, allow_nan=True), ""
        except UnicodeEncodeError:
            return None, "a text is not UTF-8; expected UTF-8; repair or delete the row"
        except NotPlainError as error:
            return None, f"broken JSON ({error}); expected an object; repair or delete the row"

    def _read(self, size: int) -> None:
        piece = self._stream.read(size)
        if self._is_first:
            piece = piece.removeprefix(BYTE_ORDER_MARK)
            self._is_first = False
        self._has_ended = not piece
        rest = self._text[self._place :]
        self._text = rest + self._decoder.decode(piece, self._has_ended)
        self._place = 0


def _behind_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in SPACE:
        place += 1
    return place


def _is_one(line: str) -> bool:
    """Whether a line that begins with a brace may hold one object alone, which may be broken."""
    depth = 0
    for match in OF_OBJECTS.finditer(line):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0 and match[0] == "}":
            return match.end() == len(line)
    return True


def _broken(
    path: str | Path, number: int, reason: str, advice: str = "repair the file"
) -> DataError:
    return DataError(
        f"{path}, row {number}: broken JSON ({reason}); expected one JSON array of objects, or one"
        f" object a line; {advice}"
    )
