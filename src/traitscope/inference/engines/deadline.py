"""A limit of time for a whole answer over HTTP, whether its head or its body drips.

A timeout of a socket counts from the last byte, so a server that sends a byte a second never runs
into it. Here a timer shuts the connection down.
"""

import http.client
import socket
import threading
import urllib.request
from contextlib import suppress
from typing import Any, Self


class Deadline:
    """Shuts down the connections of its opener after some seconds; used by `with`."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        for connected in self._sockets:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def watch(self, connected: socket.socket) -> None:
        """Shut down this connection, too, at once if the time is over."""
        self._sockets.append(connected)
        if self.is_over:
            self._end()

    def opener(self) -> urllib.request.OpenerDirector:
        """An opener of addresses that follows no redirect and uses the proxies of the environment.

        A redirect ends as an HTTPError with its status.
        """
        return urllib.request.build_opener(_NoRedirect, _Http(self), _Https(self))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _watched(kind: type[http.client.HTTPConnection], deadline: Deadline) -> Any:
    """A kind of connection whose socket the deadline shuts down."""

    class Connection(kind):  # type: ignore[misc, valid-type]
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

    return Connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self.deadline = deadline

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(http.client.HTTPConnection, self.deadline), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self.deadline = deadline

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(http.client.HTTPSConnection, self.deadline), request)
