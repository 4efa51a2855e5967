from __future__ import annotations

import json
import os
import shutil
import threading
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest
from fake_containers import START, FakeContainers

from fedbench.engines.containers.runtime import daemon
from fedbench.errors import ConfigError, DockerError, FedbenchError
from fedbench.host.setup.places import PROJECT, Places
from fedbench.host.watch import log_sources, logs
from fedbench.host.watch.log_lines import LogLine
from fedbench.host.watch.log_sources import LogFilter, Sources
from fedbench.records.runs import Run

GOLDEN = Path(__file__).parents[2] / "golden" / "runs" / "20260102-030405-digits"
R1 = GOLDEN.name


def ours(message: str, level: str = "info", run: str | None = R1, **who: str) -> str:
    fields = {"time": START.isoformat(), "level": level, "message": message, "run": run}
    return json.dumps(fields | (who or {"client": "laptop"}))


@pytest.fixture(autouse=True)
def logged(fake: FakeContainers) -> None:
    """What each container of a federation has logged."""
    for name in ("server", "laptop", "prometheus"):
        fake.add(name)
    fake.add_joined("visitor")
    fake.say("server", (1, ours("round", service="server")), (4, "Segmentation fault"))
    fake.say("laptop", (0, ours("here", run=None)), (2, ours("training")), (3, ours("x", "debug")))
    fake.say("visitor", (2.5, ours("late", "warning", client="visitor")))
    fake.say("prometheus", (0.5, "level=INFO msg=ready"))


@pytest.fixture
def sources(fake: FakeContainers) -> Sources:
    return Sources(fake, PROJECT)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    make_run(tmp_path / "runs" / R1)
    return Places(tmp_path)


def make_run(folder: Path, project: str = PROJECT) -> Run:
    """A run that was made at `START` and finished 35 s later; nobody wrote its summary yet."""
    shutil.copytree(GOLDEN, folder)
    facts = json.loads((GOLDEN / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"project": project}))
    return Run(folder)


def told(lines: list[LogLine]) -> list[tuple[str, str]]:
    return [(line.source, line.fields["message"]) for line in lines]


def test_lines_of_all_are_in_the_order_of_time(sources: Sources) -> None:
    assert told(logs.history(sources, LogFilter())) == [
        ("laptop", "here"), ("server", "round"), ("laptop", "training"), ("visitor", "late"),
        ("server", "Segmentation fault"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "messages"),
    [
        (LogFilter(("visitor",)), ["late"]),
        (LogFilter(("prometheus", "server")),
         ["level=INFO msg=ready", "round", "Segmentation fault"]),
        (LogFilter(level="debug", since=START + timedelta(seconds=2.5)),
         ["late", "x", "Segmentation fault"]),
        (LogFilter(level="warning"), ["late"]),
        (LogFilter(tail=2), ["late", "Segmentation fault"]),
        (LogFilter(tail=0), []),
    ],
)  # fmt: skip
def test_lines_are_chosen(wanted: LogFilter, messages: list[str], sources: Sources) -> None:
    assert [message for _, message in told(logs.history(sources, wanted))] == messages


def test_an_unknown_client_is_an_error_that_names_those_there_are(sources: Sources) -> None:
    with pytest.raises(ConfigError) as caught:
        logs.history(sources, LogFilter(("desktop",)))
    assert caught.value.message == "no client or service 'desktop'"
    assert caught.value.hint == "there are laptop, prometheus, server, visitor"


def test_without_containers_there_is_no_federation() -> None:
    with pytest.raises(FedbenchError, match="no federation is up"):
        logs.history(Sources(FakeContainers(), PROJECT), LogFilter())


def test_without_a_daemon_there_is_no_federation(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "find", lambda: None)
    with pytest.raises(FedbenchError, match="no federation is up"):
        list(logs.lines(LogFilter(), follow=False))


def test_a_log_that_cannot_be_had_is_an_error(fake: FakeContainers, sources: Sources) -> None:
    fake.refusals["logs server"] = "no such container"
    with pytest.raises(DockerError, match="the log of server cannot be had: no such container"):
        logs.history(sources, LogFilter())


