"""What a run needs of a Grid: its nodes, an exchange of messages, and an ear for the user's wish.

`grid.py` has it over the network, `fedbench.engines.in_process` in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from fedbench.server.timing import ServerPart
from fedbench.telemetry.timing import Timing


class RunStopped(Exception):  # noqa: N818 (the user's wish, not an error)
    """The user asked to stop the run."""


class Exchange(Protocol):
    """`flower` is the Grid as Flower's strategies know it; `timing` what became of the time."""

    @property
    def flower(self) -> Grid:
        """Flower's own interface."""

    @property
    def timing(self) -> Timing[ServerPart]:
        """Where the server's time went."""

    def node_ids(self) -> list[int]:
        """The nodes that are connected now."""

    def pause(self, seconds: float) -> None:
        """Sleeps.

        Raises:
            RunStopped: the user asked to stop.
        """

    def exchange(
        self, messages: Iterable[Message], timeout: float
    ) -> Iterator[tuple[int, Message]]:
        """Sends the messages; yields (node id, reply), first come first served.

        A reply may be an error, of a node that died as well. A node that has not answered after
        `timeout` seconds is given up: no reply is yielded for it.

        Raises:
            RunStopped: the user asked to stop.
        """
