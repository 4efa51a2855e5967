"""Who is in the federation, as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fedbench.server.registry import Registry
from fedbench.telemetry.families import family, single


class Census(Collector):
    """Asks the registry when Prometheus asks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Those that are here, and those that left or were lost."""
        present: dict[tuple[str, ...], float] = {
            (one.client, one.device): one.here for one in self._registry.presence()
        }
        yield family("fedbench_client_present", present)
        yield single("fedbench_client_joined_total", self._registry.joined)
        lost: dict[tuple[str, ...], float] = {
            (client,): times for client, times in self._registry.lost().items()
        }
        yield family("fedbench_client_lost_total", lost)
