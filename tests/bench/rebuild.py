"""From an edited Python file to the image that `fedbench up` starts, in a copy of this checkout.

The peer is the Dockerfile that one would write first: it copies the sources before it installs the
packages, and installs them anew after each edit (from pip's cache; measured once).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import containers
from row import Row, row

from fedbench.host.setup import bootstrap

TURNS = 3
NEEDED = (".dockerignore", "pyproject.toml", "docker", "fedbench")
EDITED = "fedbench/client/app.py"


def rows(command: str) -> Iterator[Row]:
    containers.image()
    with tempfile.TemporaryDirectory() as folder:
        checkout = _copy(Path(folder))
        try:
            seconds = [_rebuild(checkout) for _ in range(TURNS)]
            _copy_sources_first(checkout / "docker" / "Dockerfile")
            peer = _edit_and_build(checkout)[0]
        finally:
            _build(containers.ROOT)  # the tag is this checkout's again
    yield row("rebuild", seconds, "s", command, [peer], more_is_better=False)


def _copy_sources_first(dockerfile: Path) -> None:
    text, install = dockerfile.read_text(), "RUN --mount=type=bind,from=requirements"
    assert text.count(install) == 1
    dockerfile.write_text(text.replace(install, f"COPY fedbench /opt/sources\n{install}"))


def _copy(folder: Path) -> Path:
    for name in NEEDED:
        source = containers.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy2(source, folder / name)
    return folder


def _rebuild(checkout: Path) -> float:
    seconds, steps = _edit_and_build(checkout)
    installed = [step for step in steps if "pip install" in step or "apt-get" in step]
    if installed:
        raise RuntimeError(f"an edited Python file had packages installed anew: {installed}")
    return seconds


def _edit_and_build(checkout: Path) -> tuple[float, list[str]]:
    with (checkout / EDITED).open("a") as file:
        file.write(f"# edited at {time.time()}\n")
    start = time.perf_counter()
    steps = _build(checkout)
    return time.perf_counter() - start, steps


def _build(checkout: Path) -> list[str]:
    """The image of a checkout as `fedbench up` makes it; the steps that were not cached."""
    steps: list[str] = []
    bootstrap.ensure_client_image(containers.talk(), steps.append, root=checkout)
    return steps
