"""Starts a run on this container's SuperLink and waits for its end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from starlette.concurrency import run_in_threadpool

POLL_SECONDS = 0.2


class Control:
    """SuperLink's Control API at `port` of this machine."""

    def __init__(self, port: int) -> None:
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{port}",
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    async def run(
        self, app: Path, config: dict[str, str], lost: Callable[[], str | None]
    ) -> str | None:
        """Run the Flower app in the folder `app`; return None once it completed, else why not.

        It is stopped as soon as `lost()` says why nobody executes it any more.
        """
        run_id = await run_in_threadpool(self._start, app, config)
        while (problem := await run_in_threadpool(self._problem, run_id)) is None:
            if reason := lost():
                await run_in_threadpool(self._stop, run_id)
                return reason
            await asyncio.sleep(POLL_SECONDS)
        return problem or None

    def _start(self, app: Path, config: dict[str, str]) -> int:
        content = build_fab_from_disk(app)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        override = user_config_to_proto(config)
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=override)
        return int(self._client.StartRun(request).run_id)

    def _stop(self, run_id: int) -> None:
        with suppress(httpx.HTTPError):  # it has ended meanwhile
            self._client.StopRun(StopRunRequest(run_id=run_id))

    def _problem(self, run_id: int) -> str | None:
        """Say why a run did not complete, nothing where it did; None while it goes on."""
        answer = self._client.ListRuns(ListRunsRequest(run_id=run_id))
        status = run_from_proto(answer.run_dict[run_id]).status
        if status.status != Status.FINISHED:
            return None
        if status.sub_status == SubStatus.COMPLETED:
            return ""
        return str(status.details) or f"Flower says that it {status.sub_status}"
