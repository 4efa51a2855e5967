"""What a client tells of its work is counted alike, with Prometheus and without."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from fedbench.telemetry.cgroup import Cgroup
from fedbench.telemetry.client import ClientMetrics
from fedbench.telemetry.work import EpochSamples, WorkCounter, WorkObserver

NO_PROMETHEUS = """
import sys
import fedbench.engines.in_process.__main__
print(*sorted(name for name in sys.modules if name.startswith("prometheus_client")))
"""


def two_epochs(observer: WorkObserver, samples: int) -> None:
    """Tell of two epochs in batches of 32, and of all that is not counted."""
    observer.partition(samples)
    with observer.phase("training"):
        for epoch in (1, 2):
            for done in (*range(32, samples, 32), samples):
                observer.progress(
                    run="r", round_number=1, epoch=epoch, epochs=2, samples=done, seconds=1.0
                )
                observer.late("r", 0.0)
            observer.epoch_finished(
                run="r", round_number=1, seconds=2.0, loss=1.0, accuracy=0.5, samples=samples
            )
    observer.evaluated(run="r", round_number=1, seconds=1.0, loss=1.0, accuracy=0.5)
    observer.transferred(sent=10, received=20, seconds=0.1, model=True)
    observer.error()


@pytest.mark.parametrize("samples", [20, 32, 80])
def test_each_sample_counts_once_whoever_listens(samples: int) -> None:
    registry, counter = CollectorRegistry(), WorkCounter()
    two_epochs(ClientMetrics(registry, Cgroup()), samples)
    two_epochs(counter, samples)

    assert counter.trained_samples == 2 * samples
    assert registry.get_sample_value("fedbench_trained_samples_total") == 2 * samples


def test_an_epoch_that_was_broken_off_counts_as_far_as_it_came() -> None:
    epoch = EpochSamples()

    assert [epoch.more(samples) for samples in (32, 64, 32, 48)] == [32, 32, 32, 16]


def test_the_engine_in_one_program_does_without_prometheus_client() -> None:
    """Its workers import what it imports: nothing of theirs comes later."""
    done = subprocess.run(
        [sys.executable, "-c", NO_PROMETHEUS], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""
