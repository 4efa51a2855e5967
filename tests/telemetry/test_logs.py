from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import FrameType
from typing import Any

import pytest

from fedbench.telemetry import logs

log = logging.getLogger("fedbench.client")
flower = logging.getLogger("flwr.something")


class Stream(io.StringIO):
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def stream() -> Iterator[Stream]:
    """Logging of a laptop's container into memory; undone at the end."""
    root, flwr = logging.getLogger(), logging.getLogger("flwr")
    before = root.handlers[:], root.level, flwr.handlers[:]
    root.handlers.clear()  # pytest's own, which `force` would close
    stream = Stream()
    with logs.about():
        logs.configure(stream, client="laptop", device="laptop-i5")
        yield stream
    logging.captureWarnings(False)
    root.handlers[:], flwr.handlers[:] = before[0], before[2]
    root.setLevel(before[1])


def test_a_line_says_who_wrote_it_and_when(stream: Stream) -> None:
    log.info("connected as node %s", 7)
    (line,) = stream.lines()
    written = datetime.fromisoformat(line.pop("time"))
    assert written.utcoffset() == timedelta(0)
    assert line == {
        "level": "info", "logger": "fedbench.client", "message": "connected as node 7",
        "client": "laptop", "device": "laptop-i5", "run": None, "round": None,
    }  # fmt: skip


def test_a_line_says_in_which_run_and_round(stream: Stream) -> None:
    with logs.about(run="r1"):
        with logs.about(round=3):
            thread = threading.Thread(target=log.warning, args=("from another thread",))
            thread.start()
            thread.join()
        log.info("between rounds")
    log.info("after the run")
    assert [(line["run"], line["round"]) for line in stream.lines()] == [
        ("r1", 3), ("r1", None), (None, None),
    ]  # fmt: skip


def test_what_lines_are_about_ends_with_an_exception(stream: Stream) -> None:
    with pytest.raises(KeyError), logs.about(run="r1"):
        raise KeyError
    log.info("after")
    assert stream.lines()[0]["run"] is None


def test_a_line_of_another_thread_says_who_wrote_it_while_a_block_ends(stream: Stream) -> None:
    """It may come between any two lines of `about`."""

    def meanwhile(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code.co_filename == logs.__file__:
            log.info("meanwhile")
        return meanwhile

    before = sys.gettrace()
    sys.settrace(meanwhile)
    try:
        with logs.about(run="r1"):
            pass
    finally:
        sys.settrace(before)
    lines = stream.lines()
    assert {line.get("run") for line in lines} == {None, "r1"}
    assert {(line.get("client"), line.get("device")) for line in lines} == {("laptop", "laptop-i5")}


def test_an_exception_is_one_field_of_one_line(stream: Stream) -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("the ClientApp raised an exception")
    (line,) = stream.lines()
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: a\nb")


def test_what_flower_says_is_kept_below_what_we_say(stream: Stream) -> None:
    flower.debug("not kept")
    flower.info("\n  starting  ")
    flower.warning("deprecated")
    levels = [(line["level"], line["message"]) for line in stream.lines()]
    assert levels == [("debug", "starting"), ("warning", "deprecated")]


def test_flower_has_no_handler_of_its_own(stream: Stream) -> None:
    logging.getLogger("flwr").addHandler(logging.StreamHandler(io.StringIO()))  # as its import does
    logs.adopt_flower()
    flower.info("once")
    assert logging.getLogger("flwr").handlers == []
    assert [line["message"] for line in stream.lines()] == ["once"]


def test_requests_are_not_logged_one_by_one_but_their_warnings_are(stream: Stream) -> None:
    logging.getLogger("httpx").info("HTTP Request")
    logging.getLogger("httpx").warning("odd")
    assert [line["message"] for line in stream.lines()] == ["odd"]


def test_a_python_warning_is_a_line(stream: Stream) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # anew, for pytest has its own hook in place
        warnings.warn("beware", RuntimeWarning, stacklevel=1)
    (line,) = stream.lines()
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "RuntimeWarning: beware" in line["message"]


def test_what_is_not_json_is_text(stream: Stream) -> None:
    with logs.about(round={1}):
        log.info("ünï\ncode")
    (line,) = stream.lines()
    assert (line["message"], line["round"]) == ("ünï\ncode", "{1}")
    assert "ünï" in stream.getvalue()
