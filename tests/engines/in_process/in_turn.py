"""Run the in-process engine for some folders in turn: its imports take longest."""

import sys

from fedbench.engines.in_process import __main__ as engine

if __name__ == "__main__":
    engine.SAY_SECONDS = 0.5
    for folder in sys.argv[1:]:
        sys.argv[1:] = [folder]
        assert engine.main() == 0
