"""`python -m fedbench.engines.in_process runs/<id>`: executes a run that the host has prepared.

`run.json` names its clients: for each the device and the folder of its data.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from time import monotonic

import torch

from fedbench.config import Experiment
from fedbench.engines.in_process.grid import MemoryGrid
from fedbench.engines.in_process.workers import Client, Workers, worker_count
from fedbench.records.facts import InProcessFacts, RunFacts
from fedbench.records.files import read_record
from fedbench.server import run
from fedbench.server.checkpoint import RunFolder
from fedbench.server.directory import Say
from fedbench.telemetry import logs

SAY_SECONDS = 10.0
_FEW = 0.01  # of all images: the first include the start of every process
_RARELY = 0.02  # of the time that went by: a run of days is told of in hundreds of lines


def main() -> int:
    """Run the command; return 0 if the run ended in order, be it that it was asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m fedbench.engines.in_process", description=__doc__
    )
    parser.add_argument("folder", type=Path)
    folder = RunFolder(parser.parse_args().folder)
    logs.configure(service="engine")
    facts = RunFacts.read(folder.path)
    lock = (folder.path / "engine.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two would write into each other's records
    workers = _workers(facts)
    with lock, closing(workers):
        say = partial(run.note, folder)
        progress = ProgressTeller(workers, say, _samples(folder, facts))
        grid = MemoryGrid(workers, folder.stop_requested, progress)
        run.execute(grid, folder, say, lambda _node, _client: None)
    return 0


class ProgressTeller:
    """Says now and then how many images were trained since it was made, of how many.

    `seconds_left` takes the rest to be as slow, evaluations included; None at the beginning.
    """

    def __init__(self, workers: Workers, say: Say, total: int) -> None:
        self._workers = workers
        self._say = say
        self._total = total
        self._start = monotonic()
        self._next = SAY_SECONDS

    def __call__(self) -> None:
        """Say it if it is due."""
        seconds = monotonic() - self._start
        if seconds < self._next or not (done := self._workers.trained()):
            return
        self._next = seconds + max(SAY_SECONDS, _RARELY * seconds)
        left = max(seconds * (self._total / done - 1), 0.0) if done > _FEW * self._total else None
        self._say("progress", images=done, of=self._total, seconds_left=left)


def _samples(folder: RunFolder, facts: RunFacts) -> int:
    """Return how many images the rounds to come train, each as often as it is."""
    engine = facts.engine or InProcessFacts()
    experiment = read_record(folder.path / "experiment.json", Experiment)
    rounds = experiment.rounds - folder.last_round()
    return int(rounds * experiment.local_epochs * engine.samples * experiment.fraction)


def _workers(facts: RunFacts) -> Workers:
    engine = facts.engine or InProcessFacts()
    clients = [Client(**dict(client)) for client in engine.clients]
    cores = len(os.sched_getaffinity(0))
    count = engine.workers
    if count is None:
        count = worker_count(len(clients), cores, gpu=torch.cuda.is_available())
    return Workers(dict(enumerate(clients, 1)), count, max(1, cores // max(count, 1)))


if __name__ == "__main__":
    sys.exit(main())
