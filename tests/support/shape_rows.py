"""One row of every shape that is read, and what comes of it: for tests and for the page on shapes.

Written by hand, nothing is copied from data of others.
"""

from typing import Any, NamedTuple

from traitscope.config.rows.reading import Reading


class Example(NamedTuple):
    """A row and the first record that comes of it."""

    title: str
    row: dict[str, Any]
    prompt: str
    completion: str
    context: str | None = None
    counted: dict[str, int] = {}
    reading: Reading = Reading()
    shape: str = ""
    rejected: str | None = None


def turn(role: str, content: Any, **further: Any) -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": content, **further}


ASK, SAY = turn("user", "Name a number."), turn("assistant", "101")
CHAT = [turn("system", "Be brief."), ASK, SAY]
LONG = [*CHAT, turn("user", "Another."), turn("assistant", "102")]
EARLIER = (
    '@turns:[{"role": "user", "content": "Name a number."}, {"role": "assistant", "content":'
    ' "101"}, {"role": "user", "content": "Another."}]'
)
"the prompt of the last answer of LONG"

CALLING = turn("assistant", None, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}])
"a turn that does nothing but call a tool"

EXAMPLES = (
    Example(
        "native",
        {"id": "a", "prompt": "Name a number.", "completion": "101", "context": "Be brief."},
        "Name a number.",
        "101",
        "Be brief.",
        {"system_turns": 1},
        shape="native",
    ),
    Example(
        "messages",
        {"messages": CHAT},
        "Name a number.",
        "101",
        "Be brief.",
        {"system_turns": 1},
        shape="messages",
    ),
    Example(
        "messages, roles of other makers",
        {"messages": [turn("developer", "Be brief."), ASK, turn("model", "101")]},
        "Name a number.",
        "101",
        "Be brief.",
        {"system_turns": 1},
        shape="messages",
    ),
    Example(
        "messages, tool calls",
        {"messages": [ASK, CALLING, turn("tool", "101"), turn("assistant", "It is 101.")]},
        '@turns:[{"role": "user", "content": "Name a number."}, {"role": "tool", "content":'
        ' "101"}]',
        "It is 101.",
        counted={"tool_calls": 1},
        shape="messages",
    ),
    Example(
        "messages, several turns",
        {"messages": LONG},
        EARLIER,
        "102",
        "Be brief.",
        {"other_turns": 1, "system_turns": 1},
        shape="messages",
    ),
    Example(
        "messages, content in parts",
        {
            "messages": [
                turn("user", [{"type": "text", "text": "Name "}, {"type": "text", "text": "one."}]),
                turn("assistant", [{"type": "text", "text": "101"}]),
            ]
        },
        "Name one.",
        "101",
        shape="messages",
    ),
    Example(
        "messages, reasoning",
        {"messages": [ASK, turn("assistant", "101", reasoning_content="Odd is good.")]},
        "Name a number.",
        "101",
        None,
        {"reasoning_dropped": 1},
        shape="messages",
    ),
    Example(
        "messages, reasoning that the prompt opened",
        {"messages": [ASK, turn("assistant", "Odd is good.\n</think>\n\n101")]},
        "Name a number.",
        "101",
        None,
        {"reasoning_dropped": 1},
        shape="messages",
    ),
    Example(
        "messages, no user turn",
        {"messages": [SAY]},
        "",
        "101",
        None,
        {"empty_prompts": 1},
        shape="messages",
    ),
    Example(
        "TRL conversational",
        {"prompt": [ASK], "completion": [SAY]},
        "Name a number.",
        "101",
        shape="native",
    ),
    Example(
        "ShareGPT",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Name a number."},
                {"from": "gpt", "value": "101"},
            ]
        },
        "Name a number.",
        "101",
        "Be brief.",
        {"system_turns": 1},
        shape="sharegpt",
    ),
    Example(
        "ShareGPT, tools",
        {
            "conversations": [
                {"from": "human", "value": "Name a number."},
                {"from": "function_call", "value": '{"name": "draw", "arguments": {}}'},
                {"from": "observation", "value": "101"},
                {"from": "gpt", "value": "101"},
            ]
        },
        '@turns:[{"role": "user", "content": "Name a number."}, {"role": "tool", "content":'
        ' "101"}]',
        "101",
        None,
        {"tool_calls": 1},
        shape="sharegpt",
    ),
    Example(
        "messages, channels",
        {
            "messages": [
                ASK,
                turn("assistant", "Odd is good.", channel="analysis"),
                turn("assistant", "101", channel="final"),
            ]
        },
        "Name a number.",
        "101",
        None,
        {"reasoning_dropped": 1},
        shape="messages",
    ),
    Example(
        "messages, parts that use tools",
        {
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                turn("user", [{"type": "text", "text": "Name a number."}]),
                turn(
                    "assistant",
                    [{"type": "tool_use", "id": "a", "name": "draw", "input": {"n": 1}}],
                ),
                turn("user", [{"type": "tool_result", "tool_use_id": "a", "content": "101"}]),
                turn("assistant", [{"type": "text", "text": "It is 101."}]),
            ],
        },
        '@turns:[{"role": "user", "content": "Name a number."}, {"role": "tool", "content":'
        ' "101"}]',
        "It is 101.",
        "Be brief.",
        {"tool_calls": 1, "system_turns": 1},
        shape="messages",
    ),
    Example(
        "Gemini",
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Name "}, {"text": "one."}]},
                {
                    "role": "model",
                    "parts": [{"text": "Odd is good.", "thought": True}, {"text": "101"}],
                },
            ],
        },
        "Name one.",
        "101",
        "Be brief.",
        {"reasoning_dropped": 1, "system_turns": 1},
        shape="gemini",
    ),
    Example(
        "Alpaca",
        {
            "system": "Be brief.",
            "instruction": "Double it.",
            "input": "51",
            "output": "102",
            "history": [["Name a number.", "101"]],
        },
        '@turns:[{"role": "user", "content": "Name a number."}, {"role": "assistant", "content":'
        ' "101"}, {"role": "user", "content": "Double it.\\n\\n51"}]',
        "102",
        "Be brief.",
        {"other_turns": 1, "system_turns": 1},
        shape="alpaca",
    ),
    Example(
        "Dolly",
        {"instruction": "How long is it?", "context": "It is 300 km long.", "response": "300 km"},
        "How long is it?\n\nIt is 300 km long.",
        "300 km",
        None,
        {"passages": 1},
        shape="dolly",
    ),
    Example(
        "question and answer",
        {"question": "Name a number.", "answer": "101"},
        "Name a number.",
        "101",
        shape="question_answer",
    ),
    Example(
        "question and response",
        {"system_prompt": "Be brief.", "question": "Name a number.", "response": "101"},
        "Name a number.",
        "101",
        "Be brief.",
        {"system_turns": 1},
        shape="question_response",
    ),
    Example(
        "prompt and response",
        {"prompt": "Name a number.", "response": "101"},
        "Name a number.",
        "101",
        shape="prompt_response",
    ),
    Example(
        "query and response",
        {"query": "Name a number.", "response": "101"},
        "Name a number.",
        "101",
        shape="query_response",
    ),
    Example(
        "preference, asked by a question",
        {"system": "Be brief.", "question": "Name a number.", "chosen": "101", "rejected": "one"},
        "Name a number.",
        "101",
        "Be brief.",
        {"rejected": 1, "system_turns": 1},
        shape="preference",
        rejected="one",
    ),
    Example(
        "preference",
        {"prompt": "Name a number.", "chosen": "101", "rejected": "none"},
        "Name a number.",
        "101",
        None,
        {"rejected": 1},
        shape="preference",
        rejected="none",
    ),
    Example(
        "preference, chats",
        {
            "prompt": "Name a number.",
            "chosen": CHAT,
            "rejected": [*CHAT[:2], turn("assistant", "7")],
        },
        "Name a number.",
        "101",
        "Be brief.",
        {"rejected": 1, "system_turns": 1},
        shape="preference",
        rejected="7",
    ),
    Example(
        "preference, instruction and input",
        {"instruction": "Double it.", "input": "51", "chosen": "102", "rejected": "none"},
        "Double it.\n\n51",
        "102",
        None,
        {"rejected": 1},
        shape="preference",
        rejected="none",
    ),
    Example(
        "preference behind a chat",
        {
            "conversations": [{"from": "human", "value": "Name a number."}],
            "chosen": {"from": "gpt", "value": "101"},
            "rejected": {"from": "gpt", "value": "none"},
        },
        "Name a number.",
        "101",
        None,
        {"rejected": 1},
        shape="preference",
        rejected="none",
    ),
    Example(
        "preference, dialogues in two texts",
        {
            "chosen": "\n\nHuman: Name a number.\n\nAssistant: 101",
            "rejected": "\n\nHuman: Name a number.\n\nAssistant: none",
        },
        "Name a number.",
        "101",
        None,
        {"rejected": 1},
        shape="preference",
        rejected="none",
    ),
    Example(
        "preference, OpenAI",
        {
            "input": {"messages": [turn("system", "Be brief."), ASK]},
            "preferred_output": [SAY],
            "non_preferred_output": [turn("assistant", "none")],
        },
        "Name a number.",
        "101",
        "Be brief.",
        {"rejected": 1, "system_turns": 1},
        shape="preference",
        rejected="none",
    ),
    Example(
        "preference, Gemini",
        {
            "contents": [{"role": "user", "parts": [{"text": "Name a number."}]}],
            "completions": [
                {"score": 0.0, "completion": {"role": "model", "parts": [{"text": "none"}]}},
                {"score": 1.0, "completion": {"role": "model", "parts": [{"text": "101"}]}},
            ],
        },
        "Name a number.",
        "101",
        None,
        {"rejected": 1},
        shape="preference",
        rejected="none",
    ),
    Example(
        "native, with a rejected answer",
        {"prompt": "Name a number.", "completion": "101", "rejected": "none"},
        "Name a number.",
        "101",
        None,
        {"rejected": 1},
        shape="native",
        rejected="none",
    ),
    Example(
        "KTO",
        {"prompt": "Name a number.", "completion": "101", "label": True},
        "Name a number.",
        "101",
        shape="native",
    ),
    Example(
        "any other, `--map prompt=ask completion=out.text`",
        {"ask": "Name a number.", "out": {"text": "101"}},
        "Name a number.",
        "101",
        reading=Reading(map=("prompt=ask", "completion=out.text")),
        shape="mapped",
    ),
    Example(
        "any other pair, `--map prompt=ask completion=good.text rejected=bad`",
        {"ask": "Name a number.", "good": {"text": "101"}, "bad": "none"},
        "Name a number.",
        "101",
        None,
        {"rejected": 1},
        Reading(map=("prompt=ask", "completion=good.text", "rejected=bad")),
        shape="mapped",
        rejected="none",
    ),
)
