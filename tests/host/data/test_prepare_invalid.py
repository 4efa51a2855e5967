"""Every kind of bad data: what the user has in the folder, and what he is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedbench.config import Data, Experiment
from fedbench.errors import DataError
from fedbench.host.data.image_folders import decode
from fedbench.host.data.prepare import prepare

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 90)).save(file, kind)
    return file.getvalue()


PNG = encoded()


def pictures(folder: Path, *places: str) -> None:
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(PNG)


def parquet(
    folder: Path, split: str, labels: Sequence[int | None] = (0, 1), images: Any = None
) -> None:
    rows = [{"bytes": PNG, "path": None} for _ in labels] if images is None else images
    write(folder, split, img=pa.array(rows, STRUCT), label=pa.array(labels, pa.int64()))


def write(folder: Path, split: str, **columns: Any) -> None:
    pq.write_table(pa.table(columns), folder / f"{split}.parquet")


def good(folder: Path) -> None:
    pictures(folder, "train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dog/1.png")


def missing(folder: Path) -> None:
    folder.rmdir()


def a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("images.zip")


def empty(folder: Path) -> None:
    assert list(folder.iterdir()) == []


def no_test(folder: Path) -> None:
    pictures(folder, "train/cat/1.png", "train/dog/1.png")


def no_classes(folder: Path) -> None:
    pictures(folder, "train/1.png", "test/1.png")


def empty_class(folder: Path) -> None:
    good(folder)
    (folder / "train" / "eel").mkdir()


def one_class(folder: Path) -> None:
    pictures(folder, "train/cat/1.png", "test/cat/1.png")


def other_classes(folder: Path) -> None:
    pictures(folder, "train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/Dog/1.png")


def not_an_image(folder: Path) -> None:
    good(folder)
    (folder / "train/dog/2.png").write_text("<html>404</html>")


def truncated_image(folder: Path) -> None:
    good(folder)
    noise = Image.effect_noise((64, 64), 90)
    noise.save(folder / "test/dog/2.jpg")
    (folder / "test/dog/2.jpg").write_bytes((folder / "test/dog/2.jpg").read_bytes()[:900])


def dangling_link(folder: Path) -> None:
    good(folder)
    (folder / "train/dog/2.png").symlink_to(folder / "annex" / "2.png")


def not_parquet(folder: Path) -> None:
    (folder / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1")


def damaged_parquet(folder: Path) -> None:
    noise = [Image.effect_noise((32, 32), 90 + shade) for shade in range(9)]
    rows = [{"bytes": picture.tobytes(), "path": None} for picture in noise]
    parquet(folder, "train", [0, 1, 0, 1, 0, 1, 0, 1, 0], rows)
    parquet(folder, "test")
    content = bytearray((folder / "train.parquet").read_bytes())
    content[4:400] = bytes(396)
    (folder / "train.parquet").write_bytes(content)


def no_image_column(folder: Path) -> None:
    write(folder, "train", pixels=[7], label=[0])


def no_label_column(folder: Path) -> None:
    write(folder, "train", img=pa.array([{"bytes": PNG, "path": None}], STRUCT), score=[0.5])


def images_without_bytes(folder: Path) -> None:
    write(folder, "train", img=["cat/1.png", "dog/1.png"], label=[0, 1])


def labels_as_fractions(folder: Path) -> None:
    write(folder, "train", img=[PNG], label=[0.5])


def two_label_columns(folder: Path) -> None:
    write(folder, "train", img=[PNG], fine=[0], coarse=["fish"], score=[0.1])


def two_image_columns(folder: Path) -> None:
    write(folder, "train", left=[PNG], right=[PNG], label=[0])


def labels_of_two_kinds(folder: Path) -> None:
    write(folder, "train-0", img=[PNG, PNG], label=[0, 1])
    write(folder, "train-1", img=[PNG, PNG], label=["cat", "dog"])


def only_test_parquet(folder: Path) -> None:
    parquet(folder, "validation")


def only_test_folder(folder: Path) -> None:
    pictures(folder, "test/cat/1.png", "test/dog/1.png")


def three_images(folder: Path) -> None:
    pictures(folder, "cat/1.png", "cat/2.png", "dog/1.png")


def row_without_image(folder: Path) -> None:
    parquet(folder, "train", [0, 1], [{"bytes": PNG, "path": None}, {"bytes": None, "path": "1"}])
    parquet(folder, "test")


def row_that_does_not_decode(folder: Path) -> None:
    parquet(folder, "train", [0, 1], [{"bytes": PNG, "path": None}, {"bytes": b"?", "path": "1"}])
    parquet(folder, "test")


def label_missing(folder: Path) -> None:
    parquet(folder, "train", [0, None])
    parquet(folder, "test")


def label_negative(folder: Path) -> None:
    parquet(folder, "train", [0, -1])
    parquet(folder, "test")


def label_too_high(folder: Path) -> None:
    parquet(folder, "train", [0, 1])
    parquet(folder, "test", [0, 10])


def labels_all_the_same(folder: Path) -> None:
    parquet(folder, "train", [3, 3])
    parquet(folder, "test", [3, 3])


def label_only_in_test(folder: Path) -> None:
    parquet(folder, "train", [0, 1])
    parquet(folder, "test", [0, 2])


def no_rows(folder: Path) -> None:
    parquet(folder, "train", [0, 1])
    parquet(folder, "test", [])


LAYOUT = "expected train/<class>/*.png and test/<class>/*.png, or train*.parquet and test*.parquet"
SCHEMA = "expected Parquet files with a column of encoded images and a column of labels"
COLUMNS = "one column must hold the images and one their labels"
ROW = "remove the row or mend it"
ENCODED = "encoded images (binary, or a struct with bytes)"
LABELS = "labels (integers or strings)"
SAME = "both must have the same classes"
REMOVE = "remove or replace it"

CASES: list[tuple[Callable[[Path], None], str, str, str]] = [
    (missing, "folder", "{}: no such folder", "pass DATA=<folder>; " + LAYOUT),
    (a_file, "folder", "{}: no such folder", "pass DATA=<folder>"),
    (empty, "folder", "{}: holds no train images", LAYOUT),
    (no_test, "folder", "{}: 2 images are too few to test on some", LAYOUT),
    (no_classes, "folder", "{}/train: holds no class folders", "expected train/<class>/*.png"),
    (empty_class, "folder", "{}/train/eel: holds no images", "expected train/<class>/*.png"),
    (one_class, "folder", "{}: all training images have one label, cat", "at least two classes"),
    (other_classes, "folder", "{}: train has the classes cat, dog, test Dog, cat", SAME),
    (not_an_image, "folder", "{}/train/dog/2.png: not a PNG, JPEG, BMP or WebP image", REMOVE),
    (truncated_image, "folder", "{}/test/dog/2.jpg: does not decode: image file is trunc", REMOVE),
    (dangling_link, "folder", "{}: cannot be read: ", "check the files there"),
    (good, "cifar10", "{}: not CIFAR-10: the classes are cat, dog", "set data.name=folder"),
    (good, "digits", "{}: the data set digits is embedded and reads no folder", "data.name=folder"),
    (not_parquet, "cifar10", "{}/train.parquet: not readable as Parquet: ", SCHEMA),
    (damaged_parquet, "cifar10", "{}/train.parquet: not readable as Parquet: ", SCHEMA),
    (
        no_image_column,
        "cifar10",
        f"{{}}/train.parquet: no column with {ENCODED}; found pixels (int64), label (int64)",
        COLUMNS,
    ),
    (
        no_label_column,
        "cifar10",
        f"{{}}/train.parquet: no column with {LABELS}; found img",
        COLUMNS,
    ),
    (
        images_without_bytes,
        "cifar10",
        f"{{}}/train.parquet: no column with {ENCODED}; found img (string), label (int64)",
        COLUMNS,
    ),
    (labels_as_fractions, "folder", f"{{}}/train.parquet: no column with {LABELS}", COLUMNS),
    (
        two_label_columns,
        "folder",
        f"{{}}/train.parquet: several columns with {LABELS}: fine, coarse",
        "for example data.label_column=fine",
    ),
    (
        two_image_columns,
        "folder",
        f"{{}}/train.parquet: several columns with {ENCODED}: left, right",
        "for example data.image_column=left",
    ),
    (labels_of_two_kinds, "folder", "{}/train-0 and others: some labels are integers", SCHEMA),
    (only_test_parquet, "folder", "{}: holds no train images", LAYOUT),
    (only_test_folder, "folder", "{}: holds no train images", LAYOUT),
    (three_images, "folder", "{}: 3 images are too few to test on some", "every sixth image"),
    (row_without_image, "cifar10", "{}/train.parquet: row 1: holds no image", ROW),
    (row_that_does_not_decode, "cifar10", "{}/train.parquet: row 1: not a PNG, JPEG", REMOVE),
    (label_missing, "cifar10", "{}/train.parquet: row 1: label None, expected one of 0, 1, 2", ROW),
    (label_negative, "folder", "{}/train.parquet: row 1: label -1, expected one of 0", ROW),
    (label_too_high, "cifar10", "{}/test.parquet: row 1: label 10, expected one of 0, 1", ROW),
    (labels_all_the_same, "cifar10", "{}: all training images have one label, cat", "two classes"),
    (label_only_in_test, "cifar10", "{}: test has label bird, which no training image has", SAME),
    (no_rows, "cifar10", "{}: test holds no images", LAYOUT),
]


@pytest.mark.parametrize(
    ("build", "name", "message", "hint"), CASES, ids=[f"{c[0].__name__}-{c[1]}" for c in CASES]
)
def test_bad_data_is_named_and_nothing_is_written(
    tmp_path: Path, build: Callable[[Path], None], name: str, message: str, hint: str
) -> None:
    source = tmp_path / "images"
    source.mkdir()
    build(source)
    experiment = Experiment.model_validate({"name": "test", "data": {"name": name}})
    with pytest.raises(DataError) as caught:
        prepare(experiment, ["a", "b"], tmp_path / "data", source=source)
    assert caught.value.message.startswith(message.format(source))
    assert hint in caught.value.hint
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("build", "columns", "message", "hint"),
    [
        (
            two_label_columns,
            {"label_column": "fin"},
            "{}/train.parquet: no column fin; found img (binary), fine (int64), ",
            f"expected {LABELS}",
        ),
        (
            two_label_columns,
            {"label_column": "score"},
            f"{{}}/train.parquet: column score: expected {LABELS}, found double",
            "found in all: img (binary), fine (int64), coarse (string), score (double)",
        ),
        (
            two_label_columns,
            {"label_column": "fine", "image_column": "coarse"},
            f"{{}}/train.parquet: column coarse: expected {ENCODED}, found string",
            "found in all: img (binary), ",
        ),
        (
            good,
            {"label_column": "fine"},
            "{}: data.image_column and data.label_column are for Parquet files",
            "leave them out: this folder has none",
        ),
    ],
)
def test_columns_that_are_named_must_be_there_and_fit(
    tmp_path: Path,
    build: Callable[[Path], None],
    columns: dict[str, str],
    message: str,
    hint: str,
) -> None:
    build(tmp_path)
    experiment = Experiment(name="test", data=Data(name="folder", **columns))
    with pytest.raises(DataError) as caught:
        prepare(experiment, ["a"], tmp_path / "data", source=tmp_path)
    assert caught.value.message.startswith(message.format(tmp_path))
    assert caught.value.hint.startswith(hint)


def test_the_folder_of_a_case_without_a_fault_is_accepted(tmp_path: Path) -> None:
    good(tmp_path / "images")
    experiment = Experiment(name="test", data=Data(name="folder"))
    prepared = prepare(experiment, ["a", "b"], tmp_path / "data", source=tmp_path / "images")
    assert (prepared.classes, prepared.samples) == (("cat", "dog"), {"a": 1, "b": 1})


def test_images_of_ones_own_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data set folder needs a folder of images") as caught:
        prepare(Experiment(name="test", data=Data(name="folder")), ["a"], tmp_path)
    assert caught.value.hint == "pass DATA=<folder>"


def test_more_clients_than_training_images(tmp_path: Path) -> None:
    experiment = Experiment(name="test", data=Data(train_samples=2))
    with pytest.raises(DataError, match="3 clients, but only 2 training images to divide"):
        prepare(experiment, ["a", "b", "c"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"data/a/digits-iid-1-s0-\w+: cannot be written: "):
        prepare(Experiment(name="test"), ["a"], tmp_path / "data")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "WEBP"]),
    keep=st.integers(min_value=1, max_value=4000),
    place=st.integers(min_value=0, max_value=4000),
    damage=st.binary(min_size=1, max_size=16),
)
def test_a_damaged_image_decodes_or_is_named(
    kind: str, keep: int, place: int, damage: bytes
) -> None:
    content = bytearray(encoded(kind))
    start = place % len(content)
    content[start : start + len(damage)] = damage
    try:
        image = decode(BytesIO(bytes(content[:keep])), "here")
    except DataError as error:
        outcome = error.message
    else:
        outcome = f"here: {image.shape}"
    assert outcome.startswith("here: ")
