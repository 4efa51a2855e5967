from __future__ import annotations

import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_containers import HOST, FakeContainers

from fedbench.host.speed.cache import ROOT, ModelSpeed, Speeds, host_identity, software_identity

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
cpu MHz\t\t: {mhz}

processor\t: 1
model name\t: another
"""
PI = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"


def speed(
    model: str = "mobilenet_v2", age: float = 0.0, one: float = 660.0, note: str | None = None
) -> ModelSpeed:
    return ModelSpeed(
        model=model,
        by_threads={1: one, 2: 320.0},
        busy=630.0,
        quota_efficiency=0.97,
        step_cpu_seconds=0.048,
        spread=(600.0, 700.0),
        of_reference=1.0,
        measured_at=datetime.now(UTC) - timedelta(days=age),
        note=note,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "calibration.json"


def silent(line: str) -> None:
    raise AssertionError(line)


def test_a_speed_is_read_as_it_was_written(file: Path) -> None:
    store = Speeds(file, "host", "software")
    small, large = speed("mobilenet_v3_small"), speed("mobilenet_v3_large")
    assert store.read(["mobilenet_v2"], silent) == {}
    for one in (small, large):
        store.write(one)
    assert store.read(["mobilenet_v3_small", "mobilenet_v2"], silent) == {small.model: small}


def test_a_speed_takes_the_place_of_the_one_before(file: Path) -> None:
    store = Speeds(file, "host", "software")
    for one in (600.0, 700.0):
        store.write(speed(one=one))
    assert store.read(["mobilenet_v2"], silent)["mobilenet_v2"].by_threads[1] == 700.0
    assert file.read_text().count('"mobilenet_v2"') == 1


def test_a_speed_holds_for_one_host_and_one_software(file: Path) -> None:
    stores = [Speeds(file, host, software) for host in ("a", "b") for software in ("x", "y")]
    for number, store in enumerate(stores, 1):
        assert store.read(["mobilenet_v2"], silent) == {}
        store.write(speed(one=number))
    known = [store.read(["mobilenet_v2"], silent)["mobilenet_v2"] for store in stores]
    assert [one.by_threads[1] for one in known] == [1, 2, 3, 4]


def test_a_change_of_the_users_models_counts_for_these_only(file: Path) -> None:
    before, after = (Speeds(file, "host", "software", own=own) for own in ("a", "b"))
    models = ["sample:small_cnn", "resnet18"]
    for model in models:
        before.write(speed(model))
    assert list(before.read(models, silent)) == models
    assert list(after.read(models, silent)) == ["resnet18"]


@pytest.mark.parametrize(
    ("age", "note", "why"),
    [(1.5, None, ""), (0.0, "others used 12% of the CPUs", ", when others used 12% of the CPUs")],
)
def test_an_old_or_a_disturbed_speed_is_used_and_dated(
    age: float, note: str | None, why: str, file: Path
) -> None:
    store, said = Speeds(file, "host", "software"), list[str]()
    known = speed(age=age, note=note)
    store.write(known)
    assert store.read(["mobilenet_v2"], said.append) == {"mobilenet_v2": known}
    assert said == [
        f"calibration of mobilenet_v2 from {known.measured_at:%Y-%m-%d %H:%M} UTC{why}: "
        "`fedbench calibrate --fresh` measures anew"
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"entries": [{"host": "host"}]}'])
def test_a_file_of_another_version_is_as_good_as_none(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    store = Speeds(file, "host", "software")
    assert store.read(["mobilenet_v2"], silent) == {}
    store.write(speed())
    assert list(store.read(["mobilenet_v2"], silent)) == ["mobilenet_v2"]


def test_a_time_without_an_offset_is_of_another_version(file: Path) -> None:
    store = Speeds(file, "host", "software")
    store.write(speed())
    file.write_text(re.sub(r'(measured_at": "[^"]{19})[^"]*', r"\1", file.read_text()))
    assert store.read(["mobilenet_v2"], silent) == {}


def host(kernel: str = "6.1.0-13-amd64", index: str = "") -> FakeContainers:
    labels = {"fedbench.torch-index": index, "fedbench.content": "c"}
    images = {"fedbench:cpu": labels, "fedbench:cuda": labels}
    return FakeContainers(replace(HOST, kernel=kernel), images=images)


def test_a_host_is_its_processor_its_cores_and_its_kernels_series(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(X86.format(mhz="2445.4"))
    identity = host_identity(host(), 2, cpuinfo)
    for part in ("model name AMD EPYC", "model 17", "stepping 1", "2 cores", "kernel 6.1"):
        assert part in identity
    assert "another" not in identity
    cpuinfo.write_text(X86.format(mhz="3100.0"))
    assert host_identity(host("6.1.9-1-amd64"), 2, cpuinfo) == identity
    assert host_identity(host("6.12.1"), 2, cpuinfo) != identity
    assert host_identity(host(), 4, cpuinfo) != identity
    cpuinfo.write_text(PI)
    assert "CPU part 0xd08" in host_identity(host(), 4, cpuinfo)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the identity is made of, and some of what it is not."""
    root = tmp_path / "checkout"
    for part in ("pyproject.toml", "README.md", "docker/Dockerfile", "fedbench/cli/output.py"):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, root / part)
    shutil.copytree(ROOT / "fedbench/learning", root / "fedbench/learning")
    return root


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("README.md", "fedbench", "testbed"),
        ("fedbench/cli/output.py", "import", "# import"),
        ("pyproject.toml", '"ruff>=', '"ruff>'),
    ],
)
def test_what_trains_no_faster_changes_no_software(
    part: str, old: str, new: str, tree: Path
) -> None:
    before = software_identity(host(), "fedbench:cpu", tree)
    assert before.startswith("fedbench:cpu ")
    change(tree / part, old, new)
    assert software_identity(host(), "fedbench:cpu", tree) == before


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("fedbench/learning/optimizers.py", "import", "# import"),
        ("docker/Dockerfile", "OMP_WAIT_POLICY=PASSIVE", "OMP_WAIT_POLICY=ACTIVE"),
        ("pyproject.toml", '"torch==', '"torch>='),
    ],
)
def test_what_trains_another_way_is_another_software(
    part: str, old: str, new: str, tree: Path
) -> None:
    before = software_identity(host(), "fedbench:cpu", tree)
    change(tree / part, old, new)
    assert software_identity(host(), "fedbench:cpu", tree) != before


def test_another_build_of_torch_is_another_software(tree: Path) -> None:
    one = software_identity(host(), "fedbench:cpu", tree)
    assert software_identity(host(index="https://x"), "fedbench:cpu", tree) != one
    assert software_identity(host(), "fedbench:cuda", tree) != one


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
