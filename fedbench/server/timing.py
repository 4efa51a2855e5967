"""Where the server's time goes within a round."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

from flwr.app import Message

# Packing and sending messages, receiving and unpacking replies.
ServerPart = Literal["pack", "send", "receive", "unpack"]


class Stopwatch:
    """An iterator that knows how long its consumer took between items."""

    def __init__(self, items: Iterator[Message]) -> None:
        self._items = items
        self._waited = 0.0
        self._start = time.monotonic()
        self._before_last = 0.0

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        began = time.monotonic()
        try:
            item = next(self._items)
        finally:
            self._waited += time.monotonic() - began
        self._before_last = self.consumer_seconds()
        return item

    def consumer_seconds(self) -> float:
        """Seconds since the start that were not spent waiting for items."""
        return time.monotonic() - self._start - self._waited

    def last_seconds(self) -> float:
        """Those since the last item came: by then nobody works beside the consumer."""
        return self.consumer_seconds() - self._before_last
