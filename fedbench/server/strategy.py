"""FedAvg over one flat array per model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
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

ARRAY = "weights"


class FlatFedAvg(FedAvg):
    """Flower's FedAvg with repeatable sampling and aggregation in one pass.

    `choose(round)` gives the node ids of a round. Weights are n_k/n: each client's number of
    training images over the sum of all that answered (McMahan et al. 2017, Algorithm 1).
    """

    def __init__(self, choose: Callable[[int], list[int]]) -> None:
        super().__init__()
        self._choose = choose

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message to each chosen client, with the global model."""
        return self._messages(server_round, arrays, config, MessageType.TRAIN)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The clients that trained evaluate the new global model."""
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
        """The weighted mean; `replies` is read once, so that one model is held beside the sum."""
        total: np.ndarray | None = None
        images = 0
        for reply in replies:
            samples = int(reply.content["metrics"][self.weighted_by_key])
            weighted = reply.content[self.arrayrecord_key][ARRAY].numpy() * np.float32(samples)
            total = weighted if total is None else np.add(total, weighted, out=total)
            images += samples
        if total is None:
            return None, None
        return ArrayRecord({ARRAY: Array(total / np.float32(images))}), None

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """None: the round's record has the means, whatever figures each kind of node sends.

        Flower's own refuses replies whose figures differ, such as those of a stock node among
        others.
        """
        return None
