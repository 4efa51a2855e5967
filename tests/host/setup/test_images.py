from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedbench import __version__
from fedbench.engines.containers.runtime.daemon import DockerContainers
from fedbench.errors import DockerError
from fedbench.host.setup import images as build
from fedbench.host.setup.images import (
    DEBIAN,
    GRAFANA,
    PROMETHEUS,
    PYTHON,
    Images,
    content,
    content_hash,
)
from fedbench.host.setup.locks import locked
from fedbench.host.setup.machine import Done, HostMachine

REPOSITORY = Path(__file__).resolve().parents[3]
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NO_REGISTRY = Done(1, "Error response from daemon: lookup registry: no such host\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A source tree: this one's recipe, and a package of one node module and one host module."""
    root = tmp_path / "fedbench"
    shutil.copytree(REPOSITORY / "docker", root / "docker")
    for name in (".dockerignore", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, root / name)
    for name in ("config.py", "cli/__init__.py", "host/plan/plan.py", "client/node.py"):
        (root / "fedbench" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fedbench" / name).write_text("x = 1\n")
    return root


@pytest.fixture
def machine(commands: Any, own_host: Path, tmp_path: Path) -> HostMachine:
    """A host without a registry, as root on Debian; PyTorch's index is reachable."""
    commands.answers["docker pull"] = NO_REGISTRY
    return HostMachine(
        execute=commands,
        is_root=True,
        distribution="debian",
        reachable=lambda url: url == TORCH_INDEX,
        environment={},
        state=tmp_path,
    )


def ensure(
    daemon: Any, machine: HostMachine, root: Path, **options: bool
) -> tuple[Images, list[str]]:
    said: list[str] = []
    client = daemon.connect()
    try:
        images = build.ensure_images(
            DockerContainers(client), said.append, root=root, machine=machine, **options
        )
    finally:
        client.close()
    return images, said


# The image that had the tag before goes.
PRUNE = ["docker", "image", "prune", "--force", "--filter=label=fedbench.content"]


def builds(commands: Any) -> list[list[str]]:
    return [argv for argv in commands.calls if argv[:2] == ["docker", "build"]]


def docker_commands(commands: Any) -> list[list[str]]:
    return [argv for argv in commands.calls if "pip" not in argv]


def test_nothing_is_built_when_the_sources_did_not_change(
    daemon: Any, machine: HostMachine, root: Path, commands: Any
) -> None:
    daemon.add("fedbench:cpu", {"fedbench.content": content_hash(root)})
    for image in (PROMETHEUS, GRAFANA):
        daemon.add(image)
    assert ensure(daemon, machine, root) == (Images("fedbench:cpu", PROMETHEUS, GRAFANA), [])
    assert commands.calls == []


def test_the_build_command(daemon: Any, machine: HostMachine, root: Path, commands: Any) -> None:
    daemon.add("fedbench:cpu", {"fedbench.content": "of older sources"})
    for image in (PYTHON, PROMETHEUS, GRAFANA):
        daemon.add(image)
    _, said = ensure(daemon, machine, root)
    assert docker_commands(commands) == [
        [
            "docker",
            "build",
            "--load",
            "--progress=plain",
            "--tag=fedbench:cpu",
            f"--file={root}/docker/Dockerfile",
            f"--label=fedbench.content={content_hash(root)}",
            f"--label=fedbench.torch-index={TORCH_INDEX}",
            f"--label=org.opencontainers.image.version={__version__}",
            f"--build-arg=TORCH_INDEX={TORCH_INDEX}",
            str(root),
        ],
        PRUNE,
    ]
    assert said == ["building fedbench:cpu"]


@pytest.mark.parametrize("make", [build.ensure_images, build.ensure_client_image])
def test_the_daemon_that_fedbench_started_is_in_use_while_it_builds(
    make: Any, daemon: Any, machine: HostMachine, root: Path, commands: Any
) -> None:
    for image in (PYTHON, PROMETHEUS, GRAFANA):
        daemon.add(image)
    machine.daemon_record.touch()
    in_use = []

    def run(argv: list[str], **options: Any) -> Done:
        if argv[:2] == ["docker", "build"]:
            in_use.append(is_locked(machine.daemon_record))
        done: Done = commands(argv, **options)
        return done

    client = daemon.connect()
    make(DockerContainers(client), lambda _: None, root=root, machine=replace(machine, execute=run))
    client.close()
    assert (in_use, is_locked(machine.daemon_record)) == ([True], False)


def is_locked(path: Path) -> bool:
    try:
        with locked(path, wait=False):
            return False
    except BlockingIOError:
        return True


def test_what_the_host_has_is_passed_to_the_build(
    daemon: Any, machine: HostMachine, root: Path, commands: Any, tmp_path: Path
) -> None:
    for image in (PYTHON, PROMETHEUS, GRAFANA):
        daemon.add(image)
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    commands.answers["pip config list"] = Done(
        0, f"global.find-links='{tmp_path}'\nglobal.index-url='https://pypi.example/simple'\n"
    )
    machine = replace(
        machine, reachable=lambda _: False, environment={"HTTPS_PROXY": "http://proxy:3128"}
    )
    ensure(daemon, machine, root)
    assert builds(commands)[-1][-5:-1] == [
        "--build-arg=HTTPS_PROXY",
        f"--build-context=wheels={tmp_path}",
        "--secret=id=pip,env=FEDBENCH_PIP_CONF",
        "--build-arg=TORCH_INDEX=",
    ]
    assert commands.environments[-2] == {
        "FEDBENCH_PIP_CONF": "[global]\nindex-url = https://pypi.example/simple\n"
    }


@pytest.mark.parametrize("index", ["", TORCH_INDEX])
@pytest.mark.parametrize("reachable", [True, False])
def test_a_rebuild_takes_torch_from_where_it_came_before(
    daemon: Any, machine: HostMachine, root: Path, commands: Any, index: str, reachable: bool
) -> None:
    """Or all packages would be downloaded and installed once more, or could not be."""
    labels = {"fedbench.content": "of older sources", "fedbench.torch-index": index}
    daemon.add("fedbench:cpu", labels)
    for image in (PYTHON, PROMETHEUS, GRAFANA):
        daemon.add(image)
    ensure(daemon, replace(machine, reachable=lambda _: reachable), root)
    assert f"--build-arg=TORCH_INDEX={index}" in builds(commands)[-1]
    assert f"--label=fedbench.torch-index={index}" in builds(commands)[-1]


def test_the_cuda_image_has_neither_the_cpu_index_nor_the_hosts_wheels(
    daemon: Any, machine: HostMachine, root: Path, commands: Any, tmp_path: Path
) -> None:
    for image in (PYTHON, PROMETHEUS, GRAFANA):
        daemon.add(image)
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    commands.answers["pip config list"] = Done(0, f"global.find-links='{tmp_path}'\n")
    images, _ = ensure(daemon, machine, root, cuda=True)
    assert images.fedbench == "fedbench:cuda"
    assert "--tag=fedbench:cuda" in builds(commands)[-1]
    assert "--build-arg=TORCH_INDEX=" in builds(commands)[-1]
    assert not [option for option in builds(commands)[-1] if "wheels" in option]


def test_images_are_pulled_where_there_is_a_registry(
    daemon: Any, machine: HostMachine, root: Path, commands: Any
) -> None:
    commands.answers["docker pull"] = Done(0)
    images, said = ensure(daemon, machine, root)
    assert images.grafana == GRAFANA
    pulls = [argv for argv in commands.calls if argv[:2] == ["docker", "pull"]]
    assert pulls == [["docker", "pull", "--quiet", name] for name in (PYTHON, PROMETHEUS, GRAFANA)]
    assert said == [
        f"pulling {PYTHON}",
        "building fedbench:cpu",
        f"pulling {PROMETHEUS}",
        f"pulling {GRAFANA}",
    ]


def test_without_a_registry_they_are_made_and_grafana_is_left_out(
    daemon: Any, machine: HostMachine, root: Path, commands: Any
) -> None:
    def run(argv: list[str], **options: Any) -> Done:
        if argv[0].endswith("make-base-images.sh"):
            daemon.add(DEBIAN)
            daemon.add(PYTHON)
        done: Done = commands(argv, **options)
        return done

    images, said = ensure(daemon, replace(machine, execute=run), root)
    assert images == Images("fedbench:cpu", PROMETHEUS, None)
    pull, bases, image, prune, prometheus = docker_commands(commands)
    assert pull == ["docker", "pull", "--quiet", PYTHON]
    assert bases == [f"{root}/docker/host/make-base-images.sh"]
    assert "--tag=fedbench:cpu" in image
    assert prune == PRUNE
    assert prometheus == [
        "docker",
        "build",
        "--load",
        "--progress=plain",
        f"--tag={PROMETHEUS}",
        f"--file={root}/docker/prometheus.Dockerfile",
        f"{root}/docker",
    ]
    assert said == [
        f"pulling {PYTHON}",
        "no registry: making the base images from Debian's packages (a minute)",
        "building fedbench:cpu",
        "no registry: making the Prometheus image from Debian's package",
    ]


@pytest.mark.parametrize("change", [{"is_root": False}, {"distribution": "fedora"}])
def test_no_registry_and_no_right_to_make_the_base_images(
    daemon: Any, machine: HostMachine, root: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(DockerError) as caught:
        ensure(daemon, replace(machine, **change), root)
    assert caught.value.message == (
        "python:3.11-slim-bookworm is not here and cannot be pulled: "
        "Error response from daemon: lookup registry: no such host"
    )
    assert "docker load" in caught.value.hint


def test_a_failed_build_shows_its_last_20_lines(
    daemon: Any, machine: HostMachine, root: Path, commands: Any
) -> None:
    daemon.add(PYTHON)
    commands.answers["docker build"] = Done(1, "".join(f"line {n}\n" for n in range(50)))
    with pytest.raises(DockerError) as caught:
        ensure(daemon, machine, root)
    expected = "\n".join(f"line {n}" for n in range(30, 50))
    assert caught.value.message == f"building fedbench:cpu failed:\n{expected}"


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("fedbench/config.py", True),
        ("fedbench/client/node.py", True),
        ("pyproject.toml", True),
        ("docker/Dockerfile", True),
        ("fedbench/cli/__init__.py", False),
        ("fedbench/host/plan/plan.py", False),
        ("docker/host/install-docker.sh", False),
    ],
)
def test_which_files_the_image_depends_on(root: Path, name: str, matters: bool) -> None:
    before = content_hash(root)
    with (root / name).open("a") as file:
        file.write("#")
    assert (content_hash(root) != before) is matters


def test_bytecode_and_file_times_do_not_matter(root: Path) -> None:
    before = content_hash(root)
    cache = root / "fedbench" / "client" / "__pycache__"
    cache.mkdir()
    (cache / "node.cpython-311.pyc").touch()
    (root / "fedbench" / "config.py").touch()
    assert content_hash(root) == before


def test_content_names_the_package_without_its_host_part(root: Path) -> None:
    assert [str(path.relative_to(root)) for path in content(root)] == [
        ".dockerignore",
        "docker/Dockerfile",
        "pyproject.toml",
        "fedbench/client/node.py",
        "fedbench/config.py",
    ]


def test_one_line_for_every_build_step_that_does_something(
    daemon: Any, machine: HostMachine, root: Path
) -> None:
    progress = [
        "#1 [internal] load build definition from Dockerfile",
        "#1 0.010 transferring",
        "#7 [stage-2 1/6] FROM docker.io/library/python:3.11-slim-bookworm",
        "#7 CACHED",
        "#10 [stage-2 2/6] RUN --mount=type=cache,target=/root/.cache/pip     python -m"
        " venv /opt/venv     && /opt/venv/bin/pip install --requirement /tmp/requirements.txt",
        "#10 1.234 Collecting torch==2.13.0",
        "#10 1.300 Collecting flwr==1.41.0",
        "#10 DONE 9.9s",
    ]

    def run(argv: list[str], *, on_line: Any = None, **_: Any) -> Done:
        for line in progress if "build" in argv else ():
            on_line(line)
        return Done(0)

    for image in (PYTHON, PROMETHEUS, GRAFANA):
        daemon.add(image)
    _, said = ensure(daemon, replace(machine, execute=run), root)
    assert said == [
        "building fedbench:cpu",
        "  RUN python -m venv /opt/venv && /opt/venv/bin/pip install --requirement /tm…",
    ]
