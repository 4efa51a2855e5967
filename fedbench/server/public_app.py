"""What devices may reach of the server: SuperLink's fleet routes, and what fedbench adds to them.

A client announces itself, says goodbye, or is reported dead by what outlived it, all under a name
and an instance that nobody else knows; and whoever wants to join asks what there is to join.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedbench.flower.longpoll import App, Scope
from fedbench.server.lifelines import Lifelines
from fedbench.server.registry import GoneError, Registry, UnknownInstanceError
from fedbench.wire import CLIENTS_PATH, RUN_PATH, Announcement, Ending, NameTakenError


def public_app(superlink: App, registry: Registry, lifelines: Lifelines | None = None) -> App:
    """Return what devices may reach: SuperLink's fleet routes, and what joining takes."""
    held = lifelines or Lifelines(registry)

    async def announce(request: Request) -> Response:
        try:
            said = Announcement.model_validate_json(await request.body())
            registry.announce(said, request.client.host if request.client else "")
        except ValidationError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        except NameTakenError:
            return JSONResponse({"error": "name taken"}, status_code=409)
        except GoneError:
            return JSONResponse({"error": "this client is gone"}, status_code=410)
        await held.hold(request, said.client, said.instance, said.wait)
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
            ending = Ending.model_validate_json(await request.body())
            registry.end(**request.path_params, ending=ending)
        except ValidationError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        except UnknownInstanceError:
            return JSONResponse({"error": "not a client of this federation"}, status_code=404)
        return JSONResponse({})

    joining = Starlette(
        routes=[
            Route(RUN_PATH, run),
            Route(CLIENTS_PATH, announce, methods=["POST"]),
            Route(CLIENTS_PATH + "/{client}/{instance}", leave, methods=["DELETE"]),
            Route(CLIENTS_PATH + "/{client}/{instance}/ending", end, methods=["POST"]),
        ]
    )

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        fleet = scope["type"] == "http" and scope["path"].startswith("/v1/fleet/")
        await (superlink if fleet else joining)(scope, receive, send)

    return app
