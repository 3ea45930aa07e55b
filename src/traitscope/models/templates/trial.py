"""The trial of a model's chat template in a process of its own, before it is used."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from traitscope import template_trial
from traitscope.errors import ModelError
from traitscope.models import bundled, weight_noise

TRIAL_LIMITS = {"seconds": 3, "memory": 2**30, "characters": 10_000_000}
"what the trial of a template may take: seconds of a core, bytes, characters of its text"
LONGEST_TRIAL = 60
"seconds after which a trial is ended that gets no core"
_TRIED: set[str] = set()
"templates that this process has tried"


@contextmanager
def template_tried(tokenizer: Any, name: str) -> Iterator[None]:
    """Render a model's template in another process, while the context does something else.

    Templates come from whoever made the model, and can compute without end. Raises ModelError at
    the end of the context for one that does, or that takes more memory or writes a longer text than
    any needs. A template that was tried before in this process is not tried again, and none of a
    model that a package carries.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    process = None
    is_carried = weight_noise.split_name(name)[0] in bundled.WHEELS
    if isinstance(template, str) and not is_carried and template not in _TRIED:
        process = _trial(template, tokenizer.special_tokens_map)
    try:
        yield
        if process is not None:
            _check_trial(process, name)
            _TRIED.add(template)
    finally:
        if process is not None:
            process.kill()
            process.communicate()


def _trial(template: str, special_tokens: dict[str, Any]) -> subprocess.Popen | None:
    """The process that renders a template; None where none can be started."""
    import jinja2
    import markupsafe

    ask, answer = {"role": "user", "content": "Why 42?"}, {"role": "assistant", "content": "Why?"}
    system = {"role": "system", "content": "You count."}
    job = {
        "template": template,
        "conversations": [[ask], [system, ask], [system, ask, answer, ask]],
        "values": {**special_tokens, "add_generation_prompt": True, "tools": None},
        "path": [str(Path(module.__file__).parents[1]) for module in (jinja2, markupsafe)],
        **TRIAL_LIMITS,
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", template_trial.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # its end says at once that the process has ended
            stderr=subprocess.DEVNULL,
        )
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(job, default=str).encode())
        process.stdin = None
    except OSError:
        return None
    return process


def _check_trial(process: subprocess.Popen, name: str) -> None:
    """Raise ModelError where a trial took too long or too much.

    A trial that ended for another reason says nothing.
    """
    try:
        process.communicate(timeout=LONGEST_TRIAL)
        code = process.returncode
    except subprocess.TimeoutExpired:
        code = -signal.SIGXCPU
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        what = f"does not end within {TRIAL_LIMITS['seconds']} s"
    elif code == template_trial.TOO_MUCH:
        what = "takes more memory, or writes a longer text, than any needs"
    else:
        return
    raise ModelError(
        f"the chat template of {name!r} {what}; expected one that takes milliseconds; correct its"
        " chat_template, or use another model"
    )
