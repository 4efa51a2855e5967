from __future__ import annotations

import json
import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from fedbench.config import Data, Experiment
from fedbench.errors import DataError
from fedbench.host.data import store
from fedbench.host.data.prepare import Prepared, prepare, prepare_joined, rows, table
from fedbench.learning import data as learning_data
from fedbench.learning import models

CLIENTS = ["workstation", "laptop", "legacy-pc"]


def experiment(seed: int = 0, **data: Any) -> Experiment:
    return Experiment(name="test", data=Data(**data), seed=seed)


def images(root: Path, client: str, key: str, split: str = "train") -> list[bytes]:
    tensors = load_file(root / client / key / f"{split}.safetensors")
    return [image.tobytes() for image in tensors["images"]]


def test_each_client_gets_a_folder_that_its_container_can_read(tmp_path: Path) -> None:
    prepared = prepare(experiment(), CLIENTS, tmp_path)
    assert prepared == Prepared(
        key=prepared.key,
        classes=tuple("0123456789"),
        samples={"workstation": 480, "laptop": 479, "legacy-pc": 479},
        test_samples=359,
    )
    assert prepared.key.startswith("digits-iid-3-s0-")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(CLIENTS)
    for client in CLIENTS:
        folder = tmp_path / client / prepared.key
        assert folder.parent.stat().st_mode & 0o777 == 0o755
        assert folder.stat().st_mode & 0o777 == 0o755
        assert sorted(path.name for path in folder.iterdir()) == [
            "test.safetensors",
            "train.safetensors",
        ]
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o777 == 0o644


def test_a_file_holds_images_labels_and_the_names_of_the_classes(tmp_path: Path) -> None:
    prepared = prepare(experiment(), CLIENTS, tmp_path)
    for split, count in (("train", 479), ("test", 359)):
        file = tmp_path / "laptop" / prepared.key / f"{split}.safetensors"
        tensors = load_file(file)
        assert set(tensors) == {"images", "labels"}
        assert (tensors["images"].shape, tensors["images"].dtype) == ((count, 32, 32, 3), np.uint8)
        assert (tensors["labels"].shape, tensors["labels"].dtype) == ((count,), np.int64)
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata()
        assert json.loads(metadata["classes"]) == list("0123456789")
        assert (metadata["dataset"], metadata["key"]) == ("digits", prepared.key)


def test_iid_clients_share_no_image_and_together_hold_all(tmp_path: Path) -> None:
    whole = prepare(experiment(partition="replicated"), ["one"], tmp_path / "whole")
    prepared = prepare(experiment(), CLIENTS, tmp_path)
    held = [image for client in CLIENTS for image in images(tmp_path, client, prepared.key)]
    assert sorted(held) == sorted(images(tmp_path / "whole", "one", whole.key))


def test_the_test_set_is_one_file_with_a_name_in_each_folder(tmp_path: Path) -> None:
    key = prepare(experiment(), CLIENTS, tmp_path).key
    files = [tmp_path / client / key / "test.safetensors" for client in CLIENTS]
    assert len({file.stat().st_ino for file in files}) == 1
    training = [tmp_path / client / key / "train.safetensors" for client in CLIENTS]
    assert len({file.stat().st_ino for file in training}) == 3


def test_replicated_clients_hold_the_same_file(tmp_path: Path) -> None:
    prepared = prepare(experiment(partition="replicated"), CLIENTS, tmp_path)
    assert prepared.samples == dict.fromkeys(CLIENTS, 1438)
    training = [tmp_path / client / prepared.key / "train.safetensors" for client in CLIENTS]
    assert len({file.stat().st_ino for file in training}) == 1


def test_a_file_is_copied_where_hard_links_do_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    key = prepare(experiment(), CLIENTS, tmp_path).key
    files = [tmp_path / client / key / "test.safetensors" for client in CLIENTS]
    assert len({file.stat().st_ino for file in files}) == 3
    assert len({file.read_bytes() for file in files}) == 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o644}


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    said: list[str] = []
    first = prepare(experiment(), CLIENTS, tmp_path, say=said.append)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert prepare(experiment(), CLIENTS, tmp_path, say=said.append) == first
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    assert said == [f"writing {first.key} for 3 clients"]


def test_a_lost_or_broken_folder_is_made_again(tmp_path: Path) -> None:
    prepared = prepare(experiment(), CLIENTS, tmp_path)
    expected = {client: images(tmp_path, client, prepared.key) for client in CLIENTS}
    shutil.rmtree(tmp_path / "laptop")
    broken = tmp_path / "legacy-pc" / prepared.key / "train.safetensors"
    broken.write_bytes(broken.read_bytes()[:5000])
    assert prepare(experiment(), CLIENTS, tmp_path) == prepared
    assert {client: images(tmp_path, client, prepared.key) for client in CLIENTS} == expected


