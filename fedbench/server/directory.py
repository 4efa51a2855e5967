"""Which Flower node is which client: asked once of each node, by an ordinary Flower query.

And what became of one that is gone: asked of the server, which may have been told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict
from pydantic import ValidationError

from fedbench.flower.messages import is_from_a_lost_node, refusal
from fedbench.server.exchange import Exchange
from fedbench.wire import Identity, first_problem

ANSWER_SECONDS = 120.0  # the stock node starts a process, under its device's quota, to answer

Say = Callable[..., None]
Why = Callable[[int, str], str | None]


@dataclass(frozen=True)
class Member:
    """A connected client that holds images of this run's data set.

    `samples` is how many training images it said that it has; None where it was not asked.
    """

    node_id: int
    client: str
    device: str
    samples: int | None = None


class Directory:
    """Names of the nodes, by node id, for one run's data set.

    `why(node_id, client)` is the reason why a node is gone, None where nobody knows it.
    """

    def __init__(self, grid: Exchange, data: str, say: Say, why: Why) -> None:
        self._grid = grid
        self._data = data
        self._say = say
        self._why = why
        self._members: dict[int, Member | None] = {}
        self._failed: set[int] = set()

    def connected(self) -> list[Member]:
        """Return the clients connected now that can take part, sorted by name."""
        nodes = self._grid.node_ids()
        self._identify(node for node in nodes if node not in self._members)
        # A client that restarted is a new node, and for a minute Flower believes that the old one
        # is there as well: the one that was identified last counts.
        latest = {m.client: m for node, m in self._members.items() if m and node in nodes}
        return sorted(latest.values(), key=lambda member: member.client)

    def member(self, node_id: int) -> Member:
        """Return the client behind a node that took part."""
        member = self._members.get(node_id)
        return member or Member(node_id, f"node-{node_id}", "unknown")

    def explained(self, node_id: int, reply: Message) -> Message:
        """Return the reply; one that stands for a node that is gone says why, if that is known."""
        if is_from_a_lost_node(reply) and (
            reason := self._why(node_id, self.member(node_id).client)
        ):
            reply.error = Error(code=reply.error.code, reason=reason)
        return reply

    def _identify(self, nodes: Iterable[int]) -> None:
        content = RecordDict({"config": ConfigRecord({"data": self._data})})
        queries = [Message(content, node, MessageType.QUERY) for node in nodes]
        for node_id, reply in self._grid.exchange(queries, ANSWER_SECONDS):
            if self.explained(node_id, reply).has_error():
                self._fail(node_id, reply.error.reason)
                continue
            try:
                identity = Identity.model_validate(dict(reply.content["client"]))
            except KeyError:
                self._fail(node_id, f"{refusal(MessageType.QUERY)}: it does not say who it is")
            except ValidationError as error:
                self._fail(node_id, f"{refusal(MessageType.QUERY)}: {first_problem(error)}")
            else:
                self._members[node_id] = self._admit(node_id, identity)

    def _fail(self, node_id: int, reason: str) -> None:
        """Say once that a node cannot say who it is; it is asked again each time."""
        if node_id not in self._failed:
            self._failed.add(node_id)
            self._say("unidentified", node=node_id, reason=reason)

    def _admit(self, node_id: int, identity: Identity) -> Member | None:
        if identity.samples < 1:
            self._say("left_out", client=identity.client, data=self._data)
            return None
        return Member(node_id, identity.client, identity.device, identity.samples)
