"""Which Flower node is which client: asked of each node, by an ordinary Flower query.

Nobody waits for the answer: a node that is silent takes part once it has said who it is. And what
became of one that is gone: asked of the server, which may have been told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict
from pydantic import ValidationError

from fedbench.flower.messages import is_from_a_lost_node, refusal
from fedbench.flower.runtime import is_unexplained
from fedbench.server.exchange import Exchange
from fedbench.wire import SIGNED_OFF, Identity, first_problem

ANSWER_SECONDS = 120.0  # the stock node starts a process, under its device's quota, to answer
LONGEST_PAUSE_SECONDS = 60.0
NEWCOMER_SECONDS = 1.0
"""In which a client that has just come says who it is, unless it is the stock node."""

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


@dataclass
class _Query:
    """When a node is asked again: a failure doubles the pause, and silence is given time."""

    again_at: float
    newcomer_until: float
    failures: int = 0


class Directory:
    """Names of the nodes, by node id, for one run's data set.

    `why(node_id, client)` is the reason why a node is gone, None where nobody knows it.
    """

    def __init__(
        self,
        grid: Exchange,
        data: str,
        say: Say,
        why: Why,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid = grid
        self._data = data
        self._say = say
        self._why = why
        self._clock = clock
        self._members: dict[int, Member | None] = {}
        self._queries: dict[int, _Query] = {}  # to nodes that have not said yet who they are

    @property
    def newcomers(self) -> bool:
        """Return whether a client has just come, and will have said in a moment who it is."""
        now = self._clock()
        return any(now < query.newcomer_until for query in self._queries.values())

    def connected(self) -> list[Member]:
        """Return the clients connected now that can take part, sorted by name; wait for nobody."""
        self._hear()
        nodes = self._grid.node_ids()
        self._queries = {node: query for node, query in self._queries.items() if node in nodes}
        self._ask([node for node in nodes if node not in self._members])
        # A client that restarted is a new node, and for a minute Flower believes that the old one
        # is there as well: the one that was identified last counts.
        latest = {m.client: m for node, m in self._members.items() if m and node in nodes}
        return sorted(latest.values(), key=lambda member: member.client)

    def member(self, node_id: int) -> Member:
        """Return the client behind a node that took part."""
        member = self._members.get(node_id)
        return member or Member(node_id, f"node-{node_id}", "unknown")

    def explained(self, node_id: int, reply: Message) -> Message:
        """Return the reply; one that stands for a node that is gone says why.

        Of one that died, or fell silent, the server knows why long before Flower misses it: of
        which it knows nothing has unregistered.
        """
        if not is_from_a_lost_node(reply):
            return reply
        known = self._why(node_id, self.member(node_id).client)
        if reason := known or (SIGNED_OFF if is_unexplained(reply) else None):
            reply.error = Error(code=reply.error.code, reason=reason)
        return reply

    def _ask(self, nodes: Sequence[int]) -> None:
        """Ask those of the nodes whose time it is; a query that is still open is replaced."""
        now = self._clock()
        due = [n for n in nodes if n not in self._queries or self._queries[n].again_at <= now]
        for node in due:
            query = self._queries.setdefault(node, _Query(now, now + NEWCOMER_SECONDS))
            query.again_at = now + ANSWER_SECONDS
        content = RecordDict({"config": ConfigRecord({"data": self._data})})
        self._grid.ask([Message(content, node, MessageType.QUERY) for node in due])

    def _hear(self) -> None:
        for node_id, reply in self._grid.answers():
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
                self._queries.pop(node_id, None)

    def _fail(self, node_id: int, reason: str) -> None:
        """Say once that a node cannot say who it is; it is asked again, ever more rarely."""
        now = self._clock()
        query = self._queries.setdefault(node_id, _Query(now, now))
        if not query.failures:
            self._say("unidentified", node=node_id, reason=reason)
        query.again_at = now + min(2.0**query.failures, LONGEST_PAUSE_SECONDS)
        query.newcomer_until = now
        query.failures += 1

    def _admit(self, node_id: int, identity: Identity) -> Member | None:
        if identity.samples < 1:
            self._say("left_out", client=identity.client, data=self._data)
            return None
        return Member(node_id, identity.client, identity.device, identity.samples)