def test_a_crash_while_writing_leaves_no_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "link", crash)
    with pytest.raises(KeyboardInterrupt):
        prepare(experiment(), CLIENTS, tmp_path)
    monkeypatch.undo()
    assert list((tmp_path / "laptop").iterdir()) == []
    left_by_a_killed_process = tmp_path / "laptop" / ".digits-iid-3-s0-00000000-x" / "new"
    left_by_a_killed_process.mkdir(parents=True)
    (left_by_a_killed_process / "train.safetensors").write_bytes(b"half")
    prepared = prepare(experiment(), CLIENTS, tmp_path)
    assert prepared.samples["laptop"] == 479
    assert len(images(tmp_path, "laptop", prepared.key)) == 479


def test_caps_are_totals_for_iid_and_each_clients_for_replicated(tmp_path: Path) -> None:
    iid = prepare(experiment(train_samples=100, test_samples=50), CLIENTS, tmp_path)
    assert (list(iid.samples.values()), iid.test_samples) == ([34, 33, 33], 50)
    replicated = prepare(experiment(train_samples=100, partition="replicated"), CLIENTS, tmp_path)
    assert list(replicated.samples.values()) == [100, 100, 100]
    more_than_there_are = prepare(experiment(train_samples=9999), CLIENTS, tmp_path)
    assert sum(more_than_there_are.samples.values()) == 1438


def test_the_key_names_all_that_determines_the_content(tmp_path: Path) -> None:
    prepared = [
        prepare(experiment(), CLIENTS, tmp_path),
        prepare(experiment(seed=1), CLIENTS, tmp_path),
        prepare(experiment(), CLIENTS[::-1], tmp_path),
        prepare(experiment(), CLIENTS[:2], tmp_path),
        prepare(experiment(partition="replicated"), CLIENTS, tmp_path),
        prepare(experiment(train_samples=100), CLIENTS, tmp_path),
        prepare(experiment(test_samples=100), CLIENTS, tmp_path),
        prepare(experiment(partition="dirichlet"), CLIENTS, tmp_path),
        prepare(experiment(partition={"name": "dirichlet", "alpha": 5}), CLIENTS, tmp_path),
        prepare(experiment(partition={"name": "dirichlet", "min_samples": 9}), CLIENTS, tmp_path),
        prepare(experiment(partition="shards"), CLIENTS, tmp_path),
        prepare(experiment(partition="size"), CLIENTS, tmp_path),
        prepare(experiment(partition={"name": "size", "sizes": [5, 6, 7]}), CLIENTS, tmp_path),
        prepare(experiment(partition={"name": "size", "sizes": [6, 5, 7]}), CLIENTS, tmp_path),
    ]
    assert len({one.key for one in prepared}) == 14
    names = [one.key.removeprefix("digits-").partition("-")[0] for one in prepared[7:]]
    assert names == [
        *("dirichlet0.5", "dirichlet5", "dirichlet0.5", "shards2", "sizelinear", "size", "size")
    ]
    assert prepare(experiment(), CLIENTS, tmp_path / "elsewhere").key == prepared[0].key
    assert images(tmp_path, "laptop", prepared[0].key) != images(
        tmp_path, "laptop", prepared[1].key
    )
    again = images(tmp_path / "elsewhere", "laptop", prepared[0].key)
    assert again == images(tmp_path, "laptop", prepared[0].key)


def test_one_who_joins_gets_a_share_under_the_same_key(tmp_path: Path) -> None:
    prepared = prepare(experiment(), CLIENTS, tmp_path / "host")
    joined = prepare_joined(experiment(), "tablet", prepared.key, tmp_path / "device")
    assert joined == Prepared(prepared.key, prepared.classes, {"tablet": 479}, 359)
    assert images(tmp_path / "device", "tablet", prepared.key, "test") == images(
        tmp_path / "host", "laptop", prepared.key, "test"
    )
    other = prepare_joined(experiment(), "phone", prepared.key, tmp_path / "device")
    assert images(tmp_path / "device", "phone", other.key) != images(
        tmp_path / "device", "tablet", other.key
    )


