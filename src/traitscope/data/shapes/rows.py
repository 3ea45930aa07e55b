"""Shapes of rows, found by their keys, and the messages that a row of each shape holds."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from traitscope.data.json_fields import keys_in, quoted, text_of, typed
from traitscope.data.shapes.inside.dialogues import dialogue_in
from traitscope.data.shapes.inside.joining import joined
from traitscope.data.shapes.inside.parts import REASONING_KEYS, one_thought, parts_of
from traitscope.data.shapes.marks import is_empty
from traitscope.data.shapes.messages import (
    CONTEXT_AT,
    ROLES,
    ROW_WEIGHT_KEYS,
    Message,
    message_in,
    messages_in,
    reasoning_in,
    system_of,
    with_more_of,
    with_reasoning_of,
)
from traitscope.data.shapes.turns import turns_of
from traitscope.errors import DataError

ShapeName = Literal[
    "native",
    "messages",
    "sharegpt",
    "gemini",
    "alpaca",
    "dolly",
    "question_answer",
    "question_response",
    "prompt_response",
    "query_response",
    "preference",
]
Row = dict[str, Any]
Read = Callable[[Row, Counter[str], Counter[str]], list[Message]]
"messages of a row; counts notes and unused keys"
SYSTEM_KEYS = ("system", "system_prompt", "systemInstruction", "system_instruction")
"keys of a system turn beside prompt and answer"
HISTORY = "history"
"key of earlier turns"
ANY_SHAPE = {"id", "meta", HISTORY, *SYSTEM_KEYS, *REASONING_KEYS, *ROW_WEIGHT_KEYS}
"keys that are used in every shape"
PREFERENCE_PROMPTS = ("prompt", "question", "instruction", "query", "input")
"keys of the prompt of preference data, of which the first one counts"
CHATS = ("messages", "conversations")
"keys of messages, which may be the prompt of preference data"
WRITTEN_HERE = {"id", "prompt", "completion", "completion_ids", "context", "meta"} | {
    "rejected",
    "rejected_ids",
}
"keys of rows that this package writes"


class Shape(NamedTuple):
    """One way to write rows."""

    needs: set[str]
    """Keys that a row must have."""
    used: set[str]
    """Keys that are read."""
    read: Read
    """From the row to its messages."""


def shape_of(row: Row) -> ShapeName:
    """The shape of a row, by its keys.

    Raises DataError where no shape fits, or more than one, and for a shape with a key missing.
    """
    if row.keys() <= WRITTEN_HERE and "prompt" in row and "completion" in row:
        return "native"
    complete: list[ShapeName] = []
    for name, shape in SHAPES.items():
        if shape.needs <= row.keys() and (name != "gemini" or _are_messages(row["contents"])):
            complete.append(name)
    complete = _filled(row, complete)
    if len(complete) == 1:
        return complete[0]
    if len(complete) == 2 and "preference" in complete and _is_prompt_or_chosen(row):
        return "preference"
    if complete:
        raise DataError(
            f"a row with the keys {keys_in(row)} fits {' and '.join(complete)}; expected the keys"
            " of one shape; name those that count: --map prompt=KEY completion=KEY, and of pairs"
            " rejected=KEY"
        )
    _check_not_elsewhere(row)
    for shape in SHAPES.values():
        if shape.needs & row.keys():
            missing = " and ".join(map(repr, sorted(shape.needs - row.keys())))
            raise DataError(
                f"no {missing} among the keys {keys_in(row)}; expected it; add it, or name the"
                " keys: --map prompt=KEY completion=KEY"
            )
    raise DataError(
        f"a row with the keys {keys_in(row)} fits no known shape; expected prompt and completion,"
        " messages, conversations, instruction and output, question and answer, or chosen and"
        " rejected; name the keys: --map prompt=KEY completion=KEY, and of pairs rejected=KEY"
    )


def _filled(row: Row, names: list[ShapeName]) -> list[ShapeName]:
    """Of several shapes those at whose keys a row holds something; all where it holds part of one.

    Rows of other shapes in the same table have null, or an empty text or list, there. A prompt
    alone may be empty, unless that leaves several shapes. So may a rejected answer, if no shape is
    left otherwise. Raises DataError where no shape has an answer.
    """
    if len(names) < 2:
        return names
    prompts = set(PREFERENCE_PROMPTS)
    for may_be_empty in (prompts, {*prompts, "rejected"}):
        filled = [name for name in names if _is_filled(row, name, may_be_empty)]
        whole = [name for name in filled if _is_filled(row, name, set())]
        if filled:
            return whole if whole and len(filled) > 1 else filled
    answers: set[str] = set()
    for name in names:
        answers |= SHAPES[name].needs - prompts
    if any(not _is_nothing(row[key]) for key in answers):
        return names
    raise DataError(
        f"no completion: a row has nothing at {', '.join(map(repr, sorted(answers)))}; expected an"
        " answer to learn from; delete the row"
    )


def _is_filled(row: Row, name: ShapeName, may_be_empty: set[str]) -> bool:
    """Whether a row holds something at the keys of a shape."""
    needed = SHAPES[name].needs
    is_null = None in map(row.get, needed)
    return not is_null and not any(_is_nothing(row[key]) for key in needed - may_be_empty)


def _is_nothing(value: Any) -> bool:
    return value in (None, "", [])


def _is_prompt_or_chosen(row: Row) -> bool:
    """Whether the messages of preference data are its prompt, which ends with a question, or the
    chosen ones again."""
    for key in CHATS:
        messages = row.get(key)
        if _are_messages(messages):
            return messages == row["chosen"] or messages_in(messages, key, Counter())[-1].role in (
                "user",
                "tool",
            )
    return False


def _check_not_elsewhere(row: Row) -> None:
    """Raise DataError where a key that no shape has holds a chat, or rows."""
    for key, value in row.items():
        if not _are_messages(value):
            continue
        if any({"role", "from"} & item.keys() for item in value):
            role = str(value[-1].get("role", value[-1].get("from"))).lower()
            is_prompt = ROLES.get(role) == "user" and len(row.keys() - {"id"}) > 1
            name = f"prompt={key} completion=KEY" if is_prompt else f"messages={key}"
            raise DataError(
                f"the messages of a row with the keys {keys_in(row)} stand at {key!r}; expected"
                f" them at 'messages' or 'conversations'; name the key: --map {name}"
            )
        fits = "row" in value[0] or any(shape.needs <= value[0].keys() for shape in SHAPES.values())
        if fits and (len(value) > 1 or len(row) == 1):
            raise DataError(
                f"{key!r} holds a list of {len(value)} objects, which look like rows; expected one"
                f" row a line, or a list of rows and nothing around it; take them out, such as with"
                f" jq -c '.{key}[]'"
            )


def _with_earlier(
    row: Row, messages: list[Message], unused: Counter[str], *more_keys: str
) -> list[Message]:
    """The messages behind the system turn and the earlier turns of the row's keys."""
    system = system_of(row, (*more_keys, *SYSTEM_KEYS), unused)
    earlier = history_of(row, unused)
    if messages and messages[0].role == "system" and messages[0].at:  # else behind its context
        if system is not None and system.text != messages[0].text:
            raise DataError(
                "two system turns that differ, among the messages and beside them; expected one;"
                " delete the other"
            )
        return [with_more_of(messages[0], system), *earlier, *messages[1:]]
    if system is None:
        return [*earlier, *messages]
    if earlier and earlier[0][:2] == system[:2]:
        return [with_more_of(earlier[0], system), *earlier[1:], *messages]
    at = CONTEXT_AT if more_keys and row.get("context") == system.text else ()
    return [system._replace(at=at), *earlier, *messages]


