"""Makes slow imports less slow."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Keep the garbage collector out of a block of imports, and what they made out of its way.

    It would look for garbage again and again while thousands of modules are made, and find none.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
