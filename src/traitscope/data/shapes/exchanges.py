"""From the messages of a row to what is trained on: a prompt, its context, and the answer."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from traitscope.data.json_fields import context_of, text_of
from traitscope.data.shapes.inside.tags import split_thought
from traitscope.data.shapes.intake import Reading
from traitscope.data.shapes.messages import CONTEXT_AT, Message, Place
from traitscope.data.shapes.rows import ANY_SHAPE
from traitscope.data.shapes.turns import MARK, Turn, check_form, prompt_of
from traitscope.errors import DataError

BESIDE = ANY_SHAPE - {"id", "meta"}
"keys beside prompt and answer that change what they say"


class Exchange(NamedTuple):
    """A prompt with its answer."""

    prompt: str
    """User turn, or several turns as turns.py writes them."""
    completion: str
    """What is trained on."""
    context: str | None
    """System turn."""
    reasoning: str
    """Reasoning of the answer and of earlier turns; empty where there is none."""
    answer_at: Place
    """Where the answer's text stands in the row."""


def exchanges_of(
    messages: Sequence[Message],
    reading: Reading,
    notes: Counter[str],
    split: bool = True,
    forms: bool = False,
) -> list[Exchange]:
    """The exchanges of a row; none where no turn may be trained on.

    split: Take reasoning in tags out of answers.
    forms: The context of the row may be a form of contexts, such as @none.

    Raises DataError for a row without an answer, and for a context of an unknown form.
    """
    context, turns, of_system = _context_and_turns(messages, forms)
    answers = _answers(turns, context)
    chosen = _chosen(turns, answers, reading, notes, split)
    if not chosen:
        notes["rows_of_weight_0"] += 1
        return []
    notes["other_turns"] += _number_of_others(turns, answers, chosen, split)
    notes["weights"] += sum(turns[number].is_weighted for number in chosen)
    notes["unweighted"] += sum(turns[number].is_unweighted for number in chosen)
    notes["turns_behind"] += len(turns) - 1 - chosen[-1]
    notes["other_roles"] += sum(turn.is_renamed for turn in turns)
    notes["tool_calls"] += sum(turn.has_calls for turn in turns)
    notes["system_turns"] += bool(context)
    is_on_purpose = forms and messages[0].at == CONTEXT_AT
    notes["empty_system_turns"] += context == "" and not is_on_purpose
    exchanges = []
    for number in chosen:
        earlier, thoughts = _earlier(turns[:number], split)
        thoughts = [*of_system, *thoughts]
        if number == chosen[-1]:
            notes["reasoning_earlier"] += len(thoughts)
        completion, thought = _answer(turns[number], reading, notes, split)
        prompt = prompt_of(earlier)
        notes["empty_prompts"] += not prompt
        reasoning = "\n\n".join(filter(None, [*thoughts, thought]))
        exchanges.append(Exchange(prompt, completion, context, reasoning, turns[number].at))
    return exchanges


def is_one_exchange(fields: dict[str, Any], split: bool) -> bool:
    """Whether a native row is what this package writes of one question and its answer."""
    prompt, completion = fields["prompt"], fields["completion"]
    if BESIDE & fields.keys() or not (isinstance(prompt, str) and isinstance(completion, str)):
        return False
    return not prompt.startswith(MARK) and not (split and "<" in completion)


def one_exchange(fields: dict[str, Any], notes: Counter[str]) -> Exchange:
    """The same as `exchanges_of` for a native row of two texts, in a third of the time."""
    prompt, context = text_of(fields, "prompt"), context_of(fields)
    check_form(context)
    if context:
        notes["system_turns"] += 1
    if not prompt:
        notes["empty_prompts"] += 1
    return Exchange(prompt, text_of(fields, "completion"), context, "", ("completion",))


def prompt_in(
    messages: Sequence[Message], notes: Counter[str], split: bool
) -> tuple[str, str | None]:
    """The prompt and the system turn of messages without an answer.

    split: Take reasoning in tags out of earlier answers.
    """
    context, turns, of_system = _context_and_turns(messages, True)
    earlier, thoughts = _earlier(turns, split)
    notes["reasoning_earlier"] += len([*of_system, *thoughts])
    notes["tool_calls"] += sum(turn.has_calls for turn in turns)
    return prompt_of(earlier), context


def _context_and_turns(
    messages: Sequence[Message], is_form_allowed: bool
) -> tuple[str | None, Sequence[Message], list[str]]:
    """The system turn that comes first, if one does, all other turns, and its reasoning.

    A text that begins as a form of contexts (models/chat.py) stays a turn, unless it is the
    `context` of a row of this package. Raises DataError for one there of an unknown form.
    """
    if not messages or messages[0].role != "system":
        return None, messages, []
    first = messages[0]
    if str(first.text).startswith("@"):
        if not is_form_allowed or first.at != CONTEXT_AT:
            return None, messages, []
        check_form(first.text)
    return first.text, messages[1:], [first.reasoning] if first.reasoning else []


