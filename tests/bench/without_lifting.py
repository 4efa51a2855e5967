"""`fedbench`, but clients start under their CPU quotas: the peer of the part `start`."""

from __future__ import annotations

from fedbench.cli import main
from fedbench.engines.containers import startup

if __name__ == "__main__":
    startup.lift_quotas = lambda *_: None
    main()
