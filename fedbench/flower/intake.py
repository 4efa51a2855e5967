"""What is taken in of a request before anybody reads it: how much, how long, and from whom.

A node signs each request, its body apart: who it is can be told before much of the body is kept.
Whoever does not sign gets as far as a small body, and all strangers together as far as some.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException
from flwr.proto.fleet_pb2 import PushMessagesRequest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse

from fedbench.flower.bundles import FLEET_PUSH, MEDIA_TYPE
from fedbench.flower.longpoll import App, Scope
from fedbench.flower.refusals import fail_asked, require_key, signed_by
from fedbench.flower.whole import NotWholeError, require_one_reply

_OBJECT_PUSH = "/v1/fleet/push-object"
_DRAINED = 4  # times the largest body: one that sends on after that is cut off


@dataclass(frozen=True)
class Limits:
    """Bytes of a body: from anybody, of a request without model, of any; and of all strangers.

    `idle_seconds` may pass between two pieces of a body.
    """

    small: int = 2**20
    plain: int = 2**24
    largest: int = 2**30
    strangers: int = 2**26
    idle_seconds: float = 60.0


class RefusedBody(Exception):  # noqa: N818 (the sender's error)
    """A body that is not taken in; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def answer(self) -> PlainTextResponse:
        """Return what to say; what is still on its way is not read."""
        return PlainTextResponse(str(self), self.status, {"connection": "close"})


class Pieces:
    """The body of a request, of which no more is there than was taken."""

    def __init__(self, receive: Any, idle_seconds: float) -> None:
        self._receive = receive
        self._idle = idle_seconds
        self._pieces: list[bytes] = []
        self.size = 0
        self.more = True

    async def take(self, most: int) -> bool:
        """Take what comes until it is whole, or has more bytes; return whether it is whole."""
        while self.more and self.size <= most:
            await self.take_next()
        return self.size <= most

    async def take_next(self) -> None:
        """Take the next piece, as `next` returns it."""
        self._pieces.append(await self.next())

    async def next(self) -> bytes:
        """Return the next piece, and forget it.

        Raises:
            RefusedBody: it did not come in time.
            ClientDisconnect: the other side hung up.
        """
        try:
            async with asyncio.timeout(self._idle):
                message = await self._receive()
        except TimeoutError:
            raise RefusedBody(408, f"nothing came for {self._idle:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        self.size += len(piece)
        self.more = message.get("more_body", False)
        return piece

    def whole(self) -> bytes:
        """Return what was taken."""
        return b"".join(self._pieces)


class Intake:
    """An ASGI app around that of the fleet's routes, which gets only bodies that are here."""

    def __init__(self, app: App, superlink: FastAPI, limits: Limits | None = None) -> None:
        self._app = app
        self._superlink = superlink
        self._limits = limits or Limits()
        self._of_strangers = 0  # bytes that are kept right now

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one request."""
        request = Request({**scope, "app": self._superlink, "state": {}})
        try:
            body = await self._body(request, Pieces(receive, self._limits.idle_seconds))
            if request.url.path == FLEET_PUSH and not _is_bundle(request):
                await run_in_threadpool(_require_own_reply, request, body)
        except ClientDisconnect:
            return  # whoever it was may come again
        except RefusedBody as refusal:
            await refusal.answer()(scope, receive, send)
        except HTTPException as error:
            answer = RefusedBody(error.status_code, str(error.detail)).answer()
            await answer(scope, receive, send)
        else:
            await self._app(scope, _replayed(body, receive), send)

    async def _body(self, request: Request, pieces: Pieces) -> bytes:
        """Return a request's body.

        Raises:
            HTTPException, RefusedBody, ClientDisconnect: it is not taken in.
        """
        require_key(request)
        claimed = claimed_size(request)
        if claimed <= self._limits.small and await self._take_small(pieces):
            return pieces.whole()
        await run_in_threadpool(signed_by, request)
        most = self._limits.largest if _has_model(request) else self._limits.plain
        if claimed > most or not await pieces.take(most):
            await self._refuse(request, pieces, max(claimed, pieces.size), most)
        return pieces.whole()

    async def _take_small(self, pieces: Pieces) -> bool:
        """Take a body of whom nobody knows; return whether it is whole."""
        kept = 0
        try:
            while pieces.more and pieces.size <= self._limits.small:
                if self._of_strangers > self._limits.strangers:
                    return False
                await pieces.take_next()
                self._of_strangers += pieces.size - kept
                kept = pieces.size
        finally:
            self._of_strangers -= kept
        return kept <= self._limits.small

    async def _refuse(self, request: Request, pieces: Pieces, size: int, most: int) -> None:
        """Refuse a node's body that is too large; its run is told, and need not wait for it."""
        reason = f"it has {size} bytes or more, {most} are the most"
        if request.url.path == FLEET_PUSH:
            await run_in_threadpool(fail_asked, request, reason)
        # A sender that is cut off reads no answer, and tries again.
        with suppress(ClientDisconnect):
            while pieces.more and pieces.size <= _DRAINED * self._limits.largest:
                await pieces.next()
        raise RefusedBody(413, reason)


def claimed_size(request: Request) -> int:
    """Return how many bytes a body is said to have; 0 where nobody says.

    Raises:
        RefusedBody: it is no number.
    """
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise RefusedBody(400, "a content length that is no number")
    return int(text)


def _is_bundle(request: Request) -> bool:
    return request.headers.get("content-type") == MEDIA_TYPE


def _has_model(request: Request) -> bool:
    return _is_bundle(request) or request.url.path == _OBJECT_PUSH


def _require_own_reply(request: Request, body: bytes) -> None:
    """Check a push in plain Flower, as `bundle_server.py` does of a bundle's.

    Raises:
        RefusedBody: it is no reply of its sender.
    """
    try:
        require_one_reply(PushMessagesRequest.FromString(body))
    except (DecodeError, NotWholeError) as error:
        fail_asked(request, str(error))
        raise RefusedBody(400, str(error)) from None


def _replayed(body: bytes, receive: Any) -> Any:
    """Return a `receive` that has the whole body, and then what comes after it."""
    whole = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return whole.pop() if whole else await receive()

    return again