def _without_answer(turns: Sequence[Message], context: str | None) -> str:
    """What there is in a row without an assistant turn."""
    if turns:
        return f"the last message is a {turns[-1].role} turn"
    return "there is no message" if context is None else "the only message is a system turn"


def _answers(turns: Sequence[Message], context: str | None) -> list[int]:
    """The numbers of the assistant turns. Raises DataError where there is none."""
    answers = []
    for number, turn in enumerate(turns):
        if turn.role == "assistant":
            answers.append(number)
    if not answers:
        raise DataError(
            f"no completion: {_without_answer(turns, context)}; expected an assistant turn, which"
            " is the answer to learn from; add it, or delete the row"
        )
    return answers


def _chosen(
    turns: Sequence[Message],
    answers: Sequence[int],
    reading: Reading,
    notes: Counter[str],
    split: bool,
) -> list[int]:
    """The numbers of the turns that are trained on."""
    weighted = [number for number in answers if turns[number].is_trained]
    without = len(answers) - len(weighted)
    if reading.turns == "every":
        notes["weight_0_trained"] += without
        return _with_text(turns, answers, split)
    notes["weight_0"] += without
    if reading.turns == "last":
        if weighted:
            _check_text(turns[weighted[-1]])
        return weighted[-1:]
    return _with_text(turns, weighted, split) if weighted else []


def _with_text(turns: Sequence[Message], numbers: Sequence[int], split: bool) -> list[int]:
    """The turns that do more than call tools. Raises DataError where one of them has no text."""
    chosen = []
    for number in numbers:
        if not _only_calls(turns[number], split):
            chosen.append(number)
    for number in chosen or numbers[-1:]:
        _check_text(turns[number])
    return chosen


def _only_calls(turn: Message, split: bool) -> bool:
    """Whether a turn calls tools and says nothing, but for reasoning."""
    return turn.has_calls and not _untagged(turn, split)[2].strip()


def _untagged(turn: Message, split: bool) -> tuple[str, str, str]:
    """Reasoning in the tags of an answer, the tagged parts as they stand, and the rest."""
    text = turn.text or ""
    return split_thought(text) if split and turn.role == "assistant" else ("", "", text)


def _check_text(turn: Message) -> None:
    """Raise DataError for an answer without a text."""
    if turn.text is None:
        calls = ", it only calls tools" if turn.has_calls else ""
        raise DataError(
            f"no completion: the content of the answer is null{calls}; expected a text; delete the"
            " row"
        )


def _number_of_others(
    turns: Sequence[Message], answers: Sequence[int], chosen: Sequence[int], split: bool
) -> int:
    """Assistant turns with a text and a weight that are not chosen."""
    others = 0
    for number in set(answers) - set(chosen):
        turn = turns[number]
        others += turn.is_trained and turn.text is not None and not _only_calls(turn, split)
    return others


def _earlier(turns: Sequence[Message], split: bool) -> tuple[list[Turn], list[str]]:
    """The turns before an answer as those of a prompt, and the reasoning that is left out.

    Reasoning may be empty, where its tags are.
    """
    earlier, thoughts = [], []
    for turn in turns:
        tagged, as_it_stands, text = _untagged(turn, split)
        thought = "\n".join(filter(None, [_of_key(turn, tagged), tagged]))
        if thought or as_it_stands:
            thoughts.append(thought)
        if turn.text is not None and not (turn.has_calls and not text.strip()):
            earlier.append(Turn(turn.role, text))
    return earlier, thoughts


def _of_key(turn: Message, tagged: str) -> str:
    """The reasoning of a turn that its tags do not hold, too."""
    return "" if turn.reasoning.strip() == tagged else turn.reasoning


def _answer(turn: Message, reading: Reading, notes: Counter[str], split: bool) -> tuple[str, str]:
    """What is trained on of an answer, and its reasoning."""
    tagged, as_it_stands, rest = _untagged(turn, split)
    of_key = _of_key(turn, tagged)
    thought = "\n".join(filter(None, [of_key, tagged]))
    if not (thought or as_it_stands):
        return rest, ""
    if reading.reasoning == "train":
        notes["reasoning_trained"] += 1
        before = f"<think>\n{of_key}\n</think>\n\n" if of_key else ""
        return f"{before}{as_it_stands}{rest}", thought
    notes["reasoning_dropped"] += 1
    if not rest.strip():
        raise DataError(
            "no completion: there is only reasoning; expected an answer behind it; delete the row,"
            " or take --reasoning train"
        )
    return rest, thought
