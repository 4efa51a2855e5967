"""fedbench: a federation of unequal computers on one machine."""

__version__ = "0.1.0"
