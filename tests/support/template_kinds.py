"""Chat templates of all kinds, by what they do: for tests and for the page on models.

Written by hand after the habits of families; nothing is copied from a model.
"""

from typing import NamedTuple

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SKIPS_SYSTEM = TURNS.replace("messages %}", "messages if m['role'] != 'system' %}")
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    + TURNS
)
ALTERNATES = (
    "{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}"
    "{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + TURNS
)
"as Mistral and Gemma have it"
CUTS_SYSTEM = TURNS.replace(
    "m['content']", "(m['content'].split('\n')[0] if m['role'] == 'system' else m['content'])"
)
LOWERS_USER = TURNS.replace("m['content']", "(m['content'] | lower)")
CUTS_ANSWERS = CUTS_SYSTEM.replace("== 'system'", "== 'assistant'")
DATED = "{{ 'Today is ' + strftime_now('%d %B %Y') + '.\n' }}" + TURNS
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
OPENS_THINKING = TURNS.replace("m['content']", "m['content'].split('</think>')[-1]").replace(
    "assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"
)
THINKING = THINKS.replace("enable_thinking", "thinking")
STRIPS = TURNS.replace("m['content']", "m['content'].split('</think>')[-1]")
"leaves reasoning out of every turn, and its header opens no part for thinking"
KEEPS_OPEN = TURNS.replace("\n{{ m", "\n{% if m['role'] == 'assistant' %}<think>\n{% endif %}{{ m")
KEEPS_OPEN = KEEPS_OPEN.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"opens a part in its header and in every turn of the assistant; answers have to close it"
LAST_TURN_THINKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% set parts = m['content'].split('</think>') %}"
    "{% set thought = m['reasoning_content'] or parts[0].split('<think>')[-1]"
    " if m['reasoning_content'] or parts | length > 1 else '' %}"
    "{% if m['role'] == 'assistant' and loop.last %}"
    "<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ parts[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
HYBRID = (
    LAST_TURN_THINKS + "{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"thinks unless it is switched off, and leaves reasoning of earlier turns out"
ALWAYS = LAST_TURN_THINKS + "<think>\n{% endif %}"
"opens a part for thinking in every header, and leaves reasoning of earlier turns out"
CHANNELS = TURNS.replace("\n{{ m", "\n{% if m['role'] == 'assistant' %}|final:{% endif %}{{ m")
"has a channel for answers that its header does not name"
OTHER_END = TURNS.replace("<|im_end|>", "<|pad|>")
NO_END = TURNS.replace("<|im_end|>", "")
TRIMS = TURNS.replace("m['content']", "m['content'] | trim")
SPACE_BEFORE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}[{{ m['role'] }}] {{ m['content'] }} [/{{ m['role'] }}]{% endif %}{% endfor %}"
)
"as Llama 2 and Mistral have it: the space joins the first word of an answer"
LAST_SYSTEM = (
    "{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}"
    "{% for m in turns %}{% if m['role'] == 'assistant' %}{{ m['content'] + eos_token }}{% else %}"
    "[INST]{% if loop.last and messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] + '\n\n' }}{% endif %}{{ m['content'] }}[/INST]"
    "{% endif %}{% endfor %}"
)
"has system turns in the last user turn, as long as no answer stands behind it"
OWN_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    + TURNS
)
BROKEN = "{% for m in messages %}{{ m['content'] | no_such_filter }}{% endfor %}"


class Kind(NamedTuple):
    """A template and how it is used."""

    title: str
    template: str | None
    switches: tuple[str, ...] = ()


KINDS = (
    Kind("marks turns with special tokens", TURNS),
    Kind("has a system turn of its own", OWN_SYSTEM),
    Kind("drops system turns", SKIPS_SYSTEM),
    Kind("refuses system turns", REFUSES_SYSTEM),
    Kind("cuts or changes the text of system turns", CUTS_SYSTEM),
    Kind("cuts or changes the text of user turns", LOWERS_USER),
    Kind("cuts or changes the text of answers", CUTS_ANSWERS),
    Kind("ends a turn with a token of its own", OTHER_END),
    Kind("ends a turn with a line break alone", NO_END),
    Kind("writes a space before answers", SPACE_BEFORE),
    Kind("drops system turns once there is an answer", LAST_SYSTEM),
    Kind("writes today's date", DATED),
    Kind("takes white space off contents", TRIMS),
    Kind("fills a part for thinking", THINKS),
    Kind("the same, switched off", THINKS, ("enable_thinking=false",)),
    Kind("fills it unless another variable says no", THINKING),
    Kind("thinks in its last turn alone", HYBRID),
    Kind("the same, switched off", HYBRID, ("enable_thinking=false",)),
    Kind("opens a part for thinking, always, and leaves it out of finished turns", OPENS_THINKING),
    Kind("the same, skipped", OPENS_THINKING, ("skip_thinking=true",)),
    Kind("opens a part for thinking, always, and closes it in finished turns", ALWAYS),
    Kind("the same, skipped", ALWAYS, ("skip_thinking=true",)),
    Kind("opens a part for thinking, and never closes it", KEEPS_OPEN),
    Kind("leaves reasoning out of every turn", STRIPS),
    Kind("names a channel for answers in finished turns alone", CHANNELS),
    Kind("the same, skipped", CHANNELS, ("skip_thinking=true",)),
    Kind("cannot be rendered", BROKEN),
    Kind("is missing", None),
)
