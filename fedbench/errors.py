"""The errors that a user can meet, each with an exit code that scripts can trust.

FedbenchError             1  something that fedbench reports instead of a traceback
├── ConfigError           2  a file, a key or a value that is not what was expected
├── HostError             3  the host lacks something: Docker, memory, a free port
│   └── DockerError       3  no daemon, too old, no compose, or a docker command failed
├── DataError             4  a data set is missing, empty or of the wrong shape
├── RunError              5  a run failed, or does not exist
│   └── InUseError        5  another fedbench works on the same federation
├── FidelityError         6  an emulated device is farther from the real one than it may be
├── DamagedFileError      1  a file that fedbench wrote is missing, cut off or damaged
└── RunInterrupted      130  the user stopped the run (Ctrl-C)
"""

from __future__ import annotations

import pathlib


class FedbenchError(Exception):
    """Base of all errors whose text is meant for the user; `hint` says what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(FedbenchError):
    """A configuration file, key or value is wrong."""

    exit_code = 2


class HostError(FedbenchError):
    """The host cannot hold what was asked for."""

    exit_code = 3


class DockerError(HostError):
    """Docker is missing, too old, or refused a command."""


class DataError(FedbenchError):
    """A data set is missing, empty or of the wrong shape."""

    exit_code = 4


class RunError(FedbenchError):
    """A run failed or does not exist."""

    exit_code = 5


class InUseError(RunError):
    """Another fedbench works on the same at this moment; the message names it."""


class FidelityError(FedbenchError):
    """An emulated device is farther from the real one than it may be."""

    exit_code = 6


class DamagedFileError(FedbenchError):
    """A file that fedbench wrote is missing, cut off or damaged; the message names it."""

    def __init__(self, path: pathlib.Path, what: str, hint: str = "") -> None:
        super().__init__(f"{path} {what}", hint or "put it back from a copy, or remove it")


class RunInterrupted(FedbenchError):  # noqa: N818 (the user's wish, not an error)
    """The user stopped the run; what was recorded is kept."""

    exit_code = 130
