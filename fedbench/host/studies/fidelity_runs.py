"""Measures a profile's fidelity on a federation that is up: one run after the other.

Runs are of all devices at once, of each alone, and of models that no device profile has a speed
of. Epoch seconds of these are predicted from how fast the host itself trains them. A client does
in these runs what it does in any run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

from fedbench.config import Experiment, ModelName, load_experiment
from fedbench.config.units import EPOCH_IMAGES
from fedbench.engines.containers.emulation import speeds_for
from fedbench.engines.containers.engine import ContainersEngine
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.engines.containers.runtime.stack import Stack
from fedbench.engines.containers.runtime.workbench import workbench
from fedbench.errors import RunError
from fedbench.host.plan.plan import ClientPlan
from fedbench.host.say import Say
from fedbench.host.speed.calibration import ENOUGH, REFERENCE, ratio
from fedbench.host.studies import fidelity
from fedbench.host.studies.fidelity import Fidelity, FidelityRow
from fedbench.records import ClientRound
from fedbench.records.clock import EmulatedSeconds

KNOWN: ModelName = REFERENCE
HELD_OUT: tuple[ModelName, ...] = ("mobilenet_v1", "mobilenet_v3_small", "mobilenet_v3_large")
EPOCHS, SHORT_EPOCHS = 6, 5  # of the slowest device, after those in which quotas settle
SHORT_PART = 5  # `short` trains a fifth of the images: whole batches


class FidelityRuns:
    """Runs on one stack that measure its fidelity; `short` measures less, with shorter epochs."""

    def __init__(
        self, stack: Stack, containers: Containers, say: Say, *, short: bool = False
    ) -> None:
        self._stack = stack
        self._containers = containers
        self._say = say
        self._short = short
        self._settling = fidelity.SHORT_SETTLING_SECONDS if short else fidelity.SETTLING_SECONDS
        self._speeds = speeds_for(stack, containers, say, KNOWN)
        self._engine = ContainersEngine(stack, containers, say)
        self._runs: list[str] = []
        self._not_held: list[str] = []

    def measure(self) -> Fidelity:
        """Measure all that the profile can be measured for.

        Raises:
            RunError: a run failed, or a client did not answer.
            RunInterrupted: the user pressed Ctrl-C.
        """
        single = [plan for plan in self._stack.clients if plan.group is None]
        devices = self._devices(single) if single else []
        return Fidelity(
            profile=self._stack.profile.name,
            dilation=self._stack.dilation,
            devices=tuple(devices),
            ratios=tuple(fidelity.ratios(devices)),
            interference=tuple(self._interference(devices)) if len(devices) > 1 else (),
            held_out=tuple(self._held_out(devices)) if devices else (),
            sharing=tuple(self._sharing()),
            not_held=tuple(self._not_held),
            runs=tuple(self._runs),
        )

    def _devices(self, clients: Sequence[ClientPlan]) -> list[FidelityRow]:
        together = self._train(KNOWN, [plan.name for plan in clients], "all devices together")
        return [
            fidelity.row(name, self._target(name), seconds) for name, seconds in together.items()
        ]

    def _interference(self, together: Sequence[FidelityRow]) -> list[FidelityRow]:
        by_speed = sorted(together, key=lambda row: row.target)
        chosen = [by_speed[0], by_speed[-1]] if self._short else by_speed
        alone = {
            row.name: self._train(KNOWN, [row.name], f"{row.name} alone")[row.name]
            for row in chosen
        }
        return fidelity.interference(alone, together)

    def _held_out(self, devices: Sequence[FidelityRow]) -> list[FidelityRow]:
        models = HELD_OUT[1:2] if self._short else HELD_OUT
        faster = self._ratios(models)
        rows = []
        for model in models:
            by_client = self._train(model, [row.name for row in devices], f"{model}, held out")
            for name, seconds in by_client.items():
                predicted = self._target(name) / faster[model]
                rows.append(fidelity.row(f"{name}, {model}", predicted, seconds))
        return rows

    def _sharing(self) -> list[FidelityRow]:
        """Measure computers with several clients: one of them training, two, and so on."""
        rows = []
        for group in sorted({plan.group for plan in self._stack.clients if plan.group}):
            names = [plan.name for plan in self._stack.clients if plan.group == group]
            steps = [self._shared(group, names[:count]) for count in range(1, len(names) + 1)]
            rows += steps + fidelity.slowdowns(steps)
        return rows

    def _shared(self, group: str, names: Sequence[str]) -> FidelityRow:
        by_client = self._train(KNOWN, names, f"{len(names)} clients on {group}")
        together = list(chain.from_iterable(by_client.values()))
        target = self._target(names[0], len(names))
        return fidelity.row(f"{group}, clients: {len(names)}", target, together)

    def _target(self, client: str, clients: int = 1) -> EmulatedSeconds:
        """Return seconds of an epoch on the real device, while so many clients train on it."""
        plan = next(plan for plan in self._stack.clients if plan.name == client)
        return EmulatedSeconds(EPOCH_IMAGES / self._speeds[plan.device].of_each(clients))

    def _computer(self, client: str) -> str:
        return next(plan.computer for plan in self._stack.clients if plan.name == client)

    def _train(self, model: ModelName, names: Sequence[str], what: str) -> dict[str, list[float]]:
        """Make one run, and return emulated seconds of the epochs of each client."""
        computers = Counter(self._computer(name) for name in names)
        slowest = self._stack.dilation.wall(
            max(self._target(name, computers[self._computer(name)]) for name in names)
        )
        experiment = load_experiment("fidelity", [f"model={model}"])
        samples = experiment.data.train_samples or EPOCH_IMAGES
        samples = samples // SHORT_PART if self._short else samples
        epochs = SHORT_EPOCHS if self._short else EPOCHS
        seconds = self._settling + epochs * slowest * samples / EPOCH_IMAGES
        self._say(f"{what}: {seconds:.0f} s")
        chosen = experiment.model_copy(
            update={
                "clients": tuple(names),
                "local_seconds": seconds,
                "data": experiment.data.model_copy(update={"train_samples": samples}),
            }
        )
        dilation = self._stack.dilation
        return {c.client: fidelity.epochs(c, dilation, self._settling) for c in self._run(chosen)}

    def _run(self, experiment: Experiment) -> list[ClientRound]:
        with self._engine.alone():
            run = self._engine.create(experiment, None)
            self._engine.start(run)
        summary = self._engine.follow(run, lambda: None)
        self._runs.append(run.id)
        clients = summary.rounds[-1].clients
        for client in clients:
            if client.error:
                raise RunError(f"run {run.id}: {client.client}: {client.error}", "see `make logs`")
            if client.not_held:
                self._not_held.append(f"{run.id}: {client.client}: {client.not_held}")
        return clients

    def _ratios(self, models: Sequence[ModelName]) -> Mapping[ModelName, float]:
        """Measure how many times as fast as the known model this host trains each model."""
        self._say(f"how fast this host trains {', '.join(models)} beside {KNOWN}")
        with workbench(self._containers, self._stack.image) as bench:
            ratios = {model: ratio(bench, model) for model in models}
        for model, measured in ratios.items():
            if measured.error > ENOUGH:
                self._not_held.append(
                    f"{model}: the host's speed of it scatters: "
                    f"known to {measured.error:.1%}, not {ENOUGH:.0%}"
                )
        return {model: measured.value for model, measured in ratios.items()}
