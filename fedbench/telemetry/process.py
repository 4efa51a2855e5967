"""The process that trains, as psutil sees it."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.telemetry.families import single


class ProcessCollector(Collector):
    """Reads this process when Prometheus asks."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """Read its files in /proc."""
        yield single("fedbench_process_resident_bytes", self._process.memory_info().rss)
        yield single("fedbench_process_threads", self._process.num_threads())
