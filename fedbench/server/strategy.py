"""FedAvg over one flat array per model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedbench.flower import arrays
from fedbench.learning.flat import Flat, Running
from fedbench.server.averaging import Average, Momentum

ARRAYS = "arrays"
"""The record of a message that has the model; the name is Flower's."""
ARRAY = "weights"
SAMPLES = "num-examples"
"""By which an update is weighed; the name is Flower's."""
STALENESS_EXPONENT = 0.5


class Selection(NamedTuple):
    """Which clients are invited to a round, and how many updates it wants."""

    clients: list[str]
    wanted: int


def select(
    clients: Iterable[str],
    fraction: float,
    seed: int,
    server_round: int,
    *,
    over: float = 0.0,
    attempt: int = 0,
) -> Selection:
    """Sample max(C*K, 1) of K clients (McMahan et al. 2017, Algorithm 1).

    The same seed, round and names give the same clients, whatever the order in which they
    connected and whether the run was resumed in between; another `attempt` at the round gives
    others. Empty when there are no clients. Of those that are invited `over` the wanted number, as
    a share of it, nobody is preferred: they are in the order of the draw.
    """
    names = sorted(clients)
    if not names:
        return Selection([], 0)
    key = f"{seed}/{server_round}/{attempt}" if attempt else f"{seed}/{server_round}"
    chosen = random.Random(key)  # noqa: S311 (repeatable, not secret)
    wanted = wanted_of(len(names), fraction)
    invited = min(math.ceil(wanted * (1 + over)), len(names))
    drawn = chosen.sample(names, invited)
    return Selection(drawn if invited > wanted else sorted(drawn), wanted)


def wanted_of(clients: int, fraction: float) -> int:
    """Return how many of so many clients a round wants."""
    return max(int(fraction * clients), 1)


def staleness_weight(rounds: int) -> float:
    """Return by how much less an update counts that was asked for so many rounds ago.

    The polynomial weight of FedAsync, (1 + t)^-a with a = 0.5 (Xie et al. 2019, arXiv:1903.03934,
    section 5.2).
    """
    return float((1 + rounds) ** -STALENESS_EXPONENT)


class FlatFedAvg(FedAvg):
    """Flower's FedAvg with repeatable sampling and aggregation in one pass.

    `choose(round)` gives the node ids of a round. Weights are n_k/n: each client's number of
    training images over the sum of all that answered (McMahan et al. 2017, Algorithm 1).
    `pooled` and `momentum` are for other averages than the plain one. Of fewer than `minimum`
    updates there is no mean, and the server's momentum stays as it was.
    """

    def __init__(
        self,
        choose: Callable[[int], list[int]],
        pooled: Running | None = None,
        momentum: Momentum | None = None,
        minimum: int = 1,
    ) -> None:
        super().__init__()
        self._choose = choose
        self._minimum = minimum
        self._pooled = pooled
        self._momentum = momentum
        self._sent = ArrayRecord()

    @property
    def velocity(self) -> Flat | None:
        """The server's momentum, [P], where it has one: for the checkpoint."""
        return self._momentum.velocity if self._momentum else None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message to each chosen client, with the global model."""
        self._sent = arrays
        return self._messages(server_round, arrays, config, MessageType.TRAIN)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the clients that trained evaluate the new global model."""
        return self._messages(server_round, arrays, config, MessageType.EVALUATE)

    def _messages(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, kind: str
    ) -> Iterable[Message]:
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return self._construct_messages(record, self._choose(server_round), kind)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the weighted mean; `replies` is read once: one model is held beside the sum."""
        average = Average(self._pooled)
        for reply in replies:
            samples = float(reply.content["metrics"][self.weighted_by_key])
            average.add(arrays.read(reply.content[self.arrayrecord_key][ARRAY]), samples)
        mean = average.result()
        if mean is None or average.models < self._minimum:
            return None, None
        if self._momentum:
            mean = self._momentum.step(self._sent[ARRAY].numpy(), mean)
        return ArrayRecord({ARRAY: Array(mean)}), None

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return None: the round's record has the means, whatever each kind of node sends.

        Flower's own refuses replies whose figures differ, such as those of a stock node among
        others.
        """
        return None
