"""A small client of Prometheus' HTTP API, for the live views and the tests.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

from fedbench.errors import HostError

_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Sample:
    """One time series of a query's answer and its value now."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Series:
    """One time series of a query's answer: pairs of Unix time and value, the oldest first."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Target:
    """Something that Prometheus scrapes. `client` and `device` are empty for the server."""

    job: str
    client: str
    device: str
    health: str  # up, down, or unknown before the first scrape
    error: str


class Prometheus:
    """The Prometheus at `url`, for example `http://127.0.0.1:9090`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        # It runs on this machine: a proxy from the environment cannot reach it.
        self._session.trust_env = False

    def ready(self) -> bool:
        """Whether it has started and answers queries."""
        try:
            return self._session.get(f"{self.url}/-/ready", timeout=_TIMEOUT_SECONDS).ok
        except requests.RequestException:
            return False

    def query(self, expression: str) -> list[Sample]:
        """Evaluate PromQL now; an instant vector in the order given, a scalar without labels.

        Raises:
            HostError: Prometheus does not answer, or refuses the expression.
        """
        data = self._get("query", query=expression)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(item["metric"], float(item["value"][1])) for item in data["result"]]

    def query_range(self, expression: str, seconds: int, step: int) -> list[Series]:
        """Evaluate PromQL every `step` seconds of the last `seconds`.

        As a subquery: the last seconds are those of Prometheus' own clock, which on another machine
        need not agree with the one here.

        Raises:
            HostError: Prometheus does not answer, or refuses the expression.
        """
        data = self._get("query", query=f"({expression})[{seconds}s:{step}s]")
        return [
            Series(item["metric"], [(float(time), float(value)) for time, value in item["values"]])
            for item in data["result"]
        ]

    def recording_rules(self) -> set[str]:
        """The names of the series that it records by rules of its own.

        Raises:
            HostError: Prometheus does not answer.
        """
        groups = self._get("rules", type="record")["groups"]
        return {rule["name"] for group in groups for rule in group["rules"]}

    def targets(self) -> list[Target]:
        """List what is scraped now, sorted by job and client.

        Raises:
            HostError: Prometheus does not answer.
        """
        targets = [
            Target(
                job=item["labels"]["job"],
                client=item["labels"].get("client", ""),
                device=item["labels"].get("device", ""),
                health=item["health"],
                error=item["lastError"],
            )
            for item in self._get("targets", state="active")["activeTargets"]
        ]
        return sorted(targets, key=lambda target: (target.job, target.client))

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{path}"
        try:
            response = self._session.get(url, params=parameters, timeout=_TIMEOUT_SECONDS)
            answer = response.json()
        except requests.RequestException as error:
            raise HostError(
                f"Prometheus does not answer at {self.url}: {error}",
                "see whether it runs: fedbench status, fedbench logs prometheus",
            ) from None
        if answer["status"] != "success":
            raise HostError(f"Prometheus refuses {parameters}: {answer['error']}")
        data: dict[str, Any] = answer["data"]
        return data
