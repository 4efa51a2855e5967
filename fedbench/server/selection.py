"""Which clients take part in a round: FedAvg's random set of max(C*K, 1) clients."""

from __future__ import annotations

import random
from collections.abc import Iterable


def select(clients: Iterable[str], fraction: float, seed: int, server_round: int) -> list[str]:
    """Sample max(C*K, 1) of K clients (McMahan et al. 2017, Algorithm 1).

    The same seed, round and names give the same clients, whatever the order in which they
    connected and whether the run was resumed in between. Empty when there are no clients.
    """
    names = sorted(clients)
    if not names:
        return []
    chosen = random.Random(f"{seed}/{server_round}")  # noqa: S311 (repeatable, not secret)
    return sorted(chosen.sample(names, max(int(fraction * len(names)), 1)))
