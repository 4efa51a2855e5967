"""Whatever is in a file of images, it is read, written anew, or refused with our error."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import Flips, turn
from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedbench.config import Data, Experiment
from fedbench.errors import DataError
from fedbench.host.data import sources, store
from fedbench.host.data.image_folders import MOST_PIXELS, Images, decode
from fedbench.host.data.prepare import TEST, TRAIN, Prepared, prepare, table
from fedbench.host.data.sources import open_data_set
from fedbench.learning import data as learning_data

EXPERIMENT = Experiment(name="test", data=Data(train_samples=20, test_samples=10))
HEADER = 300  # bytes of a partition file before its images, more or less
places = st.integers(0, HEADER) | st.integers(0, 2**20)
bits: st.SearchStrategy[Flips] = st.lists(
    st.tuples(places, st.integers(0, 7)), min_size=1, max_size=3
)


def again(root: Path) -> Prepared:
    return prepare(EXPERIMENT, ["pc"], root)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "pc" / again(root).key


def damaged(folder: Path, name: str, content: bytes) -> None:
    (folder / name).unlink()  # the others may be links to the same
    (folder / name).write_bytes(content)


def require_prepared(root: Path, folder: Path) -> None:
    """It is as it was, or as good: pixels may have changed."""
    prepared = again(root)
    assert (prepared.samples, prepared.test_samples) == ({"pc": 20}, 10)
    assert sum(table(prepared, root)["pc"].values()) == 20
    for name, count in ((TRAIN, 20), (TEST, 10)):
        assert len(learning_data.load(folder / name)) == count


@pytest.mark.parametrize("name", [TRAIN, TEST])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.005, 0.5, 0.999])
def test_data_that_was_cut_off_is_written_anew(
    root: Path, folder: Path, name: str, share: float
) -> None:
    whole = (folder / name).read_bytes()
    damaged(folder, name, whole[: int(share * len(whole))])
    require_prepared(root, folder)
    assert (folder / name).stat().st_size == len(whole)


@examples(12)
@given(name=st.sampled_from([TRAIN, TEST]), flips=bits)
def test_data_whose_bits_turned_is_written_anew(
    root: Path, folder: Path, name: str, flips: Flips
) -> None:
    damaged(folder, name, turn((folder / name).read_bytes(), flips))
    require_prepared(root, folder)


def tensors_at(whole: bytes) -> int:
    """Where the first tensor of a file begins: that with the longest items, the labels."""
    return 8 + int.from_bytes(whole[:8], "little")


@pytest.mark.parametrize("label", [-1, 10, 2**62])
def test_labels_that_are_no_classes_are_written_anew(root: Path, folder: Path, label: int) -> None:
    whole = (folder / TRAIN).read_bytes()
    at = tensors_at(whole)
    damaged(folder, TRAIN, whole[:at] + struct.pack("<q", label) + whole[at + 8 :])
    require_prepared(root, folder)


@examples(60)
@given(data=st.data())
def test_a_client_reads_its_images_or_names_the_file(
    folder: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole, path = (folder / TRAIN).read_bytes(), tmp_path / TRAIN
    content = data.draw(
        st.binary(max_size=100)
        | bits.map(lambda flips: turn(whole, flips))
        | st.integers(0, len(whole)).map(lambda size: whole[:size])
        | st.binary(max_size=60).map(lambda header: struct.pack("<Q", len(header)) + header)
        | st.just(struct.pack("<Q", 2**62) + whole[8:])
    )
    path.write_bytes(content)
    problem = ""
    try:
        learning_data.load(path)
    except ValueError as error:
        problem = str(error)
    assert not problem or problem.startswith(f"{path}: ")


@pytest.mark.parametrize("classes", ["", "7", "null", '"ab"', '{"a": 1}', "[1]", "[" * 10**5, None])
def test_classes_that_are_no_names_are_named(
    folder: Path, tmp_path: Path, classes: str | None
) -> None:
    tensors = {"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": np.zeros(2, np.int64)}
    path = tmp_path / TRAIN
    store.save_file(tensors, path, {} if classes is None else {"classes": classes})
    with pytest.raises(ValueError, match="expected classes, a JSON list of names"):
        learning_data.load(path)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: cannot be read"):
        learning_data.load(tmp_path)


def test_decoded_images_that_were_damaged_are_decoded_anew(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    split = sources.Split(np.zeros((4, 32, 32, 3), np.uint8), np.arange(4))
    store.write_cached(file, "f", split, split)
    assert store.read_cached(file, "f") is not None
    whole = file.read_bytes()
    at = tensors_at(whole)
    for spoiled in (
        whole.replace(b"train.images", b"train.imagez"),
        whole[:at] + struct.pack("<q", -1) + whole[at + 8 :],
        whole[:-1],
        b"",
    ):
        file.write_bytes(spoiled)
        assert store.read_cached(file, "f") is None


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)
    files = {}
    for kind in ("PNG", "JPEG", "BMP", "WEBP"):
        Image.fromarray(pixels).save(file := BytesIO(), kind)
        files[kind] = file.getvalue()
    return files


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it makes the best of
@examples(150)
@given(data=st.data())
def test_a_picture_is_decoded_or_named(pictures: dict[str, bytes], data: st.DataObject) -> None:
    whole = pictures[data.draw(st.sampled_from([*pictures]))]
    flips = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 7)), min_size=1, max_size=6)
    content = data.draw(
        flips.map(lambda each: turn(whole, each))
        | st.integers(0, len(whole)).map(lambda size: whole[:size])
        | st.binary(max_size=50)
    )
    decoded: Images | None = None
    problem = ""
    try:
        decoded = decode(BytesIO(content), "here")
    except DataError as error:
        problem = error.message
    if decoded is None:
        assert problem.startswith("here: ")
    else:
        assert decoded.shape == (32, 32, 3)


def test_a_picture_of_too_many_pixels_is_not_decoded() -> None:
    Image.new("1", (8192, MOST_PIXELS // 8192 + 1)).save(file := BytesIO(), "PNG")
    with pytest.raises(DataError, match="pixels are too many"):
        decode(file, "here")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["info", "features", "img", "label", "_type", "names"]), inner
        )
    ),
    max_leaves=8,
)


@examples(60)
@given(metadata=st.binary(max_size=20) | json_like.map(lambda value: json.dumps(value).encode()))
def test_parquet_with_any_metadata_is_read(
    pictures: dict[str, bytes], tmp_path: Path, metadata: bytes
) -> None:
    table = pa.table({"img": [pictures["PNG"]], "label": [0]})
    described = table.replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(described, tmp_path / "train.parquet")
    with suppress(DataError):
        open_data_set("folder", tmp_path)


@examples(40)
@given(size=st.integers(0, 2000), content=st.binary(max_size=40))
def test_what_is_no_parquet_is_named(
    pictures: dict[str, bytes], tmp_path: Path, size: int, content: bytes
) -> None:
    write: Any = pq.write_table
    write(pa.table({"img": [pictures["PNG"]], "label": [0]}), tmp_path / "train.parquet")
    whole = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(whole[: min(size, len(whole) - 1)] + content)
    with pytest.raises(DataError, match=r"train\.parquet"):
        open_data_set("folder", tmp_path).load(tmp_path, print)
