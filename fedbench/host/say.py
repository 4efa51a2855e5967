"""How a command's work tells the user how it goes, a line at a time."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
