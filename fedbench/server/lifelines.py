"""Notices at once when a client's process is gone, by the answer that it waits for.

The answer to an announcement is held back until the next one is due, so a client always waits for
one. Its kernel closes the connection when its process dies, however that dies, and whether or not
anybody is left to report it.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from fedbench.server.registry import Registry

GRACE_SECONDS = 3.0
"""For a client whose connection alone broke, or whose supervisor says what became of it."""


class Lifelines:
    """The answers that are held back, by the client's instance. For one event loop."""

    def __init__(self, registry: Registry, grace: float = GRACE_SECONDS) -> None:
        self._registry = registry
        self._grace = grace
        self._held: dict[str, asyncio.Event] = {}

    async def hold(self, request: Request, client: str, instance: str, seconds: float) -> None:
        """Return after so many seconds, on the client's goodbye, or when it hung up."""
        freed = self._held[instance] = asyncio.Event()
        waits = [asyncio.ensure_future(wait) for wait in (request.receive(), freed.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                self._hung_up(client, instance)
        finally:
            for wait in waits:
                wait.cancel()
            if self._held.get(instance) is freed:
                del self._held[instance]

    def release(self, instance: str) -> None:
        """Answer this instance now, if it waits."""
        if instance in self._held:
            self._held[instance].set()

    def release_all(self) -> None:
        """Answer everyone now: the server ends."""
        for freed in self._held.values():
            freed.set()

    def _hung_up(self, client: str, instance: str) -> None:
        self._registry.hung_up(client, instance)
        loop = asyncio.get_running_loop()
        loop.call_later(self._grace, self._registry.miss, client, instance)
