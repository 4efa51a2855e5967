"""Who a client is and where its server is: from the environment.

The plan or `fedbench join` writes FEDBENCH_CLIENT, FEDBENCH_DEVICE, FEDBENCH_SERVER (host:port),
FEDBENCH_NODE (fedbench or stock), FEDBENCH_METRICS_PORT (what the server's Prometheus reaches this
client on), FEDBENCH_THREADS (as many as the device needs) and FEDBENCH_LIMITED (set where the plan
has a CPU quota: a client starts without it, and takes part with it or not at all). For its metrics
(telemetry/emulated_device.py), it writes FEDBENCH_DILATION (wall seconds per emulated second) and,
where the device's profile has them, FEDBENCH_WATTS (idle,load: the client's part of them).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

METRICS_PORT = 9101


@dataclass(frozen=True)
class Settings:
    """One start of a client; `ready` is there from its announcement to its goodbye."""

    client: str
    device: str
    server: str
    stock: bool = False
    metrics_port: int = METRICS_PORT
    threads: int | None = None
    limited: bool = False
    # Whoever knows it speaks for this start of the client.
    instance: str = field(default_factory=lambda: os.urandom(16).hex())
    certificate: Path = Path("/tls/ca.pem")
    data: Path = Path("/data")
    ready: Path = Path("/tmp/ready")  # noqa: S108 (a tmpfs of this container's own)
    listen_port: int = METRICS_PORT

    @classmethod
    def from_environment(cls) -> Settings:
        """Read FEDBENCH_*, for a new instance."""
        env = os.environ
        return cls(
            client=env["FEDBENCH_CLIENT"],
            device=env["FEDBENCH_DEVICE"],
            server=env["FEDBENCH_SERVER"],
            stock=env.get("FEDBENCH_NODE") == "stock",
            metrics_port=int(env.get("FEDBENCH_METRICS_PORT", METRICS_PORT)),
            threads=int(env["FEDBENCH_THREADS"]) if "FEDBENCH_THREADS" in env else None,
            limited="FEDBENCH_LIMITED" in env,
        )

    def node_config(self) -> dict[str, str]:
        """Return what the ClientApp finds in `context.node_config`."""
        return {"client": self.client, "device": self.device, "data": str(self.data)}
