"""A small client of Prometheus' HTTP API, for the live views and the tests.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests
from requests import exceptions

from fedbench.errors import HostError

_TIMEOUT_SECONDS = 5
# It is published to the localhost of its own computer only.
TUNNEL = "ssh -N -L 9090:localhost:9090 host, then http://localhost:9090"


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
    """The Prometheus at `url`, for example `http://127.0.0.1:9090`.

    Every question also raises HostError if something else answers there.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        # It runs on this machine: a proxy from the environment cannot reach it.
        self._session.trust_env = False

    def ready(self) -> bool:
        """Say whether it has started and answers queries."""
        try:
            return self._session.get(f"{self.url}/-/ready", timeout=_TIMEOUT_SECONDS).ok
        except requests.RequestException:
            return False

    def query(self, expression: str) -> list[Sample]:
        """Evaluate PromQL now; an instant vector in the order given, a scalar without labels.

        Raises:
            HostError: Prometheus does not answer, or refuses the expression.
        """
        data = self._get("query", "result", query=expression)
        if data.get("resultType") == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(item["metric"], float(item["value"][1])) for item in data["result"]]

    def query_range(self, expression: str, seconds: int, step: int) -> list[Series]:
        """Evaluate PromQL every `step` seconds of the last `seconds`.

        It is a subquery, since the clock of Prometheus' machine need not agree with the one here.

        Raises:
            HostError: Prometheus does not answer, or refuses the expression.
        """
        data = self._get("query", "result", query=f"({expression})[{seconds}s:{step}s]")
        return [
            Series(item["metric"], [(float(time), float(value)) for time, value in item["values"]])
            for item in data["result"]
        ]

    def recording_rules(self) -> set[str]:
        """List the names of the series that it records by rules of its own.

        Raises:
            HostError: Prometheus does not answer.
        """
        groups = self._get("rules", "groups", type="record")["groups"]
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
            for item in self._get("targets", "activeTargets", state="active")["activeTargets"]
        ]
        return sorted(targets, key=lambda target: (target.job, target.client))

    def _get(self, path: str, holds: str, **parameters: str) -> dict[str, Any]:
        """Return the data of an answer. It has to hold the key `holds`."""
        response = self._response(path, parameters)
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            answer = None
        match answer:
            case {"status": "success", "data": dict(data)} if holds in data:
                return data
            case {"status": "error", "error": reason}:
                raise HostError(f"Prometheus refuses {parameters}: {reason}")
        what = f"{response.status_code} {response.reason}"
        if answer is None and response.status_code == requests.codes.unavailable:
            raise HostError(
                f"Prometheus does not answer at {self.url}: {what}", "it may be starting"
            )
        kind = response.headers.get("Content-Type", "of unknown type")
        raise HostError(
            f"what answers at {self.url} is no Prometheus: {what}, {kind}, from {response.url}",
            "`fedbench status` says where a federation's is, on the computer that it runs on",
        )

    def _response(self, path: str, parameters: dict[str, str]) -> requests.Response:
        url = f"{self.url}/api/v1/{path}"
        try:
            return self._session.get(url, params=parameters, timeout=_TIMEOUT_SECONDS)
        except (exceptions.MissingSchema, exceptions.InvalidSchema, exceptions.InvalidURL):
            raise HostError(
                f"{self.url} is no URL of a Prometheus", "expected http://host:port"
            ) from None
        except exceptions.SSLError as error:
            raise HostError(
                f"no secure connection to {self.url}: {error}",
                f"a tunnel needs none: {TUNNEL}",
            ) from None
        except requests.RequestException as error:
            raise HostError(
                f"Prometheus does not answer at {self.url}: {error}",
                "see whether it runs: fedbench status, fedbench logs prometheus",
            ) from None
