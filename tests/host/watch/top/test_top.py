"""`fedbench top` against a server that answers as Prometheus did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pilot import lines, play
from recorded import RecordedPrometheus, serving
from textual.pilot import Pilot

from fedbench import cli
from fedbench.cli import checkout
from fedbench.host.setup.places import Places
from fedbench.host.watch.prometheus import Prometheus
from fedbench.host.watch.top.query import look
from fedbench.host.watch.top.screen import TopApp
from fedbench.host.watch.top.snapshot import RULES

Command = Callable[..., tuple[int, str, str]]
RUN = "20261125-124422-digits"
ROOT = Path(__file__).resolve().parents[4]
MAIN = "from fedbench.cli import main; main()"


@pytest.fixture
def recorded() -> Iterator[RecordedPrometheus]:
    with serving() as server:
        yield server


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `fedbench top` in an empty checkout: exit code, standard output, standard error."""
    monkeypatch.setattr(checkout, "places", Places(tmp_path))

    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedbench", "top", *argv])
        with pytest.raises(SystemExit) as done:
            cli.main()
        code = done.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


def test_without_a_terminal_it_prints_the_state_once(
    recorded: RecordedPrometheus, command: Command
) -> None:
    code, output, _ = command("--prometheus", recorded.url)
    assert code == 0
    assert RUN in output
    for client in ("laptop", "legacy-pc", "workstation"):
        assert re.search(rf"\n{client:<11}  (training|waiting|sending) ", output)
    assert "\x1b" not in output
    assert "keys" not in output


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_pipe_may_have_any_encoding(
    recorded: RecordedPrometheus, tmp_path: Path, encoding: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "top", "--once", "--prometheus", recorded.url],
        check=True, cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    text = done.stdout.decode(encoding)
    assert RUN in text
    assert ("█" if encoding == "utf-8" else "???") in text


def test_a_picture_has_every_client_and_loads_nothing(
    recorded: RecordedPrometheus, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "top.svg"
    code, _, said = command("--prometheus", recorded.url, "--svg", str(file))
    assert (code, said) == (0, f"drawn into {file}\n")
    svg = file.read_text()
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert all(client in text for client in ("laptop", "legacy-pc", "workstation"))
    assert "@font-face" not in svg
    assert "url(http" not in svg


def test_no_federation_is_up(command: Command) -> None:
    code, _, said = command("--once")
    assert code == 1
    assert said.startswith("error: no federation is up\nhint: ")


def test_no_prometheus_there(command: Command) -> None:
    with RecordedPrometheus() as server:
        url = server.url  # closed before it is asked
    code, _, said = command("--prometheus", url)
    assert code == 3
    assert said.startswith(f"error: Prometheus does not answer at {url}: ")


def test_a_prometheus_without_rules_says_so(recorded: RecordedPrometheus, command: Command) -> None:
    """As one of the user's own: the same answers, without what the rules recorded."""
    facts = recorded.data["facts"]["result"]
    facts[:] = [item for item in facts if item["metric"]["__name__"] not in RULES]
    recorded.data["rules"]["groups"] = []
    code, output, _ = command("--prometheus", recorded.url)
    assert code == 0
    assert output.startswith("this Prometheus lacks recording rules of fedbench's compose/")


def test_a_run_that_was_asked_for_stays_in_view_when_it_is_there_no_more(
    recorded: RecordedPrometheus,
) -> None:
    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        for recorded.empty, why in (
            (False, f"has no run {RUN} now"),
            (True, "has no figures of a federation"),
        ):
            recorded.data = json.loads(json.dumps(recorded.data).replace(RUN, "other"))
            await app.renew()
            await pilot.pause()
            note, run, *_ = lines(app)
            assert re.match(rf" as of \d\d:\d\d:\d\d: {recorded.url} {why}", note)
            assert run.startswith(f" {RUN}  digits")

    app = play(partial(look, Prometheus(recorded.url), RUN), scene)
    assert app.return_value is None
