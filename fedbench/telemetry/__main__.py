"""`python -m fedbench.telemetry` prints METRICS.md."""

import sys

from fedbench.telemetry.metrics_page import render

if __name__ == "__main__":
    sys.stdout.write(render())
