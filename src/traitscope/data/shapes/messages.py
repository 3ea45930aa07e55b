"""Messages of a chat, read one by one: roles, parts of content, reasoning, weights, tool calls."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from traitscope.data.json_fields import quoted, text_of, typed
from traitscope.data.shapes.inside.parts import (
    REASONING_KEYS,
    calls_in,
    first_key,
    parts_of,
    results_in,
)
from traitscope.data.shapes.marks import (
    has_empty,
    is_learnt,
    is_weighted,
    says_more_than_no,
    weights_of,
)
from traitscope.errors import DataError
from traitscope.plain_values import NotPlainError, from_json

ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"role that a name stands for"
OTHER_ROLES = ("bot", "chatgpt", "chatbot")
"roles of chats with several programs, read as the assistant's and counted"
CALL_KEYS = ("tool_calls", "function_call")
WEIGHT_KEYS = ("weight", "train", "loss")
"keys that say whether a turn is trained on: weight 0, or false"
ROLE_KEYS, TEXT_KEYS = ("role", "from"), ("content", "value")
CHANNEL, ANALYSIS, FINAL = "channel", "analysis", "final"
"key of a turn of Harmony, and its values for reasoning and for an answer"
PARTS = "parts"
"key of the text of a turn of Gemini, which has no other"
ROW_WEIGHT_KEYS = ("weight", "train")
"keys of a row that say so; its `loss` may be one that was measured"
USED_KEYS = {*ROLE_KEYS, *TEXT_KEYS, *REASONING_KEYS, *WEIGHT_KEYS, *CALL_KEYS}
TAGS = "think|thinking|thought|reasoning|seed:think"
"tags of reasoning that models write"
OPENED = re.compile(rf"\s*<({TAGS})>")
THOUGHT = re.compile(rf"\s*<({TAGS})>(.*?)</\1>\s*", re.DOTALL)
"reasoning at the beginning of an answer"
CLOSED = re.compile(rf"(.*?)</({TAGS})>\s*", re.DOTALL)
"reasoning whose opening tag stood in the prompt, as DeepSeek-R1 and QwQ have it"
CALL_ROLES = ("function_call",)
"roles of turns that are calls of tools and nothing else, as ShareGPT has them"
Place = tuple[str | int, ...]
"keys and numbers that lead from a row to a value"
CONTEXT_AT: Place = ("context",)
"where the system turn of a row of this package stands, which may be a form of contexts"


class Message(NamedTuple):
    """A turn of a chat as it stands in a row."""

    role: str
    """`user`, `assistant`, `system` or `tool`."""
    text: str | None
    """The text; None where there is none."""
    reasoning: str = ""
    """Reasoning before it, from a key or a part of its own."""
    is_trained: bool = True
    """Whether its weight is not 0."""
    is_weighted: bool = False
    """Whether its weight is a number other than 0 and 1."""
    is_unweighted: bool = False
    """Whether it has a weight that is empty."""
    has_calls: bool = False
    """Whether it calls tools."""
    at: Place = ()
    """Where its text stands in the row."""
    is_renamed: bool = False
    """Whether its role is one of OTHER_ROLES."""
    is_analysis: bool = False
    """Whether it is reasoning alone, which belongs to the assistant's next turn."""


def messages_in(value: Any, key: str, unused: Counter[str]) -> list[Message]:
    """The messages of a list at a key; a key with a value that is not used is counted once.

    Raises DataError for what is no message.
    """
    messages: list[Message] = []
    not_used = set()
    for number, item in enumerate(typed(value, list, key)):
        message = _message(typed(item, dict, "a message"), (key, number), not_used)
        is_known = item.get(CHANNEL) in (FINAL, ANALYSIS)
        for name in item.keys() - USED_KEYS - ({CHANNEL} if is_known else set()):
            if item[name] is not None and message.at[-1] != name:
                not_used.add(f"{key}[].{name}")
        if messages and messages[-1].is_analysis and message.role == "assistant":
            thoughts = (messages.pop().reasoning, message.reasoning)
            message = message._replace(reasoning="\n".join(filter(None, thoughts)))
        messages.append(message)
    unused.update(not_used)
    return messages