@pytest.mark.parametrize(
    ("data", "samples", "expected"),
    [
        ({}, None, 479),
        ({}, 1438, 1438),
        ({"train_samples": 100}, None, 33),
        ({"train_samples": 100}, 200, 200),
        ({"partition": "replicated"}, None, 1438),
        ({"partition": "replicated", "train_samples": 100}, None, 100),
        ({"partition": "dirichlet"}, None, 479),
        ({"partition": {"name": "size", "sizes": [10, 20, 60]}}, None, 30),
    ],
)
def test_how_many_one_who_joins_gets(
    tmp_path: Path, data: dict[str, Any], samples: int | None, expected: int
) -> None:
    key = "digits-iid-3-s0-0123abcd"
    joined = prepare_joined(experiment(**data), "tablet", key, tmp_path, samples=samples)
    assert joined.samples == {"tablet": expected}
    labels = load_file(tmp_path / "tablet" / key / "train.safetensors")["labels"]
    assert np.bincount(labels).max() - np.bincount(labels).min() <= 8


def test_one_who_joins_again_keeps_its_data_unless_it_asks_for_other(tmp_path: Path) -> None:
    key = "digits-iid-3-s0-0123abcd"
    file = tmp_path / "tablet" / key / "train.safetensors"
    prepare_joined(experiment(), "tablet", key, tmp_path)
    before = file.stat().st_ino, file.stat().st_mtime_ns
    prepare_joined(experiment(), "tablet", key, tmp_path)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before
    assert prepare_joined(experiment(), "tablet", key, tmp_path, samples=7).samples["tablet"] == 7
    assert [path.name for path in file.parent.parent.iterdir()] == [key]


@pytest.mark.parametrize(
    "partition",
    [
        *("replicated", "iid", "dirichlet", "shards", "size"),
        {"name": "dirichlet", "alpha": 0.001, "min_samples": 1},
        {"name": "dirichlet", "alpha": 10_000},
        {"name": "size", "sizes": [1, 2, 3]},
    ],
)
def test_one_who_joins_can_read_the_key_of_any_partition(tmp_path: Path, partition: Any) -> None:
    chosen = experiment(partition=partition)
    prepared = prepare(chosen, CLIENTS, tmp_path)
    joined = prepare_joined(chosen, "tablet", prepared.key, tmp_path / "device")
    mean = sum(prepared.samples.values()) // 3
    assert joined.samples == {"tablet": mean}


@pytest.mark.parametrize("key", ["", "../../etc", "digits-iid-3-s0", "digits-iid-x-s0-0123abcd"])
def test_one_who_joins_needs_a_real_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match="is not the key of a partition"):
        prepare_joined(experiment(), "tablet", key, tmp_path)


@pytest.mark.parametrize("samples", [0, 1439])
def test_one_who_joins_cannot_have_more_than_there_is(tmp_path: Path, samples: int) -> None:
    key = "digits-iid-3-s0-0123abcd"
    with pytest.raises(DataError, match=f"tablet: {samples} training images asked for") as caught:
        prepare_joined(experiment(), "tablet", key, tmp_path, samples=samples)
    assert caught.value.hint == "ask for 1 to 1438"


def test_the_table_counts_what_the_files_hold(tmp_path: Path) -> None:
    prepared = prepare(experiment(), CLIENTS, tmp_path)
    counts = table(prepared, tmp_path)
    assert list(counts) == CLIENTS
    assert {client: sum(row.values()) for client, row in counts.items()} == prepared.samples
    labels = load_file(tmp_path / "laptop" / prepared.key / "train.safetensors")["labels"]
    assert counts["laptop"] == {str(digit): int((labels == digit).sum()) for digit in range(10)}


def test_rows_are_for_people() -> None:
    few = {"a": {"cat": 3, "dog": 0}, "b": {"cat": 1, "dog": 2}}
    assert rows(few) == (
        ["client", "cat", "dog", "all"],
        [["a", "3", "0", "3"], ["b", "1", "2", "3"]],
    )
    many = {"a": {f"c{label}": label % 5 for label in range(13)}}
    many["b"] = {f"c{label}": 7 * (label == 12) for label in range(13)}
    assert rows(many) == (
        ["client", "of 13 classes", "most images", "all"],
        [["a", "10", "c4 4, c9 4, c3 3", "23"], ["b", "1", "c12 7", "7"]],
    )


def test_a_hundred_classes_travel_to_the_client_and_its_model(tmp_path: Path) -> None:
    names = [f"class-{number:02}" for number in range(100)]
    pictures = [{"bytes": png(number), "path": None} for number in range(100)]
    for split in ("train", "test"):
        columns = {"img": pictures * 2, "fine_label": names * 2}
        pq.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    chosen = experiment(name="folder", partition="shards")
    prepared = prepare(chosen, CLIENTS, tmp_path / "data", source=tmp_path)
    assert prepared.classes == tuple(names)
    file = tmp_path / "data" / "laptop" / prepared.key / "train.safetensors"
    held = learning_data.load(file, torch.device("cpu"))
    assert held.classes == tuple(names)
    model = models.build("mobilenet_v3_small", len(held.classes)).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def png(shade: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 32), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()
