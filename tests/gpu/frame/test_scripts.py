"""The commands themselves: in small on the CPU, in time whatever hangs, and packing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

FOLDER = Path(__file__).resolve().parents[1]
ROOT = FOLDER.parents[1]
MIB = 2**20
PASSED = {"outcome": "passed", "machine": {"gpu": "none"}}


def script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(FOLDER / name), *arguments], env=os.environ | environment,
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_session_in_small_goes_through_all_parts(tmp_path: Path) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    results.mkdir()
    # On a CPU nothing is captured: an earlier session seems to have passed these.
    passed = {"key": "tests/gpu/test_capture.py", **PASSED}
    (results / "tests.jsonl").write_text(json.dumps(passed) + "\n")
    done = script(
        "run.sh", "220", GPU="none", OUT=str(out), PYTHON=sys.executable, PACK=str(tmp_path),
        RESULTS=str(results),
    )  # fmt: skip
    log = (out / "session.log").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log
    for part in ("tests", "speed", "truth", "study"):
        assert f"the part {part} ended: 0 records" not in log
        assert f"the part {part} ended: " in log
        records = [json.loads(line) for line in (out / f"{part}.jsonl").read_text().splitlines()]
        assert records
        assert all(each["machine"]["gpu"] == "none" for each in records)
        keys = [each["key"] for each in records]
        assert len(set(keys)) == len(keys)
    assert len(list(out.iterdir())) <= 8
    assert all(file.stat().st_size < 16 * MIB for file in out.iterdir())
    statuses = [each.get("status") for each in records if "status" in each]
    assert statuses == ["interrupted", "finished"], "the study stopped once, and went on"


def test_it_is_over_in_time_whatever_hangs(tmp_path: Path) -> None:
    hangs = program(
        tmp_path / "python",
        "#!/bin/bash\n[ \"$1\" != -c ] || exit 0\ntrap '' TERM INT\nwhile :; do sleep 1; done\n",
    )
    began = time.monotonic()
    done = script("run.sh", "8", GPU="none", OUT=str(tmp_path / "out"), PYTHON=hangs)
    assert done.returncode != 0
    assert time.monotonic() - began < 8


def test_without_flower_it_says_what_brings_it(tmp_path: Path) -> None:
    lacks = program(tmp_path / "python", "#!/bin/sh\nexit 1\n")
    done = script("run.sh", "8", OUT=str(tmp_path / "out"), PYTHON=lacks, PACK=str(tmp_path))
    assert done.returncode == 2
    assert "tests/gpu/pack.sh" in done.stderr


def test_without_a_gpu_it_measures_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = script(
        "run.sh", "60", OUT=str(out), PYTHON=sys.executable, PACK=str(tmp_path),
        RESULTS=str(tmp_path / "results"), CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert done.returncode == 2
    assert "GPU=none" in done.stdout
    assert list(out.iterdir()) == []


@pytest.fixture
def downloads(tmp_path: Path) -> str:
    """A Python whose `pip download` makes empty wheels, and keeps what was asked for."""
    return program(
        tmp_path / "python",
        f"""#!/bin/bash
if [ "$1 $2 $3" != "-m pip download" ]; then exec {sys.executable} "$@"; fi
while [ $# -gt 0 ]; do
  case $1 in
    --dest)
      mkdir -p "$2"
      for name in flwr numpy pyarrow uvicorn uv; do touch "$2/$name-1-py3-none-any.whl"; done ;;
    --requirement) cp "$2" {tmp_path}/requirements.txt ;;
  esac
  shift
done
""",
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.parquet").write_text(split)
    return folder


def pack(tmp_path: Path, downloads: str, data: Path) -> subprocess.CompletedProcess[str]:
    places = {"PACK": str(tmp_path / "pack"), "RESULTS": str(tmp_path / "results")}
    return script("pack.sh", DATA=str(data), PYTHON=downloads, **places)


def test_what_is_missing_there_is_packed(tmp_path: Path, downloads: str, data: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "speed.jsonl").write_text('{"key": "a"}\n')
    done = pack(tmp_path, downloads, data)
    assert done.returncode == 0, done.stderr
    assert "tests/gpu/run.sh 420" in done.stdout
    packed = {str(file.relative_to(tmp_path / "pack")) for file in (tmp_path / "pack").glob("*/*")}
    assert packed == {
        "wheels/flwr-1-py3-none-any.whl",
        "wheels/uvicorn-1-py3-none-any.whl",
        "data/train.parquet",
        "data/test.parquet",
        "results/speed.jsonl",
    }
    asked = (tmp_path / "requirements.txt").read_text().splitlines()
    with (ROOT / "pyproject.toml").open("rb") as file:
        node = tomllib.load(file)["project"]["optional-dependencies"]["node"]
    assert [name for name in asked if name.startswith("flwr")] == [
        name for name in node if name.startswith("flwr")
    ]
    assert not [name for name in asked if name.startswith("torch")]


def test_what_is_too_much_is_refused(tmp_path: Path, downloads: str, data: Path) -> None:
    with (data / "train.parquet").open("wb") as file:
        file.truncate(61 * MIB)
    done = pack(tmp_path, downloads, data)
    assert done.returncode == 1
    assert "too much to carry" in done.stderr


def test_without_data_it_says_what_it_needs(tmp_path: Path, downloads: str) -> None:
    done = pack(tmp_path, downloads, tmp_path)
    assert done.returncode == 2
    assert "train*.parquet" in done.stderr


def test_results_that_came_back_are_kept(tmp_path: Path) -> None:
    back = tmp_path / "back"
    back.mkdir()
    (back / "truth.jsonl").write_text('{"key": "a"}\n')
    done = script("keep.sh", str(back), RESULTS=str(tmp_path / "results"), PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "truth.jsonl").read_text() == '{"key": "a"}\n'
