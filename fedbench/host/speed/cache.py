"""How fast this host trains each model, remembered in a file.

A figure holds for one host and one software. The host is its processor, its number of cores and
its kernel's series, whose scheduler shares the cores out; not its memory, which does not change
the speed of a step. The software is what a training step runs through: `fedbench/learning`, the
image's recipe and its pinned packages; for a model of the user's own, the modules in `models/` as
well. So a change of the README, of the server or of the client's wire, for which the image is built
anew, measures nothing anew.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime

from fedbench.config.model_names import is_user_model
from fedbench.engines.containers.runtime.containers import Containers
from fedbench.errors import DamagedFileError
from fedbench.host.say import Say
from fedbench.host.setup.images import INDEX_LABEL
from fedbench.records.files import Record, read_record, replace_text

OLD = timedelta(days=1)
ROOT = Path(__file__).resolve().parents[3]
CPUINFO = Path("/proc/cpuinfo")
# x86, then ARM, whose kernel names no model.
_CPU_KEYS = (
    "model name", "cpu family", "model", "stepping",
    "CPU implementer", "CPU part", "CPU variant", "CPU revision",
)  # fmt: skip


class ModelSpeed(Record):
    """How fast this host trains one model in batches of 32, in samples/s.

    `by_threads`: alone on the host, by number of threads, on as many cores. `busy`: one thread on
    each core at once, the slowest of them. Those of one thread are per CPU second.
    `quota_efficiency`: samples per CPU second under a quota, as a share of those without.
    `step_cpu_seconds`: CPU seconds of one batch, alone. `spread`: the slowest and the fastest
    window of one thread alone. `of_reference`: its samples/s for each of MobileNetV2's, measured in
    turns, for a host's speed drifts from one calibration to the next. `note`: what disturbed it.
    """

    model: str
    by_threads: dict[int, float]
    busy: float
    quota_efficiency: float
    step_cpu_seconds: float
    spread: tuple[float, float]
    of_reference: float
    measured_at: AwareDatetime
    note: str | None = None


class Entry(Record):
    """One model's speed on one host with one software."""

    host: str
    software: str
    speed: ModelSpeed


_said: set[str] = set()


class _CacheFile(Record):
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Speeds:
    """The speeds in a file that hold for this host and software."""

    path: Path
    host: str
    software: str
    own: str = ""
    """The user's own models, of which a change counts for no others."""

    def read(self, models: list[str], say: Say) -> dict[str, ModelSpeed]:
        """Return those that are known of these models; say which are old, or were disturbed."""
        known = [e.speed for e in self._entries() if self._holds(e) and e.speed.model in models]
        for speed in known:
            if speed.note or datetime.now(UTC) - speed.measured_at > OLD:
                _say_once(_dated(speed), say)
        return {speed.model: speed for speed in known}

    def write(self, speed: ModelSpeed) -> None:
        """Remember a model's speed instead of what was known."""
        new = Entry(host=self.host, software=self._software(speed.model), speed=speed)
        kept = [e for e in self._entries() if not (self._holds(e) and e.speed.model == speed.model)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(self.path, _CacheFile(entries=(*kept, new)).model_dump_json(indent=2) + "\n")

    def _holds(self, entry: Entry) -> bool:
        software = self._software(entry.speed.model)
        return (entry.host, entry.software) == (self.host, software)

    def _software(self, model: str) -> str:
        return f"{self.software} {self.own}" if is_user_model(model) else self.software

    def _entries(self) -> tuple[Entry, ...]:
        # A file of another version is as good as none: everything in it can be measured.
        with suppress(DamagedFileError):
            return read_record(self.path, _CacheFile).entries
        return ()


def _say_once(line: str, say: Say) -> None:
    # One command looks speeds up for each of its runs.
    if line not in _said:
        _said.add(line)
        say(line)


def _dated(speed: ModelSpeed) -> str:
    note = f", when {speed.note}" if speed.note else ""
    day = f"{speed.measured_at:%Y-%m-%d %H:%M} UTC"
    return (
        f"calibration of {speed.model} from {day}{note}: `fedbench calibrate --fresh` measures anew"
    )


def host_identity(containers: Containers, cores: int, cpuinfo: Path = CPUINFO) -> str:
    """Name the processor, how many cores of it, and the series of the kernel."""
    found: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in _CPU_KEYS:
            found.setdefault(key.strip(), value.strip())
    processor = ", ".join(f"{key} {value}" for key, value in found.items())
    kernel = ".".join(containers.host().kernel.split(".")[:2])
    return f"{platform.machine()}, {processor}, {cores} cores, kernel {kernel}"


def software_identity(containers: Containers, image: str, root: Path = ROOT) -> str:
    """Hash what decides how fast the image trains; the image's tag stands before it."""
    pins = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    facts = [json.dumps(pins["project"]["optional-dependencies"]["node"])]
    facts.append((containers.image_labels(image) or {}).get(INDEX_LABEL, ""))
    digest = hashlib.sha256("\0".join(facts).encode())
    for path in (root / "docker/Dockerfile", *sorted((root / "fedbench/learning").glob("*.py"))):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return f"{image} {digest.hexdigest()[:16]}"
