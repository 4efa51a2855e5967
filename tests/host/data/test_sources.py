from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fedbench.errors import DataError
from fedbench.host.data import digits, sources
from fedbench.host.data.image_folders import decode
from fedbench.host.data.parquet_columns import ColumnNames
from fedbench.host.data.sources import CIFAR10_CLASSES, Hub, open_data_set

REAL_CIFAR10 = Path("/work/shared/data/cifar10-jpeg")
SIZES = {"train": 40, "test": 20}


def encode(pixels: np.typing.NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def pixels_of(split: str, side: int = 32) -> np.typing.NDArray[np.uint8]:
    random = np.random.default_rng(len(split))
    return random.integers(0, 256, (SIZES[split], side, side, 3), np.uint8)


def write_parquet(
    folder: Path, *, image: str = "img", label: str = "label", names: bool = True
) -> None:
    """CIFAR-10 in small: the schema of uoft-cs/cifar10, random pixels as PNG."""
    described = {"info": {"features": {label: {"names": CIFAR10_CLASSES, "_type": "ClassLabel"}}}}
    for split, count in SIZES.items():
        images = [{"bytes": encode(pixels), "path": None} for pixels in pixels_of(split)]
        labels = [index % 10 for index in range(count)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({image: pa.array(images, kind), label: pa.array(labels, pa.int64())})
        if names:
            table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=7)


def test_the_digits_file_is_scikit_learns_own() -> None:
    assert hashlib.sha256(digits.FILE.read_bytes()).hexdigest() == digits.SHA256
    table = np.loadtxt(digits.FILE, delimiter=",", dtype=np.int64)
    assert table.shape == (1797, 65)
    assert (table[:, :64].min(), table[:, :64].max()) == (0, 16)
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(table[:, 64]).tolist() == counts


def test_digits_are_split_by_class_and_the_same_every_time(tmp_path: Path) -> None:
    data = open_data_set("digits", None).load(tmp_path, print)
    assert data.classes == tuple("0123456789")
    assert (data.train.images.shape, data.test.images.shape) == (
        (1438, 32, 32, 3),
        (359, 32, 32, 3),
    )
    assert (data.train.images.dtype, data.train.labels.dtype) == (np.uint8, np.int64)
    assert np.bincount(data.train.labels).min() >= 139
    assert set(np.bincount(data.test.labels).tolist()) <= {35, 36, 37}
    again = open_data_set("digits", None).load(tmp_path, print)
    assert again.test.images.tobytes() == data.test.images.tobytes()
    rows = {image.tobytes() for image in data.train.images}
    assert not rows & {image.tobytes() for image in data.test.images}


def test_digits_are_grey_and_use_the_whole_range() -> None:
    train, _ = digits.load()
    assert (train.images[..., 0] == train.images[..., 1]).all()
    assert (train.images[..., 0] == train.images[..., 2]).all()
    assert (train.images.min(), train.images.max()) == (0, 255)


@pytest.mark.parametrize(
    ("name", "schema", "classes"),
    [
        ("cifar10", {}, CIFAR10_CLASSES),
        ("cifar10", {"names": False}, CIFAR10_CLASSES),
        ("folder", {"image": "image", "label": "fine_label"}, CIFAR10_CLASSES),
        ("folder", {"names": False}, tuple("0123456789")),
    ],
)
def test_parquet_gives_the_pixels_labels_and_names_in_it(
    tmp_path: Path, name: str, schema: dict[str, Any], classes: tuple[str, ...]
) -> None:
    write_parquet(tmp_path, **schema)
    data = open_data_set(name, tmp_path).load(tmp_path / "cache", print)
    assert data.classes == classes
    for split, got in (("train", data.train), ("test", data.test)):
        assert got.images.flags.c_contiguous
        assert got.images.tobytes() == pixels_of(split).tobytes()
        assert got.labels.tolist() == [index % 10 for index in range(SIZES[split])]


def one_colour(shade: int) -> bytes:
    return encode(np.full((20, 30, 3), shade, np.uint8))


def write_columns(folder: Path, name: str, labels: Any, **others: Any) -> None:
    """A column of encoded images without a struct, one of labels, and whatever else."""
    images = [one_colour(10 * index) for index in range(len(labels))]
    pq.write_table(pa.table({"photo": images, "kind": labels, **others}), folder / name)


WORDS = ["cat", "ant", "cat", "bee"]


@pytest.mark.parametrize(
    ("labels", "classes", "positions"),
    [
        (WORDS, ("ant", "bee", "cat"), [2, 0, 2, 1]),
        (pa.array(WORDS, pa.large_string()), ("ant", "bee", "cat"), [2, 0, 2, 1]),
        (pa.array(WORDS).dictionary_encode(), ("ant", "bee", "cat"), [2, 0, 2, 1]),
        (pa.array([101, 7, 101, 20], pa.uint8()), ("7", "20", "101"), [2, 0, 2, 1]),
    ],
)
def test_classes_without_names_are_the_values_of_the_labels(
    tmp_path: Path, labels: Any, classes: tuple[str, ...], positions: list[int]
) -> None:
    write_columns(tmp_path, "train.parquet", labels)
    write_columns(tmp_path, "test.parquet", labels[:1])
    data = open_data_set("folder", tmp_path).load(tmp_path / "cache", print)
    assert data.classes == classes
    assert data.train.labels.tolist() == positions
    assert data.train.images[:, 31, 31, 2].tolist() == [0, 10, 20, 30]
    assert data.test.labels.tolist() == [2]


def test_cifar10_may_have_words_for_labels(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_columns(tmp_path, f"{split}.parquet", ["truck", "airplane"])
    with pytest.raises(DataError, match="not CIFAR-10: the classes are airplane, truck"):
        open_data_set("cifar10", tmp_path)
    write_columns(tmp_path, "train.parquet", list(CIFAR10_CLASSES))
    data = open_data_set("cifar10", tmp_path).load(tmp_path / "cache", print)
    assert (data.classes, data.test.labels.tolist()) == (CIFAR10_CLASSES, [9, 0])


def test_of_several_columns_that_fit_the_metadata_or_the_user_chooses(tmp_path: Path) -> None:
    columns = {
        "photo": [one_colour(0), one_colour(50)],
        "mask": [one_colour(100), one_colour(150)],
        "id": [17, 18],
        "fine": [1, 0],
        "coarse": ["plant", "animal"],
    }
    features = {
        "photo": {"_type": "Image"},
        "fine": {"_type": "ClassLabel", "names": ["fox", "oak"]},
        "coarse": {"_type": "Value", "dtype": "string"},
    }
    described = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table(columns).replace_schema_metadata(described)
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    data = open_data_set("folder", tmp_path).load(tmp_path / "cache", print)
    assert (data.classes, data.train.labels.tolist()) == (("fox", "oak"), [1, 0])
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 50]
    wanted = ColumnNames("mask", "coarse")
    data = open_data_set("folder", tmp_path, wanted).load(tmp_path / "cache", print)
    assert (data.classes, data.train.labels.tolist()) == (("animal", "plant"), [1, 0])
    assert data.train.images[:, 0, 0, 0].tolist() == [100, 150]


@pytest.mark.parametrize("name", ["validation", "valid-00000-of-00001", "val_1", "test"])
def test_validation_does_for_a_test_that_is_not_there(tmp_path: Path, name: str) -> None:
    write_columns(tmp_path, "train.parquet", WORDS)
    write_columns(tmp_path, f"{name}.parquet", WORDS[:2])
    data = open_data_set("folder", tmp_path).load(tmp_path / "cache", print)
    assert (len(data.train.labels), data.test.labels.tolist()) == (4, [2, 0])
    write_columns(tmp_path, "test.parquet", WORDS)
    data = open_data_set("folder", tmp_path).load(tmp_path / "cache", print)
    assert data.test.labels.tolist() == [2, 0, 2, 1]


def parquet_of_training_images(folder: Path) -> Path:
    write_columns(folder, "train.parquet", WORDS * 6)
    return folder


def parquet_of_any_name(folder: Path) -> Path:
    write_columns(folder, "animals-1.parquet", WORDS * 3)
    write_columns(folder, "animals-2.parquet", WORDS * 3)
    return folder


def one_parquet_file(folder: Path) -> Path:
    write_columns(folder, "animals.parquet", WORDS * 6)
    return folder / "animals.parquet"


def class_folders(folder: Path) -> Path:
    for number, kind in enumerate(WORDS * 6):
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / f"{number}.png").write_bytes(one_colour(number))
    return folder


