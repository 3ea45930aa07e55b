"""Asking a model behind an OpenAI-compatible address: one request a text, retried, cached by
content, its cost counted.

A text has a request of its own, so nothing that it says reaches another one, and no reply can end
the run: one that is not understood is handed on as it is. A request that fails for good ends the
run with what was answered in the cache.
"""

import hashlib
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from traitscope import atomic_files
from traitscope.config.judge import Endpoint
from traitscope.errors import DataError
from traitscope.models.bundled import cache_folder

AGAIN = (408, 409, 425, 429)
"status codes below 500 that are worth another try"
LONGEST = 60.0
"seconds between two tries, at most"
TOKENS = 8
"longest reply"


@dataclass(frozen=True)
class Reply:
    """What the model said to one text."""

    text: str
    read: int
    "tokens"
    written: int
    "tokens"
    cached: bool = False


def ask(
    endpoint: Endpoint, texts: Sequence[str], done: Callable[[int], None] | None = None
) -> list[Reply]:
    """The replies to the texts, in their order. Raises DataError where the endpoint cannot be
    reached or answers garbage."""
    failed = threading.Event()

    def one(text: str) -> Reply | None:
        if failed.is_set():
            return None
        try:
            reply = _reply(endpoint, text)
        except BaseException:
            failed.set()
            raise
        if done:
            done(1)
        return reply

    try:
        with ThreadPoolExecutor(endpoint.parallel) as pool:
            futures = [pool.submit(one, text) for text in texts]
    except BaseException:  # interrupted while waiting
        failed.set()
        raise
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def cost(endpoint: Endpoint, replies: Sequence[Reply]) -> dict[str, float]:
    """Requests made and saved, tokens, and what they cost at the endpoint's prices."""
    fresh = [reply for reply in replies if not reply.cached]
    read, written = sum(r.read for r in fresh), sum(r.written for r in fresh)
    price = (read * endpoint.price_in + written * endpoint.price_out) / 1e6
    return {
        "requests": len(fresh),
        "from_cache": len(replies) - len(fresh),
        "tokens_read": read,
        "tokens_written": written,
        "cost": round(price, 6),
    }


def _reply(endpoint: Endpoint, text: str) -> Reply:
    """From the cache, or from the endpoint into the cache."""
    body = {
        "model": endpoint.served,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": TOKENS,
    }
    key = hashlib.sha256(json.dumps([endpoint.url, body], sort_keys=True).encode()).hexdigest()
    file = cache_folder() / "judged" / key[:2] / f"{key}.json"
    if (found := _cached(file)) is not None:
        return found
    reply = _requested(endpoint, json.dumps(body).encode())
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(
        file, {"text": reply.text, "read": reply.read, "written": reply.written}
    )
    return reply


def _cached(file: Path) -> Reply | None:
    try:
        return Reply(**json.loads(file.read_text(encoding="utf-8")), cached=True)
    except (OSError, ValueError, TypeError):
        return None


def _requested(endpoint: Endpoint, body: bytes) -> Reply:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(endpoint.key):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(f"{endpoint.url.rstrip('/')}/chat/completions", body, headers)
    problem, asked_to_wait = "", None
    for n in range(endpoint.retries + 1):
        if n:
            time.sleep(min(LONGEST, asked_to_wait or endpoint.pause * 2 ** (n - 1)))
        try:
            with urllib.request.urlopen(request, timeout=endpoint.timeout) as answer:
                return _read(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                problem, asked_to_wait = (
                    f"status {error.code}: {error.read()[:200].decode(errors='replace')}",
                    _seconds(error.headers),
                )
            if error.code < 500 and error.code not in AGAIN:
                raise DataError(
                    f"{endpoint.url} refused a request, {problem}; check --url, --served and the"
                    f" key in {endpoint.key}"
                ) from None
        except (OSError, http.client.HTTPException, _Garbage) as error:
            problem, asked_to_wait = str(error) or type(error).__name__, None
    tries = f"{endpoint.retries + 1} tries"
    raise DataError(
        f"{endpoint.url} gave no answer in {tries} ({problem}); what was answered is kept: check"
        " the address and run the same command again"
    )


class _Garbage(Exception):
    """An answer that is no chat completion."""


def _read(data: bytes) -> Reply:
    """The reply in an endpoint's answer.  Raises _Garbage."""
    try:
        found = json.loads(data)
        text, usage = found["choices"][0]["message"]["content"], found.get("usage") or {}
        return Reply(
            text if isinstance(text, str) else "",
            int(usage.get("prompt_tokens", 0)),
            int(usage.get("completion_tokens", 0)),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _Garbage(f"not a chat completion: {data[:80]!r}") from None


def _seconds(headers: http.client.HTTPMessage) -> float | None:
    """How long the endpoint asks to wait, where it says so in seconds."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
