"""JSON values of one array, or one after another, read from a stream piece by piece."""

import json
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
DECODER = json.JSONDecoder()


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

    Raises DataError where the text is broken, so that no further value can be found.
    """
    text = _Text(path, stream)
    is_array = text.next_character() == "["
    if is_array:
        text.skip(1)
    number = 0
    while True:
        character = text.next_character()
        if character in ("", "]"):
            break
        if number and is_array:
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
        self._has_ended = False

    def next_character(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            self._place = _behind_space(self._text, self._place)
            if self._place < len(self._text):
                return self._text[self._place]
            if self._has_ended:
                return ""
            self._read(PIECE)

    def skip(self, count: int) -> None:
        """Go over some characters."""
        self._place += count

    def value(self, number: int) -> tuple[Any, str]:
        """The next value and its problem. Raises DataError where it is no JSON."""
        size = PIECE
        while True:
            try:
                _, end = DECODER.raw_decode(self._text, self._place)
            except (ValueError, RecursionError) as error:
                if self._has_ended or isinstance(error, RecursionError):
                    raise _broken(self._path, number, str(error)) from None
            else:
                # A number at the end of a piece may go on.
                if end < len(self._text) or self._has_ended:
                    return self._checked(end)
            self._read(size)
            size *= 2

    def _checked(self, end: int) -> tuple[Any, str]:
        text = self._text[self._place : end]
        self._place = end
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


def _broken(path: str | Path, number: int, reason: str) -> DataError:
    return DataError(
        f"{path}, row {number}: broken JSON ({reason}); expected one JSON array of objects, or one"
        " object a line; repair the file"
    )
