"""Starts a run on this container's SuperLink and waits for its end.

`python -m fedbench.server.launch /runs/<id>`: exit code 0 when Flower says that the run
completed, 1 when it failed. What happened in it is in the folder's events.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from fedbench.server.superlink import PORTS

FLOWER_APP = Path(__file__).with_name("flower")
POLL_SECONDS = 0.5


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="the run's folder, as this container sees it")
    parser.add_argument("--control-port", type=int, default=PORTS.control)
    parser.add_argument("--operations-port", type=int, default=PORTS.operations)
    args = parser.parse_args()
    client = ControlHttpClient.from_server_address(
        f"127.0.0.1:{args.control_port}",
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    operations = f"http://127.0.0.1:{args.operations_port}"
    run_id = _start(client, {"folder": args.folder, "operations": operations})
    return 0 if _wait(client, run_id) else 1


def _start(client: ControlHttpClient, config: dict[str, str]) -> int:
    content = build_fab_from_disk(FLOWER_APP)
    fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
    overrides = user_config_to_proto(config)
    answer = client.StartRun(StartRunRequest(fab=fab_to_proto(fab), override_config=overrides))
    return int(answer.run_id)


def _wait(client: ControlHttpClient, run_id: int) -> bool:
    while True:
        answer = client.ListRuns(ListRunsRequest(run_id=run_id))
        status = run_from_proto(answer.run_dict[run_id]).status
        if status.status == Status.FINISHED:
            return bool(status.sub_status == SubStatus.COMPLETED)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
