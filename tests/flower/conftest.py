from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from superlink import SuperLink

    from fedbench.flower.fleet import FleetConnection


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    """Messages are made in a process of a run; this one serves for all tests."""
    from fedbench.flower.messages import identify  # noqa: PLC0415 (see flower_internals.py)

    identify(7)


@pytest.fixture
def address(superlink: SuperLink, certificates: Path) -> Iterator[str]:
    """Where nodes reach the test's SuperLink, over TLS."""
    server = certificates / "server"
    with superlink.served(
        ssl_certfile=server / "server.pem", ssl_keyfile=server / "server.key"
    ) as address:
        yield address


@pytest.fixture
def link(address: str, certificates: Path) -> Iterator[FleetConnection]:
    """Connect a node of the test's SuperLink."""
    from fedbench.flower.fleet import connect  # noqa: PLC0415 (see flower_internals.py)

    with connect(address, (certificates / "ca.pem").read_bytes()) as link:
        yield link
