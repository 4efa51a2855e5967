"""Size of the CPU image, beside that of the same packages as pip leaves them.

GB are 10^9 bytes unpacked, as `docker images` counts. The peer is the Dockerfile that one would
write first, the same requirements installed onto the same base image: the base image's size plus
what the packages' own records (RECORD, PEP 376) say that pip unpacked. Bytecode is in our figure
and not in the peer's.
"""

from __future__ import annotations

from collections.abc import Iterator

import containers
from row import Row, row

from fedbench.host.setup.images import PYTHON

_UNPACKED = """
from importlib.metadata import distributions
print(sum(file.size or 0 for each in distributions() for file in each.files or ()))
"""


def rows(command: str) -> Iterator[Row]:
    client, image = containers.client(), containers.image()
    packages = int(client.containers.run(image, ["python", "-c", _UNPACKED], remove=True))
    ours, base = (client.images.get(each).attrs["Size"] for each in (image, PYTHON))
    yield row("image", [ours / 1e9], "GB", command, [(base + packages) / 1e9], more_is_better=False)
