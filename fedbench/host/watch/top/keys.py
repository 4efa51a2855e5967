"""Keys as they are pressed, of a terminal that is left as it was found."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ESCAPE = b"\x1b"
_SEQUENCE_SECONDS = 0.05  # within which the rest of an arrow's bytes comes
_KEY = re.compile(rb"\x1b[\[O][\d;]*[A-Za-z~]|.", re.DOTALL)
_NAMES = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down",
    b"\r": "enter", b"\n": "enter", _ESCAPE: "escape", b"\x1a": "suspend",
}  # fmt: skip


@contextmanager
def keyboard() -> Iterator[Callable[[], None]]:
    """Each key at once, not with the line. Ctrl-C stays what it is, and so ends a plain kill.

    Ctrl-Z is a key, `suspend`: what is yielded does it, once the screen has been left.
    """
    if not sys.stdin.isatty():
        yield lambda: None
        return
    before = termios.tcgetattr(sys.stdin)
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def suspend() -> None:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        os.killpg(0, signal.SIGTSTP)  # make too, if it started this; goes on from here
        _each_at_once()

    _each_at_once()
    try:
        yield suspend
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, handler)


def pressed(seconds: float) -> list[str]:
    """The keys of the next moment, none if nobody presses any; `q` where the terminal is gone."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return []
    if not _more_within(seconds):
        return []
    typed = _read()
    if typed.endswith(_ESCAPE) and _more_within(_SEQUENCE_SECONDS):
        typed += _read()
    return named(typed) if typed else ["q"]


def named(typed: bytes) -> list[str]:
    """What a terminal sent, as keys: letters, up, down, enter, escape, suspend.

    Others are empty strings.
    """
    return [
        _NAMES.get(key, key.decode(errors="ignore") if len(key) == 1 else "")
        for key in _KEY.findall(typed)
    ]


def _each_at_once() -> None:
    tty.setcbreak(sys.stdin)
    mode = termios.tcgetattr(sys.stdin)
    mode[6][termios.VSUSP] = b"\0"  # no key sends the signal, which would leave the screen as it is
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mode)


def _more_within(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def _read() -> bytes:
    return os.read(sys.stdin.fileno(), 64)
