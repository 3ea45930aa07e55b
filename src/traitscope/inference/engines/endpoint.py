"""Requests to a model behind an OpenAI-compatible address, with retries, a cache and costs.

Every text has a request of its own, so nothing that a text says reaches another one. No reply can
end the run: one that is not understood is handed on as it is. A request that fails for good ends
the run. The replies that were received stay in the cache, by content.
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

RETRIED_STATUS = (408, 409, 425, 429)
"status codes below 500 that are worth another try; all from 500 on are, too"
LONGEST_PAUSE = 60.0
"most seconds between two tries"
REPLY_TOKENS = 8
"most tokens of a reply"


@dataclass(frozen=True)
class Reply:
    """What the model said to one text."""

    text: str
    "the reply as it came; not necessarily yes or no"
    read: int
    "tokens of the request"
    written: int
    "tokens of the reply"
    cached: bool = False
    "whether it is from the cache, and so cost nothing"


def ask(
    endpoint: Endpoint, texts: Sequence[str], done: Callable[[int], None] | None = None
) -> list[Reply]:
    """The replies to the texts, in their order.

    Raises DataError where the endpoint cannot be reached, or answers garbage.
    """
    failed = threading.Event()

    def ask_one(text: str) -> Reply | None:
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
            futures = [pool.submit(ask_one, text) for text in texts]
    except BaseException:  # interrupted while waiting
        failed.set()
        raise
    replies = []
    for future in futures:
        error = future.exception()
        if error is not None:
            raise error
        replies.append(future.result())
    return replies


def cost(endpoint: Endpoint, replies: Sequence[Reply]) -> dict[str, float]:
    """Requests made and saved, tokens, and what they cost at the endpoint's prices."""
    n_requests = tokens_read = tokens_written = 0
    for reply in replies:
        if not reply.cached:
            n_requests += 1
            tokens_read += reply.read
            tokens_written += reply.written
    price = (tokens_read * endpoint.price_in + tokens_written * endpoint.price_out) / 1e6
    return {
        "requests": n_requests,
        "from_cache": len(replies) - n_requests,
        "tokens_read": tokens_read,
        "tokens_written": tokens_written,
        "cost": round(price, 6),
    }


def _reply(endpoint: Endpoint, text: str) -> Reply:
    """The reply to one text, from the cache or else from the endpoint, which fills the cache."""
    body = {
        "model": endpoint.served,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": REPLY_TOKENS,
    }
    key = hashlib.sha256(json.dumps([endpoint.url, body], sort_keys=True).encode()).hexdigest()
    file = cache_folder() / "judged" / key[:2] / f"{key}.json"
    cached = _cached(file)
    if cached is not None:
        return cached
    reply = _request(endpoint, json.dumps(body).encode())
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"text": reply.text, "read": reply.read, "written": reply.written}
    atomic_files.write_json(file, content)
    return reply


def _cached(file: Path) -> Reply | None:
    try:
        return Reply(**json.loads(file.read_text(encoding="utf-8")), cached=True)
    except (OSError, ValueError, TypeError):
        return None


def _request(endpoint: Endpoint, body: bytes) -> Reply:
    """The endpoint's reply to a request, tried several times.  Raises DataError without one."""
    headers = {"Content-Type": "application/json"}
    key = os.environ.get(endpoint.key)
    if key:
        headers["Authorization"] = f"Bearer {key}"
    address = f"{endpoint.url.rstrip('/')}/chat/completions"
    request = urllib.request.Request(address, body, headers)
    problem, asked_to_wait = "", None
    for n in range(endpoint.retries + 1):
        if n:
            pause = asked_to_wait or endpoint.pause * 2 ** (n - 1)
            time.sleep(min(LONGEST_PAUSE, pause))
        try:
            with urllib.request.urlopen(request, timeout=endpoint.timeout) as answer:
                return _read(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                reason = error.read()[:200].decode(errors="replace")
            problem = f"status {error.code}: {reason}"
            asked_to_wait = _seconds_to_wait(error.headers)
            if error.code < 500 and error.code not in RETRIED_STATUS:
                raise DataError(
                    f"{endpoint.url} refused a request, {problem}; check --url, --served and the"
                    f" key in {endpoint.key}"
                ) from None
        except (OSError, http.client.HTTPException, _Garbage) as error:
            problem = str(error) or type(error).__name__
            asked_to_wait = None
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
        answer = json.loads(data)
        text = answer["choices"][0]["message"]["content"]
        usage = answer.get("usage") or {}
        return Reply(
            text if isinstance(text, str) else "",
            int(usage.get("prompt_tokens", 0)),
            int(usage.get("completion_tokens", 0)),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _Garbage(f"not a chat completion: {data[:80]!r}") from None


def _seconds_to_wait(headers: http.client.HTTPMessage) -> float | None:
    """The seconds that the endpoint asks to wait, where it says so."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