def message_in(value: Any, key: str, unused: Counter[str]) -> Message:
    """The message at a key; keys with a value that are not used are counted.

    Raises DataError for what is no message.
    """
    (message,) = messages_in([value], key, unused)
    return message._replace(at=(key, *message.at[2:]))


def reasoning_in(row: dict[str, Any], not_used: set[str] | None = None, path: str = "") -> str:
    """The reasoning beside an answer; empty where there is none.

    Raises DataError for several that differ, and for one that is no text.
    """
    thoughts = []
    for key in REASONING_KEYS:
        if row.get(key) in (None, ""):
            continue
        text, inner = parts_of(row[key], key, not_used, f"{path}{key}")
        thought = text or inner
        if thought not in thoughts:
            thoughts.append(thought)
    if len(thoughts) > 1:
        raise DataError(
            f"several reasoning parts that differ ({', '.join(REASONING_KEYS)}); expected one;"
            " delete the others"
        )
    return thoughts[0] if thoughts else ""


def with_reasoning_of(
    row: dict[str, Any], messages: list[Message], unused: Counter[str]
) -> list[Message]:
    """The messages of a chat, with reasoning that stands beside them at the last answer.

    Raises DataError where that answer has other reasoning.
    """
    not_used = set[str]()
    thought = reasoning_in(row, not_used)
    unused.update(not_used)
    answers = [place for place, item in enumerate(messages) if item.role == "assistant"]
    if not thought or not answers:
        return messages
    last = messages[answers[-1]]
    if last.reasoning not in ("", thought):
        raise DataError(
            "the last answer has reasoning, and other reasoning stands beside the messages;"
            " expected one; delete the other"
        )
    messages[answers[-1]] = last._replace(reasoning=thought)
    return messages


def split_thought(text: str) -> tuple[str, str, str]:
    """Reasoning in tags at the beginning of a text, the tagged parts as they stand, and the rest.

    A closing tag that stands without an opening one ends reasoning, too. The reasoning may be
    empty; the tagged parts are empty where there is none.

    Raises DataError where the reasoning does not end: the text holds no answer then.
    """
    if "<" not in text:
        return "", "", text
    thoughts, end = _tagged(text, 0)
    if not thoughts:
        match = CLOSED.match(text)
        if match is None or f"<{match[2]}>" in match[1]:
            return "", "", text
        thoughts, end = _tagged(text, match.end())
        if f"<{match[2]}>" in text[end:] or f"</{match[2]}>" in text[end:]:
            return "", "", text
        thoughts.insert(0, match[1].strip())
    return "\n".join(filter(None, thoughts)), text[:end], text[end:]


def _tagged(text: str, start: int) -> tuple[list[str], int]:
    """The reasoning of each of the tagged parts that follow each other, and where they end.

    Raises DataError for one that does not end.
    """
    thoughts = []
    while match := THOUGHT.match(text, start):
        thoughts.append(match[2].strip())
        start = match.end()
    opened = OPENED.match(text, start)
    if opened is not None and f"</{opened[1]}>" not in text[start:]:
        raise DataError(
            f"the answer opens <{opened[1]}> and never closes it; expected an answer behind the"
            " reasoning; delete the row: it was cut off"
        )
    return thoughts, start


