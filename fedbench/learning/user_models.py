"""Models of the user's own: `module:callable`, from the folder `models/` of the checkout.

Every container has that folder read-only as /models, and a device that joins over the LAN has its
own checkout's: code never travels with a run. A client lives for longer than a file stays as it
is, so a module is read anew each time that a model is made of it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

# The image sets it; the checkout's own for whoever trains without a container.
FOLDER = Path(os.environ.get("FEDBENCH_MODELS", Path(__file__).resolve().parents[2] / "models"))


class ModelError(ValueError):
    """Says why a model cannot be had, or cannot be trained on images of 32x32 pixels."""


def load(name: str) -> Callable[[int], Any]:
    """Return what `module:callable` names, from the module's file as it is now.

    The folder comes last on Python's path, so that no module in it hides another's.

    Raises:
        ModelError: there is no such file or callable, or the file fails.
    """
    module, _, attribute = name.partition(":")
    file = FOLDER / f"{module}.py"
    if not file.is_file():
        known = ", ".join(sorted(path.name for path in FOLDER.glob("*.py"))) or "none"
        raise ModelError(f"model {name}: no file {_short(file)}; there are {known}")
    made = vars(_import(name, file)).get(attribute)
    if not callable(made):
        raise ModelError(f"model {name}: nothing to call in {_short(file)} is named {attribute}")
    return made  # type: ignore[no-any-return]


def digest(folder: Path) -> str:
    """Hash the modules in the folder."""
    hashed = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        hashed.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return hashed.hexdigest()[:16]


def failure(error: Exception) -> str:
    """Describe an error in a model, with the line of the user's code that it comes from, if any."""
    frames = [(Path(f.filename), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    lines = [f"{_short(file)}, line {line}: " for file, line in frames if file.parent == FOLDER]
    return f"{(lines or [''])[-1]}{type(error).__name__}: {error}"


def _import(name: str, file: Path) -> ModuleType:
    for known, loaded in list(sys.modules.items()):
        origin = getattr(loaded, "__dict__", {}).get("__file__")
        if origin and Path(origin).parent == FOLDER:
            del sys.modules[known]
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(file.stem)
    except Exception as error:
        raise ModelError(f"model {name}: {failure(error)}") from error
    if module.__file__ != str(file):
        short = _short(file)
        raise ModelError(f"model {name}: another module is called {file.stem}: rename {short}")
    return module


def _short(file: Path) -> str:
    """Name the file as it is in the checkout, wherever that is mounted."""
    return f"models/{file.name}"