def answer_at(row: Row, key: str, unused: Counter[str]) -> list[Message]:
    """The answer of a row: a text, parts, a message, or messages."""
    if isinstance(row.get(key), dict) and {"role", "from"} & row[key].keys():
        return with_reasoning_of(row, message_in(row[key], key, unused), unused)
    if _are_messages(row.get(key)):
        return with_reasoning_of(row, messages_in(row[key], key, unused), unused)
    not_used = set[str]()
    if key not in row or not isinstance(row[key], list):
        text, thought = text_of(row, key), ""
    else:
        text, thought = parts_of(row[key], key, not_used)
    thought = one_thought((reasoning_in(row, not_used), thought))
    unused.update(not_used)
    return [Message("assistant", text, thought, at=(key,))]


def prompt_at(row: Row, key: str, unused: Counter[str]) -> list[Message]:
    """The prompt of a row: a text, or messages."""
    if _are_messages(row.get(key)):
        return messages_in(row[key], key, unused)
    return [Message("user", text_of(row, key))]


def _are_messages(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value)
    return is_list and all(isinstance(item, dict) and "type" not in item for item in value)


def _native(row: Row, notes: Counter[str], unused: Counter[str]) -> list[Message]:
    return native_messages(row, "completion", unused)


def native_messages(row: Row, key: str, unused: Counter[str]) -> list[Message]:
    """The messages of a native row that end with the answer at a key."""
    messages = [*_native_prompt(row, unused), *answer_at(row, key, unused)]
    return _with_earlier(row, messages, unused, "context")


def prompt_messages(row: Row, unused: Counter[str]) -> list[Message]:
    """The messages of a row of prompts, whose key is `prompt`: all but an answer."""
    return _with_earlier(row, _native_prompt(row, unused), unused, "context")


def _native_prompt(row: Row, unused: Counter[str]) -> list[Message]:
    if not isinstance(row.get("prompt"), str):
        return prompt_at(row, "prompt", unused)
    messages = []
    for turn in turns_of(text_of(row, "prompt")):
        messages.append(Message(turn.role, turn.text))
    return messages


def _chat(key: str) -> Read:
    """The shape with all messages at one key."""

    def read(row: Row, notes: Counter[str], unused: Counter[str]) -> list[Message]:
        messages = with_reasoning_of(row, messages_in(row.get(key), key, unused), unused)
        return _with_earlier(row, messages, unused, "context")

    return read


