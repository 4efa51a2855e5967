"""Flower's messages with all their objects in one HTTP body.

Flower moves each object of a message in a request of its own: seven for a message with a model, and
each costs either side milliseconds. A bundle is one of Flower's own requests or answers, followed
by the objects that belong to it. It goes to the same path under another media type, so that whoever
speaks plain Flower, as the stock node does, is understood as before.

In a body, the number of parts and the length of each (unsigned, 8 bytes, little-endian) come first,
then the parts. An empty body is a bundle of no parts.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse

MEDIA_TYPE = "application/vnd.fedbench.bundle"
FLEET_PULL, FLEET_PUSH = "/v1/fleet/pull-messages", "/v1/fleet/push-messages"
RUNTIME_PULL, RUNTIME_PUSH = "/v1/runtime/pull-messages", "/v1/runtime/push-messages"
RUNTIME_OBJECTS = "/v1/runtime/pull-object"
# What Flower has not: a node asks if its answer is still wanted, a ServerApp wants it no more.
FLEET_WANTED, RUNTIME_WITHDRAW = "/v1/fleet/wanted-message", "/v1/runtime/withdraw-messages"
HOLD_HEADER = "Fedbench-Hold"
"""For how many seconds a poll may be held back, where its sender has less time than usual."""
_NUMBER = 8  # bytes
_RETRY_SECONDS = 1.0


def pack(parts: Sequence[bytes]) -> list[bytes]:
    """Return the body, piece by piece, so that no part is copied."""
    return [struct.pack(f"<{1 + len(parts)}Q", len(parts), *map(len, parts)), *parts]


def unpack(body: bytes) -> list[bytes]:
    """Return the parts of a whole body.

    Raises:
        struct.error: it is no bundle.
    """
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        position += length
        return body[position - length : position]

    parts = list(_parts(read)) if body else []
    if position < len(body):
        raise struct.error(f"expected {position} bytes, got {len(body)}")
    return parts


def _parts(read: Callable[[int], bytes]) -> Iterator[bytes]:
    (count,) = struct.unpack("<Q", read(_NUMBER))
    for length in struct.unpack(f"<{count}Q", read(_NUMBER * count)):
        part = read(length)
        if len(part) < length:
            raise struct.error(f"expected {length} bytes, got {len(part)}")
        yield part


class RefusedError(Exception):
    """The server understood a request and refused it; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status


class Answer:
    """An answer of which only the head has come."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self.empty = response.length == 0
        if self.empty:
            response.read()  # frees the connection

    def parts(self) -> Iterator[bytes]:
        """Yield the parts, as they come.

        Raises:
            OSError, HTTPException, struct.error: the connection broke amid them.
        """
        return iter(()) if self.empty else _parts(self._response.read)


class Connection:
    """Posts bundles over one connection that is kept, for one thread.

    By the standard library: reading 9 MB through TLS took 6 ms of CPU, and 21 with httpx.
    """

    def __init__(
        self,
        connect: Callable[[], HTTPConnection],
        patience: float,
        stop: threading.Event | None = None,
    ) -> None:
        self._connect = connect
        self._patience = patience
        self._stop = stop or threading.Event()
        self._http: HTTPConnection | None = None

    def post(
        self, path: str, parts: Sequence[bytes], headers: Callable[[], Mapping[str, str]]
    ) -> Answer:
        """Post a bundle, again and again for `patience` seconds where the connection fails.

        Not after `stop` was set: a server that is new may hang up on what the old one had asked.
        An answer that was not read to its end is lost with the next post.

        Raises:
            RefusedError: the server refused.
            OSError, HTTPException: it could not be reached.
        """
        deadline = time.monotonic() + self._patience
        pause = 0.0  # a connection that was idle for long may be closed: a new one may do at once
        while True:
            try:
                return self._post(path, parts, headers())
            except (OSError, HTTPException):
                self.close()
                if time.monotonic() > deadline or self._stop.wait(pause):
                    raise
                pause = _RETRY_SECONDS

    def _post(self, path: str, parts: Sequence[bytes], headers: Mapping[str, str]) -> Answer:
        body = pack(parts)
        length = str(sum(map(len, body)))
        http = self._http = self._http or self._connect()
        http.request(
            "POST", path, body, {**headers, "Content-Type": MEDIA_TYPE, "Content-Length": length}
        )
        response = http.getresponse()
        if response.status != 200:
            raise RefusedError(response.status, response.read().decode(errors="replace"))
        return Answer(response)

    def close(self) -> None:
        """Close the connection; the next post opens another."""
        if self._http is not None:
            self._http.close()
            self._http = None
