"""Whatever becomes of a run's files, who reads them is told in one line, or goes on without."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damage import Flips, cuts, flips, refused, turn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.errors import DamagedFileError
from fedbench.host.report import documents
from fedbench.records import quota_corrections, read_rounds, write_summary
from fedbench.records.files import MOST_BYTES, read_whole
from fedbench.records.runs import Run, RunStore

GOLDEN = Path(__file__).parent.parent / "golden" / "runs" / "20260102-030405-digits"
FILES = (
    "run.json", "experiment.json", "profile.json", "rounds.jsonl", "events.jsonl", "summary.json",
    "corrections.jsonl", "versions.json", "compose.yaml", "host_energy.json",
)  # fmt: skip
CORRECTION = {
    "time": "2026-01-02T03:04:20+00:00", "computer": "laptop",
    "quota_before": 1.0, "quota_after": 1.25, "late": 0.5, "used": 0.98,
}  # fmt: skip
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "runs" / GOLDEN.name))
    write_summary(folder)
    (folder / "corrections.jsonl").write_text(f"{json.dumps(CORRECTION)}\n" * 2)
    (folder / "versions.json").write_text('{"cores": 2}\n')
    (folder / "host_energy.json").write_text('{"joules": 60.0, "seconds": 4.0}\n')
    limits = {"mem_limit": "1024", "environment": {"FEDBENCH_CLIENT": "laptop"}}
    (folder / "compose.yaml").write_text(json.dumps({"services": {"laptop": limits}}))
    return Run(folder)


def readers(run: Run) -> Iterator[Callable[[], object]]:
    """What the commands read of a run, all but the page, which takes long."""
    yield from (run.summary, run.state, run.events, run.rounds, run.periods)
    yield from (run.profile, run.experiment, run.asked, run.versions, run.memory_limits)
    yield lambda: documents.text([run], "markdown")
    yield lambda: documents.text([run], "csv")
    yield lambda: quota_corrections.read(run.path)
    yield lambda: write_summary(run.path)


def read_all(run: Run) -> None:
    for read in readers(run):
        refused(read, *FILES)
    store = RunStore(run.path.parent)
    store.end("fedbench")  # as up, run and down do before anything else
    assert store.find(None) == run


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_anywhere_is_told_or_done_without(name: str, run: Run) -> None:
    whole = (run.path / "summary.json").read_bytes()
    for number, _ in enumerate(cuts(run.path / name)):
        if name == "summary.json" and number % 7:
            continue  # it is made anew each time
        if number % 29 == 0 or name in ("run.json", "versions.json"):
            read_all(run)
        else:
            refused(run.summary, *FILES)
            refused(run.events, *FILES)
        (run.path / "summary.json").unlink(missing_ok=True)
    (run.path / "summary.json").write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
@quick
@given(bits=flips)
def test_bits_that_turn_are_told_or_done_without(name: str, run: Run, bits: Flips) -> None:
    path = run.path / name
    if not path.exists():  # a summary that was damaged before is written anew
        write_summary(run.path)
    whole = path.read_bytes()
    path.write_bytes(turn(whole, bits))
    read_all(run)
    path.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
@quick
@given(
    content=st.binary(max_size=300) | st.sampled_from([b"[" * 10**5, b'{"a":' * 10**5, b"9" * 5000])
)
def test_any_bytes_are_told_or_done_without(name: str, run: Run, content: bytes) -> None:
    whole = (run.path / name).read_bytes()
    (run.path / name).write_bytes(content)
    read_all(run)
    (run.path / name).write_bytes(whole)


@pytest.mark.parametrize("place", range(0, 2700, 900))
@pytest.mark.parametrize("name", ["run.json", "experiment.json", "rounds.jsonl", "events.jsonl"])
def test_a_page_is_written_of_what_is_damaged_or_refused(name: str, place: int, run: Run) -> None:
    path = run.path / name
    for shift in range(2):
        whole = path.read_bytes()
        path.write_bytes(turn(whole, [(place + 37 * shift, shift)]))
        refused(lambda: documents.text([run], "html"), *FILES)
        path.write_bytes(whole)


def test_rounds_that_were_cut_off_are_those_before(run: Run) -> None:
    (run.path / "summary.json").unlink()
    first, _ = run.rounds()
    for content in cuts(run.path / "rounds.jsonl"):
        whole = content.count(b"\n")
        assert [record.round for record in run.summary().rounds] == [1, 2][:whole]
        assert read_rounds(run.path) == [first][:whole]


def test_a_line_that_is_broken_in_the_middle_is_named(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    path = run.path / "rounds.jsonl"
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first[:100], second, b""]))
    with pytest.raises(DamagedFileError, match=r"rounds\.jsonl line 1 is damaged: ") as caught:
        read_rounds(run.path)
    assert caught.value.exit_code == 1
    assert [record.round for record in run.rounds()] == [2], "who only looks goes on without it"
    assert [record.round for record in run.rounds()] == [2]
    assert caplog.messages == [f"{path}: 1 damaged lines are skipped: 1"], "it is told once"


def test_half_an_event_is_told_when_the_run_is_over(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    path = run.path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    assert run.events()[-1]["event"] == "recorded"
    assert caplog.messages == [], "it may be written right now"
    assert write_summary(run.path).error == "the server died"
    assert caplog.messages == [f"{path}: half a line at its end is dropped"]


def test_a_damaged_summary_is_made_anew(run: Run) -> None:
    before = run.summary()
    (run.path / "summary.json").write_bytes(b"\0" * 4096)
    assert run.summary() == before


def test_one_damaged_run_is_no_matter_of_the_others(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    store = RunStore(run.path.parent)
    facts = json.loads((run.path / "run.json").read_text()) | {"project": "fedbench"}
    for name in ("a", "b", "c"):
        shutil.copytree(run.path, store.path / name)
        (store.path / name / "run.json").write_text(json.dumps(facts))
        (store.path / name / "summary.json").unlink()
    (store.path / "a" / "run.json").write_text("{")
    (store.path / "b" / "rounds.jsonl").write_text("\n{}\n{}\n")
    store.end("fedbench")
    assert store.find("c").state() == "finished"
    assert [message.split(" is left out: ")[0] for message in caplog.messages] == ["run a", "run b"]


def test_a_file_is_not_read_beyond_a_bound_nor_waited_for(tmp_path: Path) -> None:
    large, pipe = tmp_path / "large.json", tmp_path / "pipe.json"
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    os.mkfifo(pipe)
    for path, why in {large: "bytes", pipe: "is no file", tmp_path: "is no file"}.items():
        with pytest.raises(DamagedFileError, match=why):
            read_whole(path)