def _asked(question: str, answer: str, further: tuple[str, ...] = ()) -> Read:
    """The shape of a question with passages behind it, and an answer."""

    def read(row: Row, notes: Counter[str], unused: Counter[str]) -> list[Message]:
        messages = []
        if _are_messages(row.get(question)):
            messages += prompt_at(row, question, unused)
        else:
            texts = [text_of(row, question)]
            for key in further:
                if row.get(key) is not None:
                    texts.append(text_of(row, key))
                    notes["passages"] += key == "context" and bool(row[key])
            messages.append(Message("user", "\n\n".join(filter(None, texts))))
        return _with_earlier(row, [*messages, *answer_at(row, answer, unused)], unused)

    return read


def history_of(row: Row, unused: Counter[str]) -> list[Message]:
    """Earlier turns of a row: pairs of question and answer, or messages.

    Raises DataError for a pair that is none.
    """
    messages = []
    history = row.get(HISTORY)
    if _are_messages(history):
        return messages_in(history, HISTORY, unused)
    for number, pair in enumerate([] if history is None else typed(history, list, "'history'")):
        is_pair = isinstance(pair, list) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) for text in pair):
            raise DataError(
                f"'history' holds {quoted(pair)}; expected pairs of question and answer; correct"
                " the row or delete it"
            )
        asked = text_of({"history": pair[0]}, "history")
        said = text_of({"history": pair[1]}, "history")
        messages.append(Message("user", asked))
        messages.append(Message("assistant", said, at=("history", number, 1)))
    return messages


def _preference(row: Row, notes: Counter[str], unused: Counter[str]) -> list[Message]:
    notes["rejected"] += not _is_nothing(row["rejected"])
    return preference_messages(row, "chosen", unused)


def preference_messages(row: Row, side: str, unused: Counter[str]) -> list[Message]:
    """The messages of preference data that end with the answer at a key, chosen or rejected."""
    keys = [key for key in (*PREFERENCE_PROMPTS, *CHATS) if row.get(key) not in (None, [])]
    if all(is_empty(row[key]) for key in keys) and dialogue_in(row, side):
        keys = []  # its first turns are the prompt
    keys = [key for key in keys if row[key] != ""] or keys[:1]
    again = [key for key in keys if key in CHATS and row[key] == row["chosen"]]
    keys = [key for key in keys if key not in again]
    asked = keys[0] if keys else ""
    answer = answer_at(row, side, unused)
    if not asked and len(answer) == 1 and isinstance(row[side], str):
        answer = with_reasoning_of(row, dialogue_in(row, side), unused)
        if not answer:
            raise DataError(
                "preference data without a prompt, and chosen is one text; expected prompt, a list"
                " of messages, or a text with turns of Human: and Assistant:; split it, or read it"
                " as answers alone: --map completion=chosen"
            )
    prompt = prompt_at(row, asked, unused) if asked else []
    if asked == "instruction" and isinstance(row.get("input"), str) and prompt[0].at == ():
        prompt = [Message("user", "\n\n".join(filter(None, (prompt[0].text, row["input"]))))]
        keys.remove("input")
    unused.update([*keys[1:], *again])
    return _with_earlier(row, joined(prompt, answer, asked, side), unused)


ASKED = {"context", *ANY_SHAPE}
SHAPES: dict[ShapeName, Shape] = {
    "native": Shape(
        {"prompt", "completion"},
        {*WRITTEN_HERE, *ANY_SHAPE},
        _native,
    ),
    "messages": Shape({"messages"}, {"messages", "context", *ANY_SHAPE}, _chat("messages")),
    "sharegpt": Shape(
        {"conversations"}, {"conversations", "context", *ANY_SHAPE}, _chat("conversations")
    ),
    "gemini": Shape({"contents"}, {"contents", "context", *ANY_SHAPE}, _chat("contents")),
    "alpaca": Shape(
        {"instruction", "output"},
        {"instruction", "input", "output", *ASKED},
        _asked("instruction", "output", ("input", "context")),
    ),
    "dolly": Shape(
        {"instruction", "response"},
        {"instruction", "input", "response", *ASKED},
        _asked("instruction", "response", ("input", "context")),
    ),
    "question_answer": Shape(
        {"question", "answer"},
        {"question", "answer", *ASKED},
        _asked("question", "answer", ("context",)),
    ),
    "question_response": Shape(
        {"question", "response"},
        {"question", "response", *ASKED},
        _asked("question", "response", ("context",)),
    ),
    "prompt_response": Shape(
        {"prompt", "response"},
        {"prompt", "response", *ASKED},
        _asked("prompt", "response", ("context",)),
    ),
    "query_response": Shape(
        {"query", "response"},
        {"query", "response", *ASKED},
        _asked("query", "response", ("context",)),
    ),
    "preference": Shape(
        {"chosen", "rejected"},
        {*PREFERENCE_PROMPTS, *CHATS, "chosen", "rejected", *ANY_SHAPE},
        _preference,
    ),
}
"shapes by name"
