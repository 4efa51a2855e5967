"""Two commands at the same moment on one federation: one works, the other says for whom."""

from __future__ import annotations

import subprocess

import pytest
from harness import ROOT, Done, environment, run_id, summary

pytestmark = pytest.mark.docker

NOOP = (str(ROOT / ".venv/bin/fedbench"), "run", "noop", "--set", "rounds=3")


def begin() -> subprocess.Popen[str]:
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    options = {"cwd": ROOT, "env": environment(), "stdin": subprocess.DEVNULL}
    return subprocess.Popen(NOOP, stdout=pipe, stderr=merged, text=True, **options)


@pytest.mark.parametrize("pair", range(3))
def test_of_two_runs_one_is_made_and_the_other_names_it(first_run: Done, pair: int) -> None:
    before = set((ROOT / "runs").glob("*"))
    processes = [begin(), begin()]
    said = [process.communicate(timeout=120)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 5], said
    winner = codes.index(0)
    made = run_id(said[winner])
    assert summary(made)["status"] == "finished"
    held = f"`fedbench run noop --set rounds=3` (pid {processes[winner].pid}, since "
    refusals = (f"another fedbench works on this federation: {held}", f"run {made} is in progress")
    assert any(f"error: {refusal}" in said[1 - winner] for refusal in refusals), said
    assert set((ROOT / "runs").glob("*")) - before == {ROOT / "runs" / made}
