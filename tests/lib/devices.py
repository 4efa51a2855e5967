"""The server as devices meet it, over TLS, but for SuperLink."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from fedbench.server.public_app import GRACE_SECONDS, Lifelines, public_app
from fedbench.server.registry import Registry


async def no_superlink(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("announcements are not for SuperLink")


@contextmanager
def served(
    registry: Registry,
    certificates: Path,
    address: str = "localhost:0",
    grace: float = GRACE_SECONDS,
) -> Iterator[str]:
    """Is there for as long as the block lasts; yields the server's address."""
    port = int(address.partition(":")[2])
    config = uvicorn.Config(
        public_app(no_superlink, registry, Lifelines(registry, grace)),
        lifespan="off",
        ws="none",
        loop="asyncio",
        log_level="warning",
        timeout_graceful_shutdown=1,
        ssl_certfile=certificates / "server/server.pem",
        ssl_keyfile=certificates / "server/server.key",
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"localhost:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
