"""Data sets -> one partition folder per client, and who holds what.

A client's container mounts `<root>/<client>` read-only; it finds there, for each key,
`<key>/train.safetensors` with the images of its own and `<key>/test.safetensors` with the test
images, which are the same for all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedbench.config import Experiment
from fedbench.config.partitions import BySize, Replicated
from fedbench.errors import DataError
from fedbench.host.data.division import Indices, divide, draw, generator
from fedbench.host.data.image_folders import Split
from fedbench.host.data.parquet_columns import ColumnNames
from fedbench.host.data.sources import DataSet, Opened, open_data_set
from fedbench.host.data.store import holds, read_labels, read_metadata, write_partition
from fedbench.host.say import Say

TRAIN, TEST = "train.safetensors", "test.safetensors"
_FORMAT = 1  # raise it when the same experiment would be stored otherwise
_CLASSES_SHOWN = 12
_CACHE = ".decoded"  # no client's name begins with a dot
_KEY = re.compile(r"[a-z0-9]+-[a-z0-9.]+-(\d+)-s\d+-[0-9a-f]{8}")


@dataclass(frozen=True)
class Prepared:
    """Partitions on disk; `samples` counts the training images of each client."""

    key: str
    classes: tuple[str, ...]
    samples: dict[str, int]
    test_samples: int


def prepare(
    experiment: Experiment,
    clients: Sequence[str],
    root: Path,
    *,
    source: Path | None = None,
    say: Say = lambda _: None,
) -> Prepared:
    """Divide the experiment's data among `clients`; what is there already is left as it is.

    `data.train_samples` is the total of all clients, but for `replicated` each client's set.
    `source` is the folder that holds the images, where they are not embedded.

    Raises:
        DataError: the data is missing, unreadable, too little, or cannot be written.
    """
    opened = _open(experiment, source)
    recipe = _recipe(experiment, opened.fingerprint, list(clients))
    key = _key(experiment, len(clients), recipe)
    folders = [root / client / key for client in clients]
    if not all(_holds(folder, recipe) for folder in folders):
        data = opened.load(root / _CACHE, say)
        shares = _divide(experiment, data, len(clients))
        say(f"writing {key} for {len(clients)} clients")
        _write(folders, shares, data, experiment, _metadata(experiment, data, key, recipe))
    return _describe(key, clients, root)


def restore(
    experiment: Experiment,
    clients: Sequence[str],
    key: str,
    root: Path,
    *,
    source: Path | None = None,
    say: Say = lambda _: None,
) -> None:
    """Divide an earlier run's data again, where a client has not got what is under `key`.

    Raises:
        DataError: as `prepare`; or what there is now is other data.
    """
    folders = [root / client / key for client in clients]
    if all(read_metadata(f / name).get("key") == key for f in folders for name in (TRAIN, TEST)):
        return
    prepared = prepare(experiment, clients, root, source=source, say=say)
    if prepared.key != key:
        raise DataError(
            f"the data of this run is gone, and {experiment.data.name} is other data now: "
            f"{prepared.key}, not {key}",
            "put the data back, or start a new run",
        )


def prepare_joined(
    experiment: Experiment,
    client: str,
    key: str,
    root: Path,
    *,
    source: Path | None = None,
    samples: int | None = None,
    say: Say = lambda _: None,
) -> Prepared:
    """Store data for a client that joins from outside, under the `key` of the federation's run.

    It gets `samples` training images, drawn at random from the whole training set with its
    proportions of classes, seeded by the experiment's seed and the client's name. The default is
    what a client of the partition has on average: the (capped) training set, but for `replicated`
    divided by the number of clients that the key names, rounded down.

    Raises:
        DataError: not a key; more images asked for than there are; or as `prepare`.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise DataError(f"{key!r} is not the key of a partition", "give the key that the run names")
    opened = _open(experiment, source)
    recipe = _recipe(experiment, opened.fingerprint, [key, client, samples])
    folder = root / client / key
    if not _holds(folder, recipe):
        data = opened.load(root / _CACHE, say)
        total = len(data.train.labels)
        count = _share(experiment, total, int(match[1])) if samples is None else samples
        if not 1 <= count <= total:
            raise DataError(f"{client}: {count} training images asked for", f"ask for 1 to {total}")
        share = draw(data.train.labels, count, _random(experiment, f"join {client}"))
        _write([folder], [share], data, experiment, _metadata(experiment, data, key, recipe))
    return _describe(key, [client], root)


