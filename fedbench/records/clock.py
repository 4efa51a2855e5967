"""Wall seconds and the seconds of emulated devices: the one place where one becomes the other.

A host that is too small for its devices slows them all by one factor, the dilation. No other module
multiplies or divides by it (a test sees to that).
"""

from __future__ import annotations

from typing import Any, NewType

from pydantic_core import CoreSchema, core_schema

WallSeconds = NewType("WallSeconds", float)
"""Seconds of this host's clock."""
EmulatedSeconds = NewType("EmulatedSeconds", float)
"""Seconds of the devices that are emulated: what the same would take on the real ones."""


class Dilation(float):
    """Wall seconds for each emulated second; 1 where nothing is slowed."""

    def emulated(self, wall: WallSeconds) -> EmulatedSeconds:
        """Return the emulated seconds that pass in so many wall seconds."""
        return EmulatedSeconds(wall / float(self))

    def wall(self, emulated: EmulatedSeconds) -> WallSeconds:
        """Return the wall seconds that so many emulated seconds take."""
        return WallSeconds(emulated * float(self))

    def emulated_rate(self, rate: float) -> float:
        """Return what happens per emulated second, where `rate` is per wall second."""
        return rate * float(self)

    def wall_rate(self, rate: float) -> float:
        """Return what happens per wall second, where `rate` is per emulated second."""
        return rate / float(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.float_schema())


REAL_TIME = Dilation(1.0)
"""Nothing is slowed."""
