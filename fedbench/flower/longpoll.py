"""Answers a poll when there is something to say, instead of at once with nothing.

SuperLink answers every poll at once; whoever waits for a message asks again and again, and learns
of it half an interval late on average, twice in each exchange. Here an empty answer is held back
until the other side has pushed a message, and the question put again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from math import inf
from typing import Any

from starlette.requests import ClientDisconnect

from fedbench.flower.bundles import (
    FLEET_PULL,
    FLEET_PUSH,
    HOLD_HEADER,
    RUNTIME_PULL,
    RUNTIME_PUSH,
)

HOLD_SECONDS = 2.0
# What a poll waits for: a node for the ServerApp's messages, the ServerApp for replies, the
# executor for runs.
NEWS: Mapping[str, str] = {
    FLEET_PULL: RUNTIME_PUSH,
    RUNTIME_PULL: FLEET_PUSH,
    "/v1/runtime/acquire-task": "/v1/control/start-run",
}
# By which the stock node's reply becomes whole, some time after it was pushed.
_ALSO_NEWS: Mapping[str, str] = {"/v1/fleet/push-object": FLEET_PUSH}

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class LongPoll:
    """An ASGI app around another; `news` maps the paths of polls to the paths that bring news."""

    def __init__(
        self, app: App, news: Mapping[str, str] = NEWS, hold: float = HOLD_SECONDS
    ) -> None:
        self._app = app
        self._news = news
        self._hold = hold
        self._bells = {path: asyncio.Event() for path in news.values()}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if path in self._news:
            with suppress(ClientDisconnect):
                await self._poll(scope, await read_body(receive), send)
            return
        await self._app(scope, receive, send)
        path = _ALSO_NEWS.get(path, path)
        if path in self._bells:
            bell, self._bells[path] = self._bells[path], asyncio.Event()
            bell.set()

    async def _poll(self, scope: Scope, body: bytes, send: Any) -> None:
        # The bell that was there before the question: no news is missed in between.
        bell = self._bells[self._news[scope["path"]]]
        answer = await self._ask(scope, body)
        if _is_empty(answer):
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), min(self._hold, _patience(scope)))
                answer = await self._ask(scope, body)
        for message in answer:
            await send(message)

    async def _ask(self, scope: Scope, body: bytes) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = []
        question = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if question:
                return question.pop()
            await asyncio.Event().wait()  # the client stays; whoever waits for it is cancelled
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            answer.append(message)

        question_scope = {**scope, "state": dict(scope.get("state", {}))}
        await self._app(question_scope, receive, send)
        return answer


def _patience(scope: Scope) -> float:
    """Return the seconds for which the sender of a poll can wait."""
    headers = dict(scope["headers"])
    try:
        return max(0.0, float(headers.get(HOLD_HEADER.lower().encode(), b"inf")))
    except ValueError:
        return inf


async def read_body(receive: Any) -> bytes:
    """Return the whole body of a request.

    Raises:
        ClientDisconnect: the other side hung up amid it.
    """
    pieces, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def _is_empty(answer: list[dict[str, Any]]) -> bool:
    status = next(message["status"] for message in answer if "status" in message)
    return status == 200 and not any(message.get("body") for message in answer)
