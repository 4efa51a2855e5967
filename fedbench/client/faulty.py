"""A client that misbehaves when it is told to: `python -m fedbench.client.faulty`.

For `fedbench chaos`, whose compose file alone has this command. It is an ordinary client, in an
ordinary client's container, until its file says what to do wrong (`fedbench.wire`): one word of
`Misbehaviour`, and how many seconds it is `late`.
"""

from __future__ import annotations

import sys

from fedbench.client.settings import Settings
from fedbench.client.supervisor import Supervisor
from fedbench.telemetry import logs
from fedbench.telemetry.cgroup import Cgroup


def work(settings: Settings) -> int:
    """Run the worker with a node that misbehaves in the place of the honest one."""
    from fedbench.client import node, worker
    from fedbench.client.misbehaving import MisbehavingNode

    vars(node)["Node"] = MisbehavingNode  # the worker takes its node from there, and knows no other
    return worker.work(settings)


if __name__ == "__main__":
    who = Settings.from_environment()
    logs.configure(client=who.client, device=who.device)
    sys.exit(Supervisor(work, Settings.from_environment, Cgroup()).run())
