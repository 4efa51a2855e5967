"""The ServerApp: one run, from its folder to its result.

The host writes `runs/<id>/experiment.json` and `run.json` (the clients that the profile has and
the key of their data); everything else in the folder is written here.
"""

from __future__ import annotations

import json
import logging
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from torch import nn

from fedbench.config import Experiment
from fedbench.emulation import Emulation
from fedbench.learning import flat, models
from fedbench.records import write_summary
from fedbench.server.averaging import Momentum
from fedbench.server.checkpoint import RunFolder
from fedbench.server.directory import Directory, Say, Why
from fedbench.server.grid import PromptGrid, RunStopped
from fedbench.server.rounds import Rounds
from fedbench.server.strategy import ARRAY, FlatFedAvg

log = logging.getLogger("fedbench.server")
app = ServerApp()

_WATCHED_ONLY = (
    "trained",
    "evaluated",
    "failed",
    "not_held",
)  # the round's record has it for the metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the experiment of `folder`, and says in its events how it ended."""
    folder = RunFolder(Path(str(context.run_config["folder"])))
    # One client for all events: making one takes 20 ms, of which a round has eight.
    operations = httpx.Client(base_url=str(context.run_config["operations"]))
    prompt = PromptGrid(grid, folder.stop_requested)
    with operations, closing(prompt):
        say = partial(_tell, folder, operations)
        try:
            _run(prompt, folder, say, partial(_why, operations))
        except RunStopped:
            say("stopped")
        except Exception as error:
            say("error", reason=f"{type(error).__name__}: {error}")
            raise
        else:
            say("finished")


def _run(prompt: PromptGrid, folder: RunFolder, say: Say, why: Why) -> None:
    experiment = Experiment.model_validate_json((folder.path / "experiment.json").read_bytes())
    facts: dict[str, Any] = json.loads((folder.path / "run.json").read_bytes())
    directory = Directory(prompt, facts["data"], say, why)
    rounds = Rounds(experiment, facts["clients"], prompt, directory, say, Emulation.of(facts))
    model = models.build(experiment.model, facts["classes"], experiment.seed)

    resumed = folder.resume()
    # The host copies the file that `initial_weights` names into the folder.
    initial = folder.path / "initial.safetensors"
    first = flat.load(initial, model) if initial.exists() else flat.to_flat(model)
    if experiment.noop_megabytes is not None:
        first = np.resize(first, int(experiment.noop_megabytes * 1e6 / first.itemsize))
    last, weights = resumed or (0, first)
    strategy = _strategy(experiment, rounds, model, folder)
    arrays = ArrayRecord({ARRAY: Array(weights)})
    say(
        "started",
        after_round=last,
        experiment=experiment.model_dump(mode="json"),
        data=facts["data"],
    )
    for number in range(last + 1, experiment.rounds + 1):
        config = _config(experiment, facts)
        arrays, record = rounds.run(strategy, number, arrays, config)
        weights = arrays[ARRAY].numpy()
        folder.add_round(record, weights, strategy.velocity)
        say("recorded", round=number, rounds=experiment.rounds, record=record.model_dump())
    if experiment.noop_megabytes is None:
        flat.save(folder.path / "model.safetensors", weights, model)


def _strategy(
    experiment: Experiment, rounds: Rounds, model: nn.Module, folder: RunFolder
) -> FlatFedAvg:
    if experiment.task == "noop":  # whose weights are no model's
        return FlatFedAvg(rounds.choose)
    running, beta = flat.running(model), experiment.server_momentum
    momentum = Momentum(beta, running, folder.velocity()) if beta else None
    pooled = running if experiment.batch_norm == "pooled" else None
    return FlatFedAvg(rounds.choose, pooled, momentum)


def _config(experiment: Experiment, facts: dict[str, Any]) -> ConfigRecord:
    return ConfigRecord(
        {
            "run": facts["run"],
            "task": experiment.task,
            "model": experiment.model,
            "classes": facts["classes"],
            "data": facts["data"],
            "local-epochs": experiment.local_epochs,
            "local-seconds": experiment.local_seconds,
            "batch-size": experiment.batch_size,
            "learning-rate": experiment.learning_rate,
            "rounds": experiment.rounds,
            "optimizer": experiment.optimizer,
            "weight-decay": experiment.weight_decay,
            "schedule": experiment.schedule,
            "augmentation": experiment.augmentation,
            "label-smoothing": experiment.label_smoothing,
            "stem-stride": experiment.stem_stride,
            "precision": experiment.precision,
            "seed": experiment.seed,
            # Of every client: each finds its own.
            "pace": json.dumps(facts.get("emulation", {}).get("pace", {})),
        }
    )


def _tell(folder: RunFolder, operations: httpx.Client, event: str, **facts: Any) -> None:
    """Writes the event for whoever watches the folder, and hands it to the metrics."""
    # The record itself is a line of rounds.jsonl already.
    folder.event(event, **{key: value for key, value in facts.items() if key != "record"})
    if event in ("finished", "stopped", "error"):
        write_summary(folder.path)
    if event in _WATCHED_ONLY:
        return
    body = {"run": folder.path.name, "event": event} | facts
    # Metrics are for looking: a run does not fail because of them. Nor because of a loss that is
    # not a number, which httpx' own JSON refuses.
    try:
        operations.post("/events", content=json.dumps(body)).raise_for_status()
    except httpx.HTTPError as error:
        log.warning("%s is not in the metrics: %s", event, error)


def _why(operations: httpx.Client, node_id: int, client: str) -> str | None:
    """What the server was told of a node that is gone."""
    try:
        answer = operations.get(f"/lost/{node_id}/{client}").raise_for_status()
    except httpx.HTTPError as error:
        log.warning("%s is gone, and nobody says why: %s", client, error)
        return None
    return cast("str | None", answer.json()["reason"])
