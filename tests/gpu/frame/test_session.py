"""Sessions of parts that are not real, each in a program of its own: a session kills what is left.

Real time is short here: a part's grace and the end's reserve are a part of what they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys
from pathlib import Path
import session

session.END_SECONDS, session.STOP_SECONDS, session.GRACE_SECONDS = 0.5, 0.2, 0.5
out = Path(sys.argv[1])
small = sys.argv[3:] == ["small"]
options = session.Options(float(sys.argv[2]), out, out / "results", small=small)
session.adopt_orphans()
made = session.Session(options, {**__import__("os").environ}, print)
"""
HANGING = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(sleeping, start_new_session=True)
# The parent of this one ends at once, so that it is nobody's child.
parent = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, "
parent += "start_new_session=True).pid)"
orphan = subprocess.check_output([sys.executable, "-c", parent, *sleeping], text=True).strip()
with open(sys.argv[1], "w") as file:
    file.write(f"{os.getpid()} {child.pid} {orphan}")
time.sleep(60)
"""
QUICK = [sys.executable, "-c", "pass"]


def hold(
    out: Path, seconds: float, program: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    out.mkdir(exist_ok=True)
    program = PROGRAM + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-c", program, str(out), str(seconds), *arguments],
        env=os.environ | {"PYTHONPATH": f"{FOLDER.parents[1]}:{FOLDER}"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip


def test_a_part_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    said = hold(
        tmp_path / "out",
        60,
        """
        def python(code):
            return lambda _seconds: [sys.executable, "-c", code]
        write = f"open({str(out / 'truth.jsonl')!r}, 'a').write('{{}}\\\\n')"
        made.run({
            "speed": python("print('so it went'); raise SystemExit(3)"),
            "truth": python(write),
        })
        print(made.failed)
        """,
    ).stdout
    assert "the part speed failed (exit code 3): 0 records" in said
    assert "    so it went" in said, "the end of its log"
    assert "the part truth ended: 1 records" in said
    assert said.splitlines()[-1] == "['speed']"


def test_a_part_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids, hanging = tmp_path / "pids", tmp_path / "hanging.py"
    hanging.write_text(HANGING)
    began = time.monotonic()
    said = hold(
        tmp_path / "out",
        12,
        f"""
        session.SHARES["speed"] = 0.3
        made.run({{
            "speed": lambda _seconds: [sys.executable, {str(hanging)!r}, {str(pids)!r}],
            "truth": lambda _seconds: {QUICK!r},
        }})
        print(made.failed)
        """,
    ).stdout
    assert "the part speed was killed, as its time was up" in said
    assert "the part truth ended" in said
    assert said.splitlines()[-1] == "['speed']"
    assert time.monotonic() - began < 12
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 3
    assert not [pid for pid in started if running(pid)]


def running(pid: int) -> bool:
    """Say if a process is there; a dead one that its parent has not seen is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_part_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    said = hold(
        tmp_path / "out",
        3,
        """
        code = '''
        try:
            import time; time.sleep(60)
        except KeyboardInterrupt:
            print("ending in order", flush=True)
        '''
        import textwrap
        made.run({"study": lambda _seconds: [sys.executable, "-c", textwrap.dedent(code)]})
        """,
    ).stdout
    assert "ending in order" in said


@pytest.mark.parametrize(("small", "failed"), [(False, "[]"), (True, "['speed', 'truth']")])
def test_what_does_not_fit_is_left_out(tmp_path: Path, small: bool, failed: str) -> None:
    said = hold(
        tmp_path / "out",
        1.5,
        f"""
        made.run(dict.fromkeys(["speed", "truth"], lambda _seconds: {QUICK!r}))
        print(made.failed)
        """,
        *(["small"] if small else []),
    ).stdout
    assert "the part speed is left out" in said
    assert "the part truth is left out" in said
    assert said.splitlines()[-1] == failed, "in small, all of them are to be tried"


def test_the_parts_share_the_time(tmp_path: Path) -> None:
    said = hold(
        tmp_path / "out",
        100,
        f"""
        def command(seconds):
            print(f"{{seconds:.0f}}")
            return {QUICK!r}
        made.run(dict.fromkeys(session.results.PARTS, command))
        """,
    ).stdout
    given = [int(line) for line in said.splitlines() if line.isdigit()]
    assert given[:3] == [19, 28, 19]
    assert 90 < given[3] < 100, "the study has what the others left"


def test_what_passed_on_this_gpu_is_not_tested_again(tmp_path: Path) -> None:
    results = tmp_path / "out" / "results"
    results.mkdir(parents=True)
    tested = (("a::b", "passed", "H100"), ("a::c", "failed", "H100"), ("a::d", "passed", "H200"))
    with (results / "tests.jsonl").open("a") as file:
        for key, outcome, gpu in tested:
            record = {"key": key, "outcome": outcome, "machine": {"gpu": gpu}}
            file.write(json.dumps(record) + "\n")
    said = hold(
        tmp_path / "out", 10, "print(*session.commands(options, {'gpu': 'H100'})['tests'](9))"
    ).stdout
    assert [word for word in said.split() if "deselect" in word] == ["--deselect=a::b"]


def test_outcomes_are_records(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='no GPU')\n"
        "def test_absent(): pass\n"
    )
    outcomes = tmp_path / "tests.jsonl"
    environment = {"PYTHONPATH": str(FOLDER), "GPU_OUTCOMES": str(outcomes), "GPU_MACHINE": "{}"}
    command = [sys.executable, "-m", "pytest", "-p", "outcomes", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "test_three.py"],
        cwd=tmp_path,
        env=os.environ | environment,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 1
    records = [json.loads(line) for line in outcomes.read_text().splitlines()]
    assert [(each["key"], each["outcome"]) for each in records] == [
        ("test_three.py::test_good", "passed"),
        ("test_three.py::test_bad", "failed"),
        ("test_three.py::test_absent", "skipped"),
    ]
    assert "1 == 2" in records[1]["message"]
