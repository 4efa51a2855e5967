"""What makes slow imports less slow."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Keeps the garbage collector out of a block of imports, and the imported out of its way.

    It looks for garbage again and again while thousands of modules are made, and finds none.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
