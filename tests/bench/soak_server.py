"""The server's process with a census: python soak_server.py TLS CENSUS CONTROL FLEET OPERATIONS

Each second it adds a line to the file CENSUS: how much SuperLink's stores hold.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from fedbench.flower import superlink as flower
from fedbench.server import superlink as server

CENSUS_SECONDS = 1.0


def census(app: Any) -> dict[str, int]:
    """What the stores hold now."""
    state = app.state.linkstate_factory.state()
    contents = [content for content in [*state.object_store.store.values()] if content]
    return {
        "messages": len(state.message_ins_store) + len(state.message_res_store),
        "objects": len(state.object_store.store),
        "object_bytes": sum(len(getattr(each, "content", each)) for each in contents),
        "sessions": len(state._object_push_sessions),
        "nodes": len(state.nodes),
        "log_lines": sum(len(record.logs) for record in [*state.run_ids.values()]),
        "tasks": len(state.task_store) + len(state.task_token_store),
        "task_events": sum(map(len, [*state.task_event_store.values()])),
    }


def main(tls: str, path: str, *ports: str) -> None:
    """Serve, and count."""
    create, serve_all, apps = flower.create, server._serve_all, list[Any]()

    def created(port: int) -> Any:
        apps.append(create(port))
        return apps[0]

    def count() -> None:
        while True:
            with Path(path).open("a") as file:
                file.write(json.dumps(census(apps[0])) + "\n")
            time.sleep(CENSUS_SECONDS)

    async def served(*arguments: Any) -> None:
        # Not before: the executor forks off a process without threads.
        threading.Thread(target=count, daemon=True).start()
        await serve_all(*arguments)

    flower.create, server._serve_all = created, served
    server.serve(Path(tls), server.ServerPorts(*map(int, ports)))


if __name__ == "__main__":
    main(*sys.argv[1:])
