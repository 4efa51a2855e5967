"""One run, from its folder to its result, over any kind of Grid.

The host writes `runs/<id>/experiment.json` and `run.json`; everything else in the folder is written
here.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from torch import nn

from fedbench.config import Experiment
from fedbench.errors import DamagedFileError
from fedbench.learning import flat, models
from fedbench.records.facts import RunFacts
from fedbench.records.files import (
    describe_full_disk,
    is_disk_full,
    read_record,
    replace_bytes,
)
from fedbench.records.summary import ENDINGS, write_summary
from fedbench.server.averaging import Momentum
from fedbench.server.checkpoint import RunFolder
from fedbench.server.directory import Directory, Say, Why
from fedbench.server.exchange import Exchange, RunStopped
from fedbench.server.rounds import Rounds, TooFewTrainedError
from fedbench.server.strategy import ARRAY, FlatFedAvg, wanted_of
from fedbench.telemetry import logs

log = logging.getLogger("fedbench.server")
_LEVELS = {
    "error": logging.ERROR,
    **dict.fromkeys(
        ("failed", "nobody", "left_out", "unidentified", "repaired", "below_minimum"),
        logging.WARNING,
    ),
}


def execute(grid: Exchange, folder: RunFolder, say: Say, why: Why) -> None:
    """Run the experiment of `folder`, and say how it ended."""
    with logs.about(run=folder.path.name):
        _execute(grid, folder, say, why)


def _execute(grid: Exchange, folder: RunFolder, say: Say, why: Why) -> None:
    try:
        with folder.spare_room():
            _run(grid, folder, say, why)
    except RunStopped:
        say("stopped")
    except Exception as error:
        say("error", reason=_reason(error, folder))
        raise
    else:
        say("finished")


def _reason(error: Exception, folder: RunFolder) -> str:
    if is_disk_full(error):
        return f"{describe_full_disk(folder.path)}; with room again, RESUME goes on"
    if isinstance(error, DamagedFileError):
        return error.message
    if isinstance(error, TooFewTrainedError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def note(folder: RunFolder, event: str, **facts: Any) -> None:
    """Write an event for whoever watches the folder; with the last one, the run's summary."""
    # The record itself is a line of rounds.jsonl already.
    told = {key: value for key, value in facts.items() if key != "record"}
    folder.event(event, **told)
    # So is the experiment a file, and the round is in every line of the log.
    words = [f"{key}={_short(told[key])}" for key in told if key not in ("experiment", "round")]
    log.log(_LEVELS.get(event, logging.INFO), "%s", " ".join([event, *words]))
    if event in ENDINGS:
        write_summary(folder.path)


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _run(grid: Exchange, folder: RunFolder, say: Say, why: Why) -> None:
    experiment = read_record(folder.path / "experiment.json", Experiment)
    facts = RunFacts.read(folder.path)
    _require_enough(experiment, facts)
    directory = Directory(grid, facts.data, say, why)
    rounds = Rounds(experiment, facts, grid, directory, say)
    model = models.build(experiment.model, facts.classes, experiment.seed)

    resumed = folder.resume(lambda reason: say("repaired", reason=reason))
    first = _first(folder, experiment, model)
    if experiment.noop_megabytes is not None:
        first = np.resize(first, int(experiment.noop_megabytes * 1e6 / first.itemsize))
    last, weights, velocity = 0, first, None
    if resumed:
        last, weights, velocity = resumed.round, resumed.weights, resumed.velocity
    strategy = _strategy(experiment, rounds, model, velocity)
    arrays = ArrayRecord({ARRAY: Array(weights)})
    say(
        "started",
        after_round=last,
        experiment=experiment.model_dump(mode="json"),
        data=facts.data,
        profile=facts.profile,
    )
    for number in range(last + 1, experiment.rounds + 1):
        with logs.about(round=number):
            try:
                arrays, record = rounds.run(strategy, number, arrays)
            except TooFewTrainedError as error:
                folder.add_failed_round(error.record)
                say(
                    "recorded",
                    round=number,
                    rounds=experiment.rounds,
                    record=error.record.model_dump(),
                )
                raise
            weights = arrays[ARRAY].numpy()
            folder.add_round(record, weights, strategy.velocity)
            say("recorded", round=number, rounds=experiment.rounds, record=record.model_dump())
    if experiment.noop_megabytes is None:
        replace_bytes(folder.path / "model.safetensors", flat.dump(weights, model))


def _require_enough(experiment: Experiment, facts: RunFacts) -> None:
    """Raise ValueError if no round could have its minimum of clients."""
    wanted = wanted_of(facts.clients, experiment.fraction)
    if experiment.min_clients > wanted:
        raise ValueError(
            f"min_clients: {experiment.min_clients}, but a round of this run's {facts.clients} "
            f"clients wants {wanted}"
        )


def _first(folder: RunFolder, experiment: Experiment, model: nn.Module) -> flat.Flat:
    """Return what the first round begins with: drawn from the seed, or from a file."""
    # The host copies the file that `initial_weights` names into the folder.
    initial = folder.path / "initial.safetensors"
    if not initial.exists():
        return flat.to_flat(model)
    try:
        return flat.load(initial, model)
    except ValueError as error:
        raise ValueError(
            f"initial_weights: {experiment.initial_weights} is not of {experiment.model}: {error}"
        ) from None


def _strategy(
    experiment: Experiment, rounds: Rounds, model: nn.Module, velocity: flat.Flat | None
) -> FlatFedAvg:
    if experiment.task == "noop":  # whose weights are no model's
        return FlatFedAvg(rounds.choose, minimum=experiment.min_clients)
    running, beta = flat.running(model), experiment.server_momentum
    momentum = Momentum(beta, running, velocity) if beta else None
    pooled = running if experiment.batch_norm == "pooled" else None
    return FlatFedAvg(rounds.choose, pooled, momentum, experiment.min_clients)
