"""What sessions on a GPU measured: records as JSON lines, and the runs of the study.

A folder of results holds `<part>.jsonl` for each part, and the study's runs either as they are, in
`study/`, or packed for a journey, in `study.tar.gz.1` and the pieces that follow.

    python results.py keep FOLDER runs/gpu      adds results that came back to what is known here
    python results.py pack runs/gpu FOLDER      packs what the next session has to know
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTS = ("tests", "speed", "truth", "study")
MIB = 2**20
PIECE = 15 * MIB  # results come back as files of less than 16 MiB
PIECES = 2
_ARCHIVE = "study.tar.gz"
_RUNS = Path("study") / "runs"
_RECORDS = (
    "experiment.json", "profile.json", "run.json", "versions.json",
    "events.jsonl", "rounds.jsonl", "summary.json", "engine.log",
)  # fmt: skip
_CHECKPOINT, _MODEL = "checkpoint.safetensors", "model.safetensors"


def append(file: Path, record: dict[str, Any]) -> None:
    """Add a record to a file, and leave it on disk."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    """Return the records of a file; a last line that was torn is left out."""
    records = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def known(folder: Path, part: str, gpu: str) -> dict[str, dict[str, Any]]:
    """Return the records of a part by key, those that this kind of GPU gave."""
    records = read(folder / f"{part}.jsonl")
    return {each["key"]: each for each in records if each["machine"]["gpu"] == gpu}


def keep(source: Path, home: Path) -> None:
    """Add the records and runs of a folder of results to those at `home`."""
    home.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        before = read(home / f"{part}.jsonl")
        for record in read(source / f"{part}.jsonl"):
            if record not in before:
                append(home / f"{part}.jsonl", record)
    with tempfile.TemporaryDirectory() as folder:
        if archive := b"".join(piece.read_bytes() for piece in _pieces(source)):
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(folder, filter="data")
        for run in sorted(Path(folder).iterdir()):
            _keep_run(run, home / _RUNS / run.name)


def _keep_run(run: Path, place: Path) -> None:
    """Take a run over, unless it is as far here already."""
    if _progress(place) < _progress(run):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(run, place)


def pack(home: Path, target: Path) -> None:
    """Write the records at `home`, and what the study goes on from, into the folder `target`."""
    target.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (file := home / f"{part}.jsonl").exists():
            shutil.copyfile(file, target / file.name)
    export(home, target)


def export(home: Path, target: Path, *, models: int = 0) -> None:
    """Write the study's runs into `target`, in pieces: records, and checkpoints to go on from.

    The models of runs that are finished come along, the newest first, while all is less than
    `models` bytes.
    """
    files = list(_to_go_on(home / _RUNS))
    size = sum(file.stat().st_size for file in files)
    for file in sorted((home / _RUNS).glob(f"*/{_MODEL}"), reverse=True):
        size += file.stat().st_size
        if size < models:
            files.append(file)
    for piece in _pieces(target):
        piece.unlink()
    if files:
        _write(files, home / _RUNS, target)


def _to_go_on(runs: Path) -> Iterator[Path]:
    for run in sorted(runs.glob("*")):
        names = _RECORDS if _finished(run) else (*_RECORDS, _CHECKPOINT)
        yield from (run / name for name in names if (run / name).exists())


def _write(files: list[Path], root: Path, target: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        for file in files:
            tar.add(file, file.relative_to(root))
    content = archive.getbuffer()
    for number, first in enumerate(range(0, len(content), PIECE), 1):
        (target / f"{_ARCHIVE}.{number}").write_bytes(content[first : first + PIECE])


def _pieces(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_ARCHIVE}.[0-9]"))


def _finished(run: Path) -> bool:
    file = run / "summary.json"
    return file.exists() and json.loads(file.read_bytes())["status"] == "finished"


def _progress(run: Path) -> tuple[int, bool]:
    """Say how far a run is: complete rounds, and if it is finished. (-1, no) where it is not."""
    if not run.exists():
        return -1, False
    return len(read(run / "rounds.jsonl")), _finished(run)


def main() -> None:
    """Run the command."""
    what, source, target = sys.argv[1:]
    {"keep": keep, "pack": pack}[what](Path(source), Path(target))


if __name__ == "__main__":
    main()
