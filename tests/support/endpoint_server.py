"""A local server that answers as an OpenAI-compatible endpoint does."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

Answer = tuple[int, bytes, dict[str, str]]
"status, body, headers"


def completion(text: object) -> Answer:
    found = {
        "choices": [{"message": {"content": text}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
    }
    return 200, json.dumps(found).encode(), {}


class Server:
    """An endpoint whose answer is a function of the number of the request and of the text asked
    about."""

    def __init__(self, answer: Callable[[int, str], Answer]) -> None:
        self.seen: list[dict] = []
        self.keys: list[str | None] = []
        self.gets = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.seen.append(body)
                    server.keys.append(self.headers.get("Authorization"))
                    n = len(server.seen)
                status, data, headers = answer(n, body["messages"][0]["content"])
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                server.gets += 1
                self.send_error(404)

            def log_message(self, *args: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def drip() -> Iterator[Callable[[bytes], str]]:
    """Starts a server that sends the given bytes, then one more every tenth of a second."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def answer(beginning: bytes) -> None:
        connected, _ = listener.accept()
        with connected, contextlib.suppress(OSError):
            connected.sendall(beginning)
            while not ended.wait(0.1):
                connected.sendall(b"H")

    def start(beginning: bytes) -> str:
        threading.Thread(target=answer, args=(beginning,), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    ended.set()
    listener.close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("TRAITSCOPE_CACHE", str(tmp_path / "cache"))
    made: list[Server] = []

    def start(answer: Callable[[int, str], Answer]) -> Server:
        made.append(Server(answer))
        return made[-1]

    yield start
    for server in made:
        server.http.shutdown()
        server.http.server_close()
