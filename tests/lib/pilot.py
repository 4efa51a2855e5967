"""A full-screen `fedbench top` in a test: keys that Textual's pilot presses, and what is seen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from xml.etree import ElementTree

from textual.pilot import Pilot

from fedbench.host.watch.top.screen import TopApp
from fedbench.host.watch.top.state import Snapshot

Scene = Callable[[TopApp, Pilot[BaseException]], Awaitable[None]]


def play(look: Callable[[], Snapshot], scene: Scene, size: tuple[int, int] = (120, 24)) -> TopApp:
    """Run a scene on a screen of this many columns and lines; it is renewed by the scene alone."""

    async def run() -> TopApp:
        app = TopApp(look, refresh_seconds=3600)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await scene(app, pilot)
        return app

    return asyncio.run(run())


def seen(
    state: Snapshot, *keys: str, width: int = 120, height: int = 24, after: Iterable[Snapshot] = ()
) -> list[str]:
    """Return the lines of the screen once keys were pressed and then other states have come."""
    shown: list[str] = []
    states = iter([state, *after])

    async def scene(app: TopApp, pilot: Pilot[BaseException]) -> None:
        await pilot.press(*keys)
        for _ in after:
            await app.renew()
        await pilot.pause()
        shown.extend(lines(app))

    app = play(lambda: next(states), scene, (width, height))
    assert app.return_value is None  # else a defect has ended it
    return shown


def lines(app: TopApp) -> list[str]:
    """Return the lines of text on the screen, from a picture of it."""
    rows = [[" "] * app.size.width for _ in range(app.size.height)]
    for element in ElementTree.fromstring(app.export_screenshot()).iter():
        line = re.search(r"-line-(\d+)\)", element.get("clip-path", ""))
        if line and element.text:
            column = round(float(element.attrib["x"]) / 12.2)
            text = element.text.replace("\N{NO-BREAK SPACE}", " ")
            rows[int(line[1])][column : column + len(text)] = text
    return ["".join(row).rstrip() for row in rows]
