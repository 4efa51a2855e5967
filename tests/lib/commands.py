"""What tests of the commands share: the golden run, and what is said of a wrong name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedbench.config import CONFIGS, available
from fedbench.config.explain import nearest

TESTS = Path(__file__).resolve().parents[1]
RUN = "20260102-030405-digits"
NAME = "expected lower-case letters, digits and '-', at most 41 characters"
MODEL = (
    "expected mobilenet_v1, mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large, "
    "a classifier of torchvision or module:callable"
)
Fedbench = Callable[..., tuple[int, str, str]]


def known(kind: str) -> str:
    """The hint of an error about a name that is not known."""
    return f"hint: known {kind}s: {', '.join(available(kind))}; others go into {CONFIGS}/{kind}s"


def unknown(kind: str, name: str) -> str:
    """What is said of a name that is not known: those like it, then all."""
    return f"unknown {kind} {name!r}{nearest(name, available(kind))}\n{known(kind)}"


def markdown_rows(out: str) -> list[list[str]]:
    lines = [line for line in out.splitlines() if "|" in line]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
