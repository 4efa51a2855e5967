"""What devices may reach of the server: SuperLink's fleet routes, and what fedbench adds to them.

A client announces itself, says goodbye, or is reported dead by what outlived it, all under a name
and an instance that nobody else knows; and whoever wants to join asks what there is to join.

The answer to an announcement is held back until the next one is due, so a client always waits for
one. Its kernel closes the connection when its process dies, however that dies, and whether or not
anybody is left to report it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedbench.flower import clock
from fedbench.flower.intake import Pieces, RefusedBody, claimed_size
from fedbench.flower.longpoll import App, Scope
from fedbench.server.registry import FullError, GoneError, Registry, UnknownInstanceError
from fedbench.wire import (
    CLIENTS_PATH,
    ROUND_TRIPS,
    RUN_PATH,
    Announcement,
    Ending,
    NameTakenError,
    first_problem,
)

MOST_BYTES = 2**14
"""Of what a client says here; an announcement has a few hundred."""
SAYING_SECONDS = 10.0
"""Between two pieces of it."""
GRACE_SECONDS = 2.5
"""For a client whose connection alone broke, or whose supervisor says what became of it.

As long as a new connection takes, where that is longer.
"""


class Lifelines:
    """The answers that are held back, by the client's instance. For one event loop."""

    def __init__(self, registry: Registry, grace: float = GRACE_SECONDS) -> None:
        self._registry = registry
        self._grace = grace
        self._held: dict[str, asyncio.Event] = {}

    async def hold(self, request: Request, said: Announcement) -> None:
        """Return after the seconds that were asked for, on a goodbye, or when it hung up."""
        instance = said.instance
        freed = self._held[instance] = asyncio.Event()
        waits = [asyncio.ensure_future(wait) for wait in (request.receive(), freed.wait())]
        try:
            await asyncio.wait(waits, timeout=said.wait, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                self._hung_up(said)
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

    def _hung_up(self, said: Announcement) -> None:
        self._registry.hung_up(said.client, said.instance)
        grace = max(self._grace, ROUND_TRIPS * said.round_trip)
        loop = asyncio.get_running_loop()
        loop.call_later(grace, self._registry.miss, said.client, said.instance)


def public_app(superlink: App, registry: Registry, lifelines: Lifelines | None = None) -> App:
    """Return what devices may reach: SuperLink's fleet routes, and what joining takes."""
    held = lifelines or Lifelines(registry)

    async def announce(request: Request) -> Response:
        try:
            said = Announcement.model_validate_json(await _said(request))
            registry.announce(said, request.client.host if request.client else "")
        except ValidationError as error:
            return _invalid(error)
        except NameTakenError:
            return JSONResponse({"error": "name taken"}, status_code=409)
        except GoneError:
            return JSONResponse({"error": "this client is gone"}, status_code=410)
        except FullError as error:
            return JSONResponse({"error": str(error)}, status_code=429)
        await held.hold(request, said)
        return JSONResponse({})

    async def leave(request: Request) -> Response:
        registry.leave(**request.path_params)
        held.release(request.path_params["instance"])
        return JSONResponse({})

    async def run(_: Request) -> Response:
        if registry.run is None:
            return JSONResponse({"error": "no run yet"}, status_code=404)
        return Response(registry.run.model_dump_json(), media_type="application/json")

    async def end(request: Request) -> Response:
        try:
            ending = Ending.model_validate_json(await _said(request))
            registry.end(**request.path_params, ending=ending)
        except ValidationError as error:
            return _invalid(error)
        except UnknownInstanceError:
            return JSONResponse({"error": "not a client of this federation"}, status_code=404)
        return JSONResponse({})

    joining = Starlette(
        routes=[
            Route(RUN_PATH, run),
            Route(CLIENTS_PATH, announce, methods=["POST"]),
            Route(CLIENTS_PATH + "/{client}/{instance}", leave, methods=["DELETE"]),
            Route(CLIENTS_PATH + "/{client}/{instance}/ending", end, methods=["POST"]),
        ],
        exception_handlers={RefusedBody: _refuse, ClientDisconnect: _refuse},
    )

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        fleet = scope["type"] == "http" and scope["path"].startswith("/v1/fleet/")
        await (superlink if fleet else joining)(scope, receive, _dated(send))

    return app


async def _said(request: Request) -> bytes:
    """Return what a client says, which is short."""
    pieces = Pieces(request.receive, SAYING_SECONDS)
    if claimed_size(request) > MOST_BYTES or not await pieces.take(MOST_BYTES):
        raise RefusedBody(413, f"{MOST_BYTES} bytes are the most")
    return pieces.whole()


def _invalid(error: ValidationError) -> Response:
    return JSONResponse({"error": f"{error.title}: {first_problem(error)}"}, status_code=422)


async def _refuse(_: Request, error: Exception) -> Response:
    return error.answer() if isinstance(error, RefusedBody) else Response(status_code=400)


def _dated(send: Any) -> Any:
    """Let each answer say what time it is to Flower: a node whose clock is off goes by that."""

    async def dated(message: Any) -> None:
        if message["type"] == "http.response.start":
            date = (b"date", clock.http_date().encode())
            message = {**message, "headers": [*message.get("headers", ()), date]}
        await send(message)

    return dated
