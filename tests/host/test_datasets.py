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

from fedbench.host import digits
from fedbench.host.datasets import CIFAR10_CLASSES, local_cifar10, open_data_set

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
from fedbench.host.datasets import open_data_set, local_cifar10
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


@contextmanager
def fake_hub(folder: Path) -> Iterator[str]:
    """The four requests of a snapshot download, answered from `folder`."""
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

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(body, commit))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(body: Callable[[str], bytes], commit: str) -> type[http.server.BaseHTTPRequestHandler]:
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
            self.wfile.write(body(self.path))

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def test_a_copy_of_cifar10_in_or_beside_the_checkout_is_found(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    assert local_cifar10(checkout) is None
    beside = tmp_path / "shared" / "data" / "cifar10-jpeg"
    beside.mkdir(parents=True)
    assert local_cifar10(checkout) == beside
    own = checkout / "data" / "cifar10"
    own.mkdir(parents=True)
    assert local_cifar10(checkout) == own
