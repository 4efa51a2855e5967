"""The tests of what fedbench uses of Flower, with each flwr of a list: `make test-flower`.

Each version has a virtual environment of its own, `.venv-flwr/<version>`, that is made in seconds:
all but flwr and what it wants otherwise comes from the environment that this runs in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

VERSIONS = ("1.41.0", "1.42.0")  # the last is the one that pyproject.toml pins
ROOT = Path(__file__).parents[2]
NAMES = ("tests/flower/test_internals.py",)  # what moved is named first, and alone
BEHAVIOUR = (
    "tests/flower", "tests/client/test_node.py", "tests/client/test_contract.py",
    "tests/server/test_grid.py", "tests/server/test_superlink.py",
)  # fmt: skip


def environment(version: str) -> Path:
    """Make the virtual environment unless it is there; return its Python."""
    folder = ROOT / ".venv-flwr" / version
    python = folder / "bin" / "python"
    made = folder / "made"
    if not made.exists():
        venv.create(folder, with_pip=False, clear=True, symlinks=True)
        (site,) = folder.glob("lib/python*/site-packages")
        # Not a plain path: what is installed editable is a .pth file of that folder.
        shared = sysconfig.get_path("purelib")
        (site / "shared.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
        install = [python, "-m", "pip", "install", "-qq", f"flwr=={version}"]
        subprocess.run(install, check=True)
        made.touch()
    return python


def test(version: str, arguments: list[str]) -> int:
    """Run the tests with a version; return pytest's exit code."""
    python = environment(version)
    variables = os.environ | {"FEDBENCH_TEST_FLWR": version, "PYTHONPATH": str(ROOT)}
    for files in (NAMES, BEHAVIOUR):
        print(f"== flwr {version}: {' '.join(files)}", flush=True)
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, *files]
        if code := subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode:
            return code
    return 0


def main(arguments: list[str]) -> int:
    """Run the tests with all versions, arguments being pytest's; return 1 if any failed."""
    codes = {version: test(version, arguments) for version in VERSIONS}
    for version, code in codes.items():
        print(f"flwr {version}: {'failed' if code else 'passed'}")
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