def class_folders_of_training_images(folder: Path) -> Path:
    (folder / "train").mkdir()
    class_folders(folder / "train")
    return folder


@pytest.mark.parametrize(
    "build",
    [
        parquet_of_training_images,
        parquet_of_any_name,
        one_parquet_file,
        class_folders,
        class_folders_of_training_images,
    ],
)
def test_without_test_images_every_sixth_is_taken(
    tmp_path: Path, build: Callable[[Path], Path]
) -> None:
    (tmp_path / "source").mkdir()
    source, said = build(tmp_path / "source"), list[str]()
    first, again = (
        open_data_set("folder", source).load(tmp_path / "cache", said.append) for _ in range(2)
    )
    note = f"{source}: has no test images; 4 of 24 are taken for the test"
    assert said == [f"decoding {source}", note, note]
    assert first.classes == ("ant", "bee", "cat")
    assert np.bincount(first.train.labels).tolist() == [5, 5, 10]
    assert np.bincount(first.test.labels).tolist() == [1, 1, 2]
    assert again.test.images.tobytes() == first.test.images.tobytes()


def test_image_folders_may_have_validation_for_a_test(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        class_folders(tmp_path / split)
    data = open_data_set("folder", tmp_path).load(tmp_path / "cache", print)
    assert (len(data.train.labels), len(data.test.labels)) == (24, 24)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("1", (9, 9), 1), (255, 255, 255)),
        (Image.new("L", (300, 2), 77), (77, 77, 77)),
        (Image.new("LA", (9, 9), (77, 0)), (77, 77, 77)),
        (Image.new("RGB", (9, 9), (200, 30, 90)).quantize(), (200, 30, 90)),
        (Image.new("RGBA", (9, 9), (200, 30, 90, 0)), (200, 30, 90)),
        (Image.fromarray(np.full((9, 9), 77 * 256 + 5, np.uint16)), (77, 77, 77)),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_any_mode_and_size_becomes_rgb(
    picture: Image.Image, expected: tuple[int, int, int]
) -> None:
    file = BytesIO()
    picture.save(file, "PNG")
    image = decode(file, "here")
    assert image.shape == (32, 32, 3)
    assert tuple(image[16, 16].tolist()) == expected


