"""A chat template rendered in a process of its own, which it may use up.

models/chat.py runs this file as a script that imports nothing of the package. It reads a job as
JSON from stdin: the template, conversations, values, limits, and where jinja2 lies. It ends with 0
where the conversations were rendered or the template raised an error. It ends with TOO_MUCH where
the template took more memory or wrote a longer text than any needs. The kernel ends it where it
takes too long.
"""

import json
import resource
import sys
from typing import Any

TOO_MUCH = 3
"exit code of a template that takes too much"


def main() -> int:
    """Render the conversations of a job; the exit code."""
    job = json.load(sys.stdin)
    _limit(job["seconds"], job["memory"])
    sys.path[:0] = job["path"]
    try:
        template = environment().from_string(job["template"])
        for messages in job["conversations"]:
            text = template.render(messages=messages, **job["values"])
            if len(text) > job["characters"]:
                return TOO_MUCH
    except MemoryError:
        return TOO_MUCH
    except Exception:  # noqa: BLE001 (whoever uses the template hears of it)
        return 0
    return 0


def _limit(seconds: int, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def environment() -> Any:
    """Where templates are parsed and rendered: what transformers offers, as far as that can take
    time."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block around the assistant's turn."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    offered = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    offered.filters["tojson"] = _to_json
    offered.globals["raise_exception"] = _raise
    offered.globals["strftime_now"] = str
    return offered


def _to_json(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **layout)


def _raise(message: str) -> None:
    raise ValueError(message)


if __name__ == "__main__":
    sys.exit(main())
