"""Starts a run on this container's SuperLink and waits for its end, for `launch`."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from starlette.concurrency import run_in_threadpool

POLL_SECONDS = 0.5


class Control:
    """SuperLink's Control API, the Flower app to run, and where it reports its events."""

    def __init__(self, app: Path, control_port: int, operations_port: int) -> None:
        self._app = app
        self._operations = f"http://127.0.0.1:{operations_port}"
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{control_port}",
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    async def run(self, folder: str) -> bool:
        """Runs what is in the folder; whether Flower says that the run completed."""
        run_id = await run_in_threadpool(self._start, folder)
        while (completed := await run_in_threadpool(self._completed, run_id)) is None:
            await asyncio.sleep(POLL_SECONDS)
        return completed

    def _start(self, folder: str) -> int:
        content = build_fab_from_disk(self._app)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        config = user_config_to_proto({"folder": folder, "operations": self._operations})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=config)
        return int(self._client.StartRun(request).run_id)

    def _completed(self, run_id: int) -> bool | None:
        answer = self._client.ListRuns(ListRunsRequest(run_id=run_id))
        status = run_from_proto(answer.run_dict[run_id]).status
        if status.status != Status.FINISHED:
            return None
        return bool(status.sub_status == SubStatus.COMPLETED)