def test_arguments_of_the_command() -> None:
    assert LogFilter.parse([]) == LogFilter(tail=200)
    assert LogFilter.parse(["laptop"], tail=0).tail == 0
    run = Run(GOLDEN)
    assert LogFilter.parse([], run=run, level="error") == LogFilter((), "error", run)
    since = LogFilter.parse([], since="5m")
    assert since.tail is None
    assert since.since is not None


def test_live_lines_are_in_order_and_whole(sources: Sources) -> None:
    live = log_sources.live(sources, LogFilter(), START + timedelta(seconds=1))
    assert told(list(islice(live, 4))) == [
        ("server", "round"), ("laptop", "training"), ("visitor", "late"),
        ("server", "Segmentation fault"),
    ]  # fmt: skip


def test_a_container_that_comes_later_is_followed(
    fake: FakeContainers, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sources, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(log_sources, "GATHER_SECONDS", 0.02)
    live = log_sources.live(sources, LogFilter(("server", "guest")), START + timedelta(seconds=4))
    assert told([next(live)]) == [("server", "Segmentation fault")]
    fake.add("guest")
    fake.say("guest", (6, ours("hello", client="guest")))
    fake.say("server", (4, "old"), (7, "back again"))
    assert sorted(told([next(live), next(live)])) == [("guest", "hello"), ("server", "back again")]


def test_a_run_has_the_lines_that_name_it_and_those_of_no_run_in_its_time(
    fake: FakeContainers, places: Places, sources: Sources
) -> None:
    """SuperLink's, a stock ClientApp's and a crash's last words name no run."""
    fake.say("server", (-1, "before"), (35, "at its end"), (36, "after"))
    fake.say("laptop", (3.5, ours("other", run="another")))
    run = Run(places.runs / R1)
    found = [message for _, message in told(logs.history(sources, LogFilter(run=run)))]
    assert found == ["here", "round", "training", "late", "Segmentation fault", "at its end"]
    elsewhere = make_run(places.runs / "elsewhere" / R1, "another-project")
    found = [message for _, message in told(logs.history(sources, LogFilter(run=elsewhere)))]
    assert found == ["round", "training", "late"]


def test_lines_of_no_run_are_followed_for_as_long_as_the_run_goes_on(
    fake: FakeContainers, places: Places, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sources, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(log_sources, "GATHER_SECONDS", 0.02)
    run = Run(places.runs / R1)
    events = text(run.path / "events.jsonl").splitlines(keepends=True)
    (run.path / "events.jsonl").write_text("".join(events[:-1]))
    fake.forget("server")
    fake.say("server", (50, "while it goes on"))
    live = log_sources.live(sources, LogFilter(("server",), run=run), START)
    assert told([next(live)]) == [("server", "while it goes on")]
    end = {"time": (START + timedelta(seconds=60)).isoformat(), "event": "finished"}
    (run.path / "events.jsonl").write_text("".join(events[:-1]) + json.dumps(end) + "\n")
    fake.say("server", (70, "after its end"), (71, ours("its last", service="server")))
    assert told([next(live)]) == [("server", "its last")]


def test_a_run_keeps_its_lines_after_its_containers(
    fake: FakeContainers, places: Places, sources: Sources
) -> None:
    fake.say("laptop", (3.5, ours("other", run="another")))
    run = Run(places.runs / R1)
    logs.keep(sources, run)
    fake.drop()

    def messages(wanted: LogFilter) -> list[str]:
        return [message for _, message in told(list(logs.lines(wanted, follow=False)))]

    mine = ["here", "round", "training", "late", "Segmentation fault"]
    assert messages(LogFilter.parse([], run=run)) == mine
    assert messages(LogFilter.parse(["laptop"], run=run, level="debug")) == ["here", "training"]
    with pytest.raises(ConfigError, match="no client or service 'desktop'"):
        messages(LogFilter.parse(["desktop"], run=run))


def ended(run: Run) -> None:
    """Its summary is there, and older than what was kept of it."""
    (run.path / "summary.json").write_text("{}")
    os.utime(run.path / "summary.json", (0, 0))


def test_of_a_run_that_goes_on_new_lines_come_too(
    fake: FakeContainers, places: Places, sources: Sources
) -> None:
    run = Run(places.runs / R1)
    logs.keep(sources, run)
    fake.forget("laptop")
    fake.say("laptop", (2, ours("training")), (9, ours("again")))
    wanted = LogFilter.parse(["laptop"], run=run)
    assert [message for _, message in told(list(logs.lines(wanted, follow=False)))] == [
        "here", "training", "again",
    ]  # fmt: skip
    ended(run)
    assert [message for _, message in told(list(logs.lines(wanted, follow=False)))] == [
        "here", "training",
    ], "its folder has all of them"  # fmt: skip


def test_what_is_not_kept_of_a_run_comes_from_the_containers(
    fake: FakeContainers, places: Places, sources: Sources
) -> None:
    run = Run(places.runs / R1)
    logs.keep(sources, run)
    ended(run)

    def messages(wanted: LogFilter) -> list[str]:
        return [message for _, message in told(list(logs.lines(wanted, follow=False)))]

    debug = LogFilter.parse(["laptop"], run=run, level="debug")
    monitoring = LogFilter.parse(["prometheus"], run=run)
    assert messages(debug) == ["here", "training", "x"]
    assert messages(monitoring) == ["level=INFO msg=ready"]
    fake.drop()
    fake.add("laptop")  # of a federation that was brought up since
    assert messages(debug) == ["here", "training"]
    with pytest.raises(ConfigError, match="no client or service 'prometheus'") as caught:
        messages(monitoring)
    assert caught.value.hint == "there are laptop, server, visitor"


def test_without_containers_and_folder_there_is_nothing_of_a_run(
    fake: FakeContainers, places: Places
) -> None:
    fake.drop()
    with pytest.raises(FedbenchError, match="no federation is up"):
        list(logs.lines(LogFilter(run=Run(places.runs / R1)), follow=False))


def test_a_run_that_goes_on_keeps_each_line_once(
    fake: FakeContainers, places: Places, sources: Sources
) -> None:
    run = Run(places.runs / R1)
    logs.keep(sources, run)
    fake.say("laptop", (9, ours("again")))
    logs.keep(sources, run)
    text = (run.path / "logs.jsonl").read_text()
    assert (text.count("training"), text.count("Segmentation"), text.count("again")) == (1, 1, 1)


def test_two_that_keep_a_run_at_once_keep_each_line_once(
    fake: FakeContainers, places: Places, sources: Sources
) -> None:
    """The governor saw its end, and the federation is taken down: the later one has more lines."""
    run, reading, go_on = Run(places.runs / R1), threading.Event(), threading.Event()

    def slowly() -> None:
        if threading.current_thread() is governor:
            reading.set()
            assert go_on.wait(10)

    fake.on_logs = slowly
    governor = threading.Thread(target=logs.keep, args=(sources, run))
    teardown = threading.Thread(target=logs.keep, args=(sources, run))
    governor.start()
    assert reading.wait(10)
    fake.say("server", (9, ours("last", service="server")))
    fake.say("laptop", (9, ours("last", client="laptop")))
    teardown.start()
    go_on.set()
    governor.join()
    teardown.join()
    once = ["here", "round", "training", "late", "Segmentation fault", "last", "last"]
    messages = [line.fields["message"] for line in logs.kept(run)]
    assert sorted(messages) == sorted(once)


def test_all_runs_here_are_kept_but_earlier_ones_that_were_after_their_end(
    fake: FakeContainers, places: Places
) -> None:
    for name, project in (("r1", PROJECT), ("r2", PROJECT), ("r3", PROJECT), ("r4", "another")):
        make_run(places.runs / name, project)
        fake.say("server", (5, ours(f"of {name}", run=name, service="server")))
    for name, first, second in (
        ("r1", "summary.json", logs.FILE),
        ("r2", logs.FILE, "summary.json"),
        ("r3", "summary.json", logs.FILE),
    ):
        for seconds, file in enumerate((first, second)):
            (places.runs / name / file).write_text("")
            os.utime(places.runs / name / file, (seconds, seconds))
    said: list[str] = []
    logs.keep_all(places, fake, said.append)
    kept = {name: text(places.runs / name / logs.FILE) for name in ("r1", "r2", "r3", "r4")}
    assert ("of r2" in kept["r2"], "of r3" in kept["r3"]) == (True, True)
    assert (kept["r1"], kept["r4"], said) == ("", "", [])


def test_a_log_that_cannot_be_kept_is_told_and_stops_nothing(
    fake: FakeContainers, places: Places
) -> None:
    fake.refusals["logs server"] = "no such container"
    said: list[str] = []
    logs.keep_all(places, fake, said.append)
    assert said == [
        "note: what was logged cannot be kept: the log of server cannot be had: no such container"
    ]
    fake.drop()
    logs.keep_all(places, fake, said.append)
    assert len(said) == 1


def test_a_daemon_that_does_not_answer_in_time_is_an_error(
    fake: FakeContainers, sources: Sources
) -> None:
    fake.refusals["logs"] = "read timed out"
    with pytest.raises(DockerError, match="cannot be had: read timed out"):
        logs.history(sources, LogFilter())
    fake.refusals["list"] = "read timed out"
    with pytest.raises(DockerError, match="Docker lists no containers: read timed out"):
        sources.all()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (FileNotFoundError(2, "No such file"), "FileNotFoundError: [Errno 2] No such file"),
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError("created"), "KeyError: 'created'"),
    ],
)
def test_a_run_that_cannot_be_kept_hinders_neither_the_others_nor_the_teardown(
    error: Exception,
    reason: str,
    fake: FakeContainers,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = make_run(places.runs / "r9")
    write = logs.replace_text

    def failing(path: Path, text: str) -> None:
        if path.parent.name == R1:
            raise error
        write(path, text)

    monkeypatch.setattr(logs, "replace_text", failing)
    said: list[str] = []
    logs.keep_all(places, fake, said.append)
    assert said == [f"note: what was logged cannot be kept: {reason}"]
    assert "Segmentation fault" in (last.path / logs.FILE).read_text()


def test_a_damaged_run_is_told_and_stops_nothing(
    fake: FakeContainers, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make_run(places.runs / "20260102-030406-whole")
    damaged = places.runs / R1 / "run.json"
    damaged.write_text("{\n")
    logs.keep_all(places, fake, print)
    (note,) = caplog.messages
    assert note.startswith(f"run {R1} is left out: {damaged} is damaged: ")
    assert "Segmentation fault" in (whole.path / logs.FILE).read_text()


def test_damaged_lines_that_were_kept_are_dropped_and_told(
    fake: FakeContainers, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    file = places.runs / R1 / logs.FILE
    file.write_text('{\n{"message": "kept", "level": "info"}\n{"message": 1, "le')
    logs.keep_all(places, fake, print)
    messages = [message for _, message in told(logs.kept(Run(file.parent)))]
    assert messages[0] == "kept"
    assert "Segmentation fault" in messages
    assert caplog.messages == [f"{file}: 1 damaged lines are skipped: 1"]


def test_a_kept_line_that_names_nobody_is_read_when_the_run_goes_on(
    fake: FakeContainers, places: Places, sources: Sources
) -> None:
    run = Run(places.runs / R1)
    (run.path / logs.FILE).write_text('{"message": "loaded", "level": "info"}\n')
    fake.say("laptop", (3, '{"message": "mine", "level": "info"}'))
    for _ in range(2):
        logs.keep(sources, run)
    assert [pair for pair in told(logs.kept(run)) if pair[1] in ("loaded", "mine")] == [
        ("unknown", "loaded"), ("laptop", "mine"),
    ]  # fmt: skip


def test_a_container_that_goes_while_it_is_looked_at_has_no_lines(
    fake: FakeContainers, sources: Sources
) -> None:
    fake.on_logs = lambda: fake.drop("laptop")
    assert [source for source, _ in told(logs.history(sources, LogFilter()))] == [
        "server", "visitor", "server",
    ]  # fmt: skip


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