def table(prepared: Prepared, root: Path) -> dict[str, dict[str, int]]:
    """Count who holds what: client -> class -> number of training images."""
    counts = {}
    for client in prepared.samples:
        labels = read_labels(root / client / prepared.key / TRAIN)
        held = np.bincount(labels, minlength=len(prepared.classes)).tolist()
        counts[client] = dict(zip(prepared.classes, held, strict=True))
    return counts


def rows(held: dict[str, dict[str, int]]) -> tuple[list[str], list[list[str]]]:
    """Give `table` for people, header and rows; of many classes only each client's largest."""
    classes = list(next(iter(held.values())))
    if len(classes) <= _CLASSES_SHOWN:
        header = ["client", *classes, "all"]
        return header, [
            [client, *map(str, counts.values()), str(sum(counts.values()))]
            for client, counts in held.items()
        ]
    header = ["client", f"of {len(classes)} classes", "most images", "all"]
    return header, [
        [client, str(sum(map(bool, counts.values()))), _largest(counts), str(sum(counts.values()))]
        for client, counts in held.items()
    ]


def _largest(counts: dict[str, int]) -> str:
    largest = sorted(counts, key=counts.__getitem__, reverse=True)[:3]
    return ", ".join(f"{name} {counts[name]}" for name in largest if counts[name])


def _open(experiment: Experiment, source: Path | None) -> Opened:
    data = experiment.data
    return open_data_set(data.name, source, ColumnNames(data.image_column, data.label_column))


def _divide(experiment: Experiment, data: DataSet, clients: int) -> list[Indices]:
    settings = experiment.data
    pool = draw(data.train.labels, settings.train_samples, _random(experiment, "train"))
    labels = data.train.labels[pool]
    shares = divide(settings.partition, labels, clients, _random(experiment, "divide"))
    return [pool[share] for share in shares]


def _share(experiment: Experiment, total: int, clients: int) -> int:
    partition = experiment.data.partition
    capped = min(total, experiment.data.train_samples or total)
    if isinstance(partition, BySize) and partition.sizes is not None:
        capped = sum(partition.sizes)
    return capped if _replicated(experiment) else max(capped // clients, 1)


def _write(
    folders: Sequence[Path],
    shares: Sequence[Indices],
    data: DataSet,
    experiment: Experiment,
    metadata: dict[str, str],
) -> None:
    chosen = draw(data.test.labels, experiment.data.test_samples, _random(experiment, "test"))
    test: Split | Path = data.test.take(chosen)
    replica: Path | None = None
    for folder, share in zip(folders, shares, strict=True):
        train = replica or data.train.take(share)
        write_partition(folder, {TRAIN: train, TEST: test}, metadata)
        test = folder / TEST
        replica = folder / TRAIN if _replicated(experiment) else None


def _describe(key: str, clients: Sequence[str], root: Path) -> Prepared:
    samples = {client: len(read_labels(root / client / key / TRAIN)) for client in clients}
    test = root / clients[0] / key / TEST
    classes = tuple(json.loads(read_metadata(test)["classes"]))
    return Prepared(key, classes, samples, len(read_labels(test)))


def _holds(folder: Path, recipe: str) -> bool:
    return all(holds(folder / name, recipe) for name in (TRAIN, TEST))


def _metadata(experiment: Experiment, data: DataSet, key: str, recipe: str) -> dict[str, str]:
    classes = json.dumps(data.classes)
    return {"classes": classes, "dataset": experiment.data.name, "key": key, "recipe": recipe}


def _recipe(experiment: Experiment, fingerprint: str, receivers: Sequence[str | int | None]) -> str:
    """Hash of all that determines the content."""
    facts = [_FORMAT, experiment.data.model_dump(), experiment.seed, fingerprint, receivers]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _key(experiment: Experiment, clients: int, recipe: str) -> str:
    data = experiment.data
    partition = data.partition.title.replace(" ", "")
    return f"{data.name}-{partition}-{clients}-s{experiment.seed}-{recipe[:8]}"


def _replicated(experiment: Experiment) -> bool:
    return isinstance(experiment.data.partition, Replicated)


def _random(experiment: Experiment, purpose: str) -> np.random.Generator:
    return generator(experiment.seed, purpose)
