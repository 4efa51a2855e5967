"""Which Flower node is which client: asked once of each node, by an ordinary Flower query."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fedbench.server.grid import PromptGrid

ANSWER_SECONDS = 120.0  # the stock node starts a process, under its device's quota, to answer

Say = Callable[..., None]


@dataclass(frozen=True)
class Member:
    """A connected client that holds images of this run's data set."""

    node_id: int
    client: str
    device: str


class Directory:
    """Names of the nodes, by node id, for one run's data set."""

    def __init__(self, grid: PromptGrid, data: str, say: Say) -> None:
        self._grid = grid
        self._data = data
        self._say = say
        self._members: dict[int, Member | None] = {}
        self._failed: set[int] = set()

    def connected(self) -> list[Member]:
        """The clients connected now that can take part, sorted by name."""
        nodes = self._grid.node_ids()
        self._identify(node for node in nodes if node not in self._members)
        # A client that restarted is a new node, and for a minute Flower believes that the old one
        # is there as well: the one that was identified last counts.
        latest = {m.client: m for node, m in self._members.items() if m and node in nodes}
        return sorted(latest.values(), key=lambda member: member.client)

    def member(self, node_id: int) -> Member:
        """The client behind a node that took part."""
        member = self._members.get(node_id)
        return member or Member(node_id, f"node-{node_id}", "unknown")

    def _identify(self, nodes: Iterable[int]) -> None:
        content = RecordDict({"config": ConfigRecord({"data": self._data})})
        queries = [Message(content, node, MessageType.QUERY) for node in nodes]
        for node_id, reply in self._grid.exchange(queries, ANSWER_SECONDS):
            if reply.has_error():
                self._fail(node_id, reply.error.reason)
            else:
                self._members[node_id] = self._admit(node_id, reply.content["client"])

    def _fail(self, node_id: int, reason: str) -> None:
        """Says once that a node cannot say who it is; it is asked again each time."""
        if node_id not in self._failed:
            self._failed.add(node_id)
            self._say("unidentified", node=node_id, reason=reason)

    def _admit(self, node_id: int, identity: ConfigRecord) -> Member | None:
        if int(str(identity["samples"])) < 1:
            self._say("left_out", client=identity["client"], data=self._data)
            return None
        return Member(node_id, str(identity["client"]), str(identity["device"]))
