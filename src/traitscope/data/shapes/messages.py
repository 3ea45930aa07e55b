"""Messages of a chat, read one by one: roles, parts of content, reasoning, weights, tool calls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from traitscope.data.json_fields import quoted, text_of, typed
from traitscope.data.shapes.inside.parts import (
    REASONING_KEYS,
    RESULT,
    calls_in,
    first_key,
    one_thought,
    parts_of,
    results_in,
    thought_of,
    thoughts_in,
)
from traitscope.data.shapes.inside.tags import split_thought
from traitscope.data.shapes.marks import (
    has_empty,
    is_empty,
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
        of_item = _messages(typed(item, dict, "a message"), (key, number), not_used)
        is_known = channel_of(item) in (FINAL, ANALYSIS)
        for name in item.keys() - USED_KEYS - ({CHANNEL} if is_known else set()):
            if item[name] is not None and of_item[0].at[-1] != name:
                not_used.add(f"{key}[].{name}")
        if messages and messages[-1].is_analysis and of_item[0].role == "assistant":
            of_item[0] = with_more_of(of_item[0], messages.pop())
        messages += of_item
    unused.update(not_used)
    return messages


def with_more_of(message: Message, other: Message | None) -> Message:
    """A message with the reasoning and the calls of another one; as it is if there is none."""
    if other is None:
        return message
    thoughts = [other.reasoning]
    if message.reasoning.strip() != other.reasoning.strip():
        thoughts.append(message.reasoning)
    return message._replace(
        reasoning="\n".join(filter(None, thoughts)),
        has_calls=message.has_calls or other.has_calls,
    )


def channel_of(item: Mapping[str, Any]) -> Any:
    """The channel of a turn of Harmony, in small letters; None where it has none."""
    channel = item.get(CHANNEL)
    return channel.strip().lower() if isinstance(channel, str) else channel


def message_in(value: Any, key: str, unused: Counter[str]) -> list[Message]:
    """The message at a key, which may be several turns; keys that are not used are counted.

    Raises DataError for what is no message.
    """
    messages = []
    for message in messages_in([value], key, unused):
        messages.append(message._replace(at=(key, *message.at[2:])))
    return messages


def reasoning_in(row: dict[str, Any], not_used: set[str] | None = None, path: str = "") -> str:
    """The reasoning beside an answer; empty where there is none.

    Raises DataError for several that differ, and for one that is no text.
    """
    thoughts = []
    for key in REASONING_KEYS:
        thoughts.append(thought_of(row.get(key), key, not_used, f"{path}{key}"))
    return one_thought(thoughts)


def with_reasoning_of(
    row: dict[str, Any], messages: list[Message], unused: Counter[str]
) -> list[Message]:
    """The messages of a chat, with reasoning that stands beside them at the last answer.

    Raises DataError where that answer has other reasoning.
    """
    not_used = set[str]()
    thought = reasoning_in(row, not_used)
    answers = [place for place, item in enumerate(messages) if item.role == "assistant"]
    if thought and not answers:
        not_used.update(key for key in REASONING_KEYS if row.get(key))
    unused.update(not_used)
    if not thought or not answers:
        return messages
    last = messages[answers[-1]]
    if last.reasoning.strip() not in ("", thought.strip()):
        raise DataError(
            "the last answer has reasoning, and other reasoning stands beside the messages;"
            " expected one; delete the other"
        )
    messages[answers[-1]] = last._replace(reasoning=thought)
    return messages


def with_weight_of(row: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
    """The messages of a row, each answer with the weight of the row beside its own."""
    weights, is_blank = weights_of(row, ROW_WEIGHT_KEYS), has_empty(row, ROW_WEIGHT_KEYS)
    if not weights and not is_blank:
        return list(messages)
    marked = []
    for message in messages:
        is_trained = message.is_trained and is_learnt(weights)
        is_more = message.is_weighted or is_weighted(weights)
        marked.append(
            message._replace(
                is_trained=is_trained,
                is_weighted=is_more,
                is_unweighted=message.is_unweighted or is_blank,
            )
        )
    return marked


def system_of(row: dict[str, Any], keys: Sequence[str], unused: Counter[str]) -> Message | None:
    """The system turn at one of some keys; None where all are absent, null, or empty.

    Only `context` may be empty on purpose. Keys that are not used are counted.
    Raises DataError for two that differ.
    """
    texts, thoughts, not_used = [], [], set[str]()
    for key in keys:
        text, thought = _system_parts(row.get(key), key, not_used, key)
        if text is None or (not text and key != CONTEXT_AT[0]):
            not_used.update([key] if thought else [])
            continue
        thoughts.append(thought)
        if text not in texts:
            texts.append(text)
    unused.update(not_used)
    texts = [text for text in texts if text] or texts
    if len(texts) > 1:
        raise DataError(
            f"two system turns that differ ({', '.join(keys)}); expected one; delete the other"
        )
    return Message("system", texts[0], one_thought(thoughts)) if texts else None


def _system_parts(value: Any, key: str, not_used: set[str], path: str) -> tuple[str | None, str]:
    """Text and reasoning of a system turn: a text, parts of it, or an object with such.

    A `context` of this package is a text.
    """
    if isinstance(value, dict) and key != CONTEXT_AT[0]:
        inner = first_key(value, (*TEXT_KEYS, PARTS, "text"))
        for name in value.keys() - {inner, *ROLE_KEYS, *TEXT_KEYS}:
            not_used.update([] if value[name] is None else [f"{path}.{name}"])
        return _system_parts(value.get(inner), inner, not_used, f"{path}.{inner}")
    if value is None or (isinstance(value, list) and key != CONTEXT_AT[0]):
        return parts_of(value, key, not_used, path)
    return text_of({key: value}, key), ""


def _role_of(item: dict[str, Any]) -> tuple[str, str]:
    """The name of the role of a turn, in small letters, and what it stands for."""
    role_key = first_key(item, ROLE_KEYS)
    name = text_of(item, role_key)
    role = ROLES.get(name.strip().lower())
    if role is None:
        raise DataError(
            f"the role {quoted(name)} is unknown; expected one of {', '.join(ROLES)}; rename it or"
            " delete the row"
        )
    return name.strip().lower(), role


def _messages(item: dict[str, Any], place: Place, not_used: set[str]) -> list[Message]:
    """The message of an object, or one for each result of a tool in it.

    Keys of its parts that are not read are added to `not_used`.
    """
    name, role = _role_of(item)
    text_key = first_key(item, TEXT_KEYS)
    if text_key not in item and PARTS in item:
        text_key = PARTS
    is_call = name in CALL_ROLES
    calling = [key for key in CALL_KEYS if _calls_tools(item.get(key), key)]
    has_calls = is_call or bool(calling) or calls_in(item.get(text_key))
    if text_key not in item and not has_calls:
        text_of(item, text_key)
    content, path = item.get(text_key), f"{place[0]}[].{text_key}"
    is_analysis = role == "assistant" and channel_of(item) == ANALYSIS
    if is_analysis:
        said = [(None, thought_of(content, text_key, not_used, path))]
    elif is_call:
        said = [(None, _beside_a_call(content, text_key))]
    elif results := results_in(content):
        role, said = "tool", _said_by_tools(results, not_used, path)
    else:
        said = [parts_of(content, text_key, not_used, path)]
    (text, thought), *further = said
    if text is None and role != "assistant":
        raise DataError(
            f"the {text_key} of a {role} turn is null; expected a text; add it or delete the row"
        )
    weights = _weights(item, "analysis" if is_analysis else role, not_used, place)
    first = Message(
        role=role,
        text=None if has_calls and role == "assistant" and not (text or "").strip() else text,
        reasoning=one_thought((reasoning_in(item, not_used, f"{place[0]}[]."), thought)),
        is_trained=is_learnt(weights),
        is_weighted=is_weighted(weights),
        is_unweighted=role == "assistant" and has_empty(item, WEIGHT_KEYS),
        has_calls=has_calls,
        at=(*place, text_key),
        is_renamed=name in OTHER_ROLES,
        is_analysis=is_analysis,
    )
    messages = [first]
    for text, thought in further:
        messages.append(Message(role, text, thought, at=first.at))
    return messages


def _beside_a_call(content: Any, key: str) -> str:
    """The reasoning of a turn that is a call of a tool: in tags before it, or in parts."""
    if isinstance(content, str):
        return split_thought(content)[0]
    return thought_of(thoughts_in(content), key)


def _said_by_tools(
    results: Sequence[dict[str, Any]], not_used: set[str], path: str
) -> list[tuple[str | None, str]]:
    """Text and reasoning of each result of a tool."""
    said = []
    for part in results:
        for key in part.keys() - {"type", RESULT}:
            not_used.update([] if part[key] is None else [f"{path}[].{key}"])
        text, thought = parts_of(part.get(RESULT), RESULT, not_used, f"{path}[].{RESULT}")
        said.append((text or "", thought))
    return said


def _weights(item: dict[str, Any], role: str, not_used: set[str], place: Place) -> list[float]:
    """The weights of an answer; those of other turns are not used."""
    if role == "assistant":
        return weights_of(item, WEIGHT_KEYS)
    for key in WEIGHT_KEYS:
        value = item.get(key)
        is_said = not is_empty(value) if role == ANALYSIS else says_more_than_no(value)
        not_used.update([f"{place[0]}[].{key} of {role} turns"] if is_said else [])
    return []


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