def test_several_parquet_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    table = pq.read_table(tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 3), tmp_path / "train-00001-of-00002.parquet")
    data = open_data_set("cifar10", tmp_path).load(tmp_path / "cache", print)
    assert data.train.labels.tolist() == [index % 10 for index in range(40)] + [0, 1, 2]


@pytest.mark.skipif(not REAL_CIFAR10.is_dir(), reason="CIFAR-10 is not on this machine")
def test_a_slice_of_the_real_cifar10(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = pq.read_table(REAL_CIFAR10 / f"{split}.parquet").slice(0, 100)
        pq.write_table(rows, tmp_path / f"{split}.parquet")
    data = open_data_set("cifar10", tmp_path).load(tmp_path / "cache", print)
    assert data.classes == CIFAR10_CLASSES
    assert data.train.images.shape == (100, 32, 32, 3)
    first = pq.read_table(tmp_path / "test.parquet")["img"][0]["bytes"].as_py()
    expected = np.asarray(Image.open(BytesIO(first)).convert("RGB"))
    assert data.test.images[0].tobytes() == expected.tobytes()


def test_image_files_of_any_size_and_mode_become_32_by_32_rgb(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name, value in (("dark", 10), ("light", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            grey = np.full((50, 70), value, np.uint8)
            for suffix, kind in (("png", "PNG"), ("JPG", "JPEG"), ("bmp", "BMP"), ("webp", "WEBP")):
                (tmp_path / split / name / f"grey.{suffix}").write_bytes(encode(grey, kind))
            rgba = np.full((8, 8, 4), value, np.uint8)
            (tmp_path / split / name / "alpha.png").write_bytes(encode(rgba))
            (tmp_path / split / name / "notes.txt").write_text("not an image")
    data = open_data_set("folder", tmp_path).load(tmp_path / "cache", print)
    assert data.classes == ("dark", "light")
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5
    assert data.train.images.shape == (10, 32, 32, 3)
    assert np.abs(data.train.images[:5].astype(int) - 10).max() <= 2
    assert np.abs(data.train.images[5:].astype(int) - 200).max() <= 2


def test_what_was_decoded_is_read_from_the_cache_until_a_file_changes(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    cache, said = tmp_path / "cache", list[str]()
    first = open_data_set("cifar10", tmp_path).load(cache, said.append)
    again = open_data_set("cifar10", tmp_path).load(cache, said.append)
    assert said == [f"decoding {tmp_path}"]
    assert again.train.images.tobytes() == first.train.images.tobytes()
    assert again.test.labels.tolist() == first.test.labels.tolist()
    os.utime(tmp_path / "test-00000-of-00001.parquet", ns=(0, 0))
    open_data_set("cifar10", tmp_path).load(cache, said.append)
    assert said == [f"decoding {tmp_path}"] * 2
    assert len(list(cache.iterdir())) == 1


def test_a_fingerprint_stays_what_it_was(tmp_path: Path) -> None:
    """Else the keys of data that is there already, and that runs name, would change."""
    write_parquet(tmp_path)
    lines = ["folder Wanted(image='img', label=None)"]
    for split in ("train", "test"):
        file = tmp_path / f"{split}-00000-of-00001.parquet"
        os.utime(file, ns=(0, 5))
        lines.append(f"{file} {file.stat().st_size} 5\n")
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert open_data_set("folder", tmp_path, ColumnNames("img")).fingerprint == expected


def test_a_broken_cache_is_made_again(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    first = open_data_set("cifar10", tmp_path).load(tmp_path / "cache", print)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    again = open_data_set("cifar10", tmp_path).load(tmp_path / "cache", print)
    assert again.train.images.tobytes() == first.train.images.tobytes()


LOAD_FROM_HUB = """
import json, sys
from pathlib import Path
from fedbench.errors import DataError
from fedbench.host.data import sources
from fedbench.host.data.sources import open_data_set
sources.LOCAL_CIFAR10 = Path(sys.argv[1]) / "nothing"  # the checkout may have one
try:
    data = open_data_set("cifar10", None).load(Path(sys.argv[1]), lambda _: None)
    print(json.dumps([len(data.train.labels), len(data.test.labels), data.classes]))
except DataError as error:
    print(json.dumps([error.message, error.hint]))
"""


def load_from_hub(endpoint: str, folder: Path) -> list[object]:
    """In a process of its own, since huggingface_hub reads its environment on import."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_FROM_HUB, str(folder / "cache")],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: list[object] = json.loads(done.stdout)
    return answer


def test_cifar10_comes_from_hugging_face_where_no_folder_is_given(tmp_path: Path) -> None:
    (tmp_path / "plain_text").mkdir()
    write_parquet(tmp_path / "plain_text")
    with fake_hub(tmp_path) as endpoint:
        assert load_from_hub(endpoint, tmp_path) == [40, 20, list(CIFAR10_CLASSES)]
    # The hub is gone; its library still has the copy.
    assert load_from_hub(endpoint, tmp_path) == [40, 20, list(CIFAR10_CLASSES)]


def test_without_a_network_the_error_says_to_pass_a_folder(tmp_path: Path) -> None:
    message, hint = load_from_hub("http://127.0.0.1:1", tmp_path)
    assert str(message).startswith(
        "cifar10: the Hugging Face data set uoft-cs/cifar10 cannot be fetched: "
    )
    assert str(hint).startswith("pass DATA=<folder> with CIFAR-10")
    assert str(hint).endswith("or put it into data/cifar10 of this checkout")


def test_a_hub_that_breaks_off_is_no_different(tmp_path: Path) -> None:
    with fake_hub(tmp_path, break_off=True) as endpoint:
        message, hint = load_from_hub(endpoint, tmp_path)
    assert "cannot be fetched: peer closed connection" in str(message)
    assert str(hint).startswith("pass DATA=<folder> with CIFAR-10")


@contextmanager
def fake_hub(folder: Path, *, break_off: bool = False) -> Iterator[str]:
    """The four requests of a snapshot download, answered from `folder`, or half answered."""
    commit = "a" * 40
    files = sorted(folder.rglob("*.parquet"))
    names = [str(file.relative_to(folder)) for file in files]
    listing = [
        {"type": "file", "path": name, "size": file.stat().st_size, "oid": "b" * 40}
        for name, file in zip(names, files, strict=True)
    ]
    info = {"id": "uoft-cs/cifar10", "sha": commit, "siblings": [{"rfilename": n} for n in names]}

    def body(path: str) -> bytes:
        if "/tree/" in path:
            return json.dumps(listing).encode()
        if "/resolve/" in path:
            return (folder / path.partition(f"{commit}/")[2]).read_bytes()
        return json.dumps(info).encode()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(body, commit, break_off))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(
    body: Callable[[str], bytes], commit: str, break_off: bool
) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            content = body(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            content = body(self.path)
            self.wfile.write(content[: len(content) // 2] if break_off else content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def test_a_copy_of_cifar10_in_the_checkout_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, said = tmp_path / "cifar10", list[str]()
    monkeypatch.setattr(sources, "LOCAL_CIFAR10", copy)
    assert isinstance(open_data_set("cifar10", None), Hub)
    copy.mkdir()
    write_parquet(copy)
    data = open_data_set("cifar10", None).load(tmp_path / "cache", said.append)
    assert data.classes == CIFAR10_CLASSES
    assert said[0] == f"CIFAR-10 is the copy in {copy} (--data names another)"
    open_data_set("cifar10", copy).load(tmp_path / "cache", said.append)
    assert len(said) == 2, "nothing is said of a folder that was asked for"


def test_the_checkouts_copy_of_cifar10_lies_under_data() -> None:
    assert Path(__file__).resolve().parents[3] / "data" / "cifar10" == sources.LOCAL_CIFAR10