def with_weight_of(row: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
    """The messages of a row, each answer with the weight of the row beside its own."""
    weights, is_empty = weights_of(row, ROW_WEIGHT_KEYS), has_empty(row, ROW_WEIGHT_KEYS)
    if not weights and not is_empty:
        return list(messages)
    marked = []
    for message in messages:
        is_trained = message.is_trained and is_learnt(weights)
        is_more = message.is_weighted or is_weighted(weights)
        marked.append(
            message._replace(
                is_trained=is_trained,
                is_weighted=is_more,
                is_unweighted=message.is_unweighted or is_empty,
            )
        )
    return marked


def system_of(row: dict[str, Any], keys: Sequence[str]) -> str | None:
    """The system turn at one of some keys; None where all are absent or null.

    Raises DataError for two that differ.
    """
    texts = []
    for key in keys:
        text = _system_text(row.get(key), key)
        if text is not None and text not in texts:
            texts.append(text)
    texts = [text for text in texts if text] or texts
    if len(texts) > 1:
        raise DataError(
            f"two system turns that differ ({', '.join(keys)}); expected one; delete the other"
        )
    return texts[0] if texts else None


def _system_text(value: Any, key: str) -> str | None:
    """The text of a system turn: a text, parts of it, or an object with such; None of null.

    A `context` of this package is a text.
    """
    if isinstance(value, dict) and key != CONTEXT_AT[0]:
        inner = first_key(value, (*TEXT_KEYS, PARTS, "text"))
        return _system_text(value.get(inner), inner)
    if value is None or (isinstance(value, list) and key != CONTEXT_AT[0]):
        return parts_of(value, key)[0]
    return text_of({key: value}, key)


def _message(item: dict[str, Any], place: Place, not_used: set[str]) -> Message:
    """The message of an object; keys of its parts that are not read are added to `not_used`."""
    role_key = first_key(item, ROLE_KEYS)
    name = text_of(item, role_key)
    role = ROLES.get(name.strip().lower())
    if role is None:
        raise DataError(
            f"the role {quoted(name)} is unknown; expected one of {', '.join(ROLES)}; rename it or"
            " delete the row"
        )
    text_key = first_key(item, TEXT_KEYS)
    if text_key not in item and PARTS in item:
        text_key = PARTS
    is_call = name.strip().lower() in CALL_ROLES
    calling = [key for key in CALL_KEYS if _calls_tools(item.get(key), key)]
    has_calls = is_call or bool(calling) or calls_in(item.get(text_key))
    if text_key not in item and not has_calls:
        text_of(item, text_key)
    content = None if is_call else item.get(text_key)
    if results := results_in(content):
        role, content = "tool", "\n".join(parts_of(one, "content")[0] or "" for one in results)
    text, thought = parts_of(content, text_key, not_used, f"{place[0]}[].{text_key}")
    is_analysis = role == "assistant" and item.get(CHANNEL) == ANALYSIS
    if is_analysis:
        text, thought = None, text or ""
    if text is None and role != "assistant":
        raise DataError(
            f"the {text_key} of a {role} turn is null; expected a text; add it or delete the row"
        )
    weights = weights_of(item, WEIGHT_KEYS) if role == "assistant" else []
    if role != "assistant":
        marked = [key for key in WEIGHT_KEYS if says_more_than_no(item.get(key))]
        not_used.update(f"{place[0]}[].{key} of {role} turns" for key in marked)
    return Message(
        role=role,
        text=text,
        reasoning=reasoning_in(item, not_used, f"{place[0]}[].") or thought,
        is_trained=is_learnt(weights),
        is_weighted=is_weighted(weights),
        is_unweighted=role == "assistant" and has_empty(item, WEIGHT_KEYS),
        has_calls=has_calls,
        at=(*place, text_key),
        is_renamed=name.strip().lower() in OTHER_ROLES,
        is_analysis=is_analysis,
    )


def _calls_tools(value: Any, key: str) -> bool:
    """Whether a value holds calls of tools: an object or a list of them, also as JSON text.

    Raises DataError for a value that is something else, such as a text that is no JSON.
    """
    calls = _parsed(value)
    if not calls:
        return False
    for call in calls if isinstance(calls, list) else [calls]:
        if not isinstance(_parsed(call), dict):
            raise DataError(
                f"{key!r} is {quoted(value)}; expected calls of tools, as objects or as JSON text"
                " of them; correct the row or delete it"
            )
    return True


def _parsed(value: Any) -> Any:
    """The value of a JSON text, nothing for a blank one, and any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return from_json(value, allow_nan=True) if value.strip() else None
    except NotPlainError:
        return value
