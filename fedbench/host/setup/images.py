"""Images: the one that is built from this source tree, and those that are taken from a registry.

Where no registry can be reached, a Debian or Ubuntu host makes the base images and Prometheus
out of Debian's packages (docker/host/, docker/prometheus.Dockerfile).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedbench import __version__
from fedbench.errors import DockerError
from fedbench.host.say import Say
from fedbench.host.setup import pip
from fedbench.host.setup.locks import host_lock, locked
from fedbench.host.setup.machine import HostMachine

PYTHON = "python:3.11-slim-bookworm"
DEBIAN = "debian:bookworm-slim"
PROMETHEUS = "prom/prometheus:v2.53.3"  # the version that Debian 13 has too
GRAFANA = "grafana/grafana:11.6.0"
CONTENT_LABEL = "fedbench.content"
INDEX_LABEL = "fedbench.torch-index"
_PULL_SECONDS = 900.0
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class ImageStore(Protocol):
    """Knows the images that are here already."""

    def image_labels(self, image: str) -> dict[str, str] | None:
        """Return the labels of an image; None where it is not here."""


@dataclass(frozen=True)
class Images:
    """Tags of the images of a federation; `grafana` is None where it cannot be had."""

    fedbench: str
    prometheus: str
    grafana: str | None


def ensure_images(
    store: ImageStore,
    say: Say,
    *,
    root: Path,
    cuda: bool = False,
    machine: HostMachine | None = None,
) -> Images:
    """Ensure that all images of a federation are here; `root` is the source tree.

    Raises:
        DockerError: an image is not here and can be neither pulled nor made, or a build failed.
    """
    supply = _Supply(store, say, root, machine or HostMachine())
    with alone_on_host(say, supply.machine):
        tag = supply.current_fedbench(cuda=cuda)
        supply.prometheus()
        return Images(tag, PROMETHEUS, GRAFANA if supply.has(GRAFANA) else None)


def ensure_client_image(
    store: ImageStore,
    say: Say,
    *,
    root: Path,
    cuda: bool = False,
    machine: HostMachine | None = None,
) -> str:
    """Return the tag of the one image that a device needs which joins a federation.

    Raises:
        DockerError: as `ensure_images`.
    """
    supply = _Supply(store, say, root, machine or HostMachine())
    with alone_on_host(say, supply.machine):
        return supply.current_fedbench(cuda=cuda)


@contextmanager
def alone_on_host(say: Say, machine: HostMachine | None = None) -> Iterator[None]:
    """Work alone on what all checkouts share here; wait for another fedbench that does, and say so.

    That is Docker's daemon, which nobody stops meanwhile, the images, whose tags are those of each
    checkout, and the cores when they are measured.
    """
    with host_lock(say), daemon_kept(machine or HostMachine()):
        yield


@contextmanager
def daemon_kept(machine: HostMachine) -> Iterator[None]:
    """Keep a daemon that fedbench started from being stopped meanwhile, whoever is taken down."""
    with ExitStack() as locks:
        # Of another daemon, which fedbench never stops, there is no record.
        with suppress(FileNotFoundError, PermissionError):
            locks.enter_context(locked(machine.daemon_record, shared=True))
        yield


def content(root: Path) -> list[Path]:
    """List the files of the build, as .dockerignore lets them through, and the recipe."""
    package = root / "fedbench"
    host_only = tuple(package / name for name in ("cli", "engines", "host"))
    files = [
        path
        for path in package.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not any(path.is_relative_to(other) for other in host_only)
    ]
    recipe = [root / ".dockerignore", root / "docker/Dockerfile", root / "pyproject.toml"]
    return [*recipe, *sorted(files)]


def content_hash(root: Path) -> str:
    """SHA-256 over names and bytes of `content`."""
    digest = hashlib.sha256()
    for path in content(root):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass
class _Supply:
    store: ImageStore
    say: Say
    root: Path
    machine: HostMachine
    unreachable: str = ""  # why the registry could not be reached: asked once, not per image

    def has(self, image: str) -> bool:
        """Tell whether the image is here, after pulling it if need be."""
        return self._is_here(image) or self._pull(image)

    def labels(self, image: str) -> dict[str, str]:
        """Return with what the image was built; nothing where it is not here."""
        return self.store.image_labels(image) or {}

    def base(self, image: str) -> None:
        """Ensure a base image: here, pulled, or made from Debian's packages."""
        if self.has(image):
            return
        if not self.machine.can_install:
            raise DockerError(
                f"{image} is not here and cannot be pulled: {self.unreachable}",
                "connect to a registry or `docker load` the image; "
                "as root on Debian or Ubuntu, fedbench makes it",
            )
        self.say("no registry: making the base images from Debian's packages (a minute)")
        self._run([str(self.root / "docker/host/make-base-images.sh")], "making the base images")

    def prometheus(self) -> None:
        """Ensure Prometheus: here, pulled, or Debian's package under the same name."""
        if self.has(PROMETHEUS):
            return
        self.base(DEBIAN)
        self.say("no registry: making the Prometheus image from Debian's package")
        recipe = self.root / "docker/prometheus.Dockerfile"
        self._build(PROMETHEUS, recipe, self._proxies(), recipe.parent)

    def current_fedbench(self, *, cuda: bool) -> str:
        """Return the tag of the image of server and clients, built if the sources changed."""
        tag = "fedbench:cuda" if cuda else "fedbench:cpu"
        content = content_hash(self.root)
        if self.labels(tag).get(CONTENT_LABEL) != content:
            self.base(PYTHON)
            self.fedbench(tag, content, cuda=cuda)
        return tag

    def fedbench(self, tag: str, content: str, *, cuda: bool) -> None:
        """Build the image of server and clients."""
        self.say(f"building {tag}")
        recipe = self.root / "docker/Dockerfile"
        index = "" if cuda else self.torch_index(tag, recipe)
        labels = {
            CONTENT_LABEL: content,
            INDEX_LABEL: index,
            "org.opencontainers.image.version": __version__,
        }
        options = [f"--label={name}={value}" for name, value in labels.items()]
        settings = pip.settings(self.machine)
        options += [*self._proxies(), *settings.build_options(wheels=not cuda)]
        options.append(f"--build-arg=TORCH_INDEX={index}")
        self._build(tag, recipe, options, self.root, settings.environment())
        # The image that had the tag before; its layers are in the build cache, too.
        prune = ["docker", "image", "prune", "--force", f"--filter=label={CONTENT_LABEL}"]
        self._run(prune, "removing the image before")

    def torch_index(self, tag: str, recipe: Path) -> str:
        """Return where torch without CUDA comes from, empty for the package index.

        Once decided it stays, whether the network is there or not: everything would be downloaded
        and installed anew for another address.
        """
        known = self.labels(tag).get(INDEX_LABEL)
        if known is not None:
            return known
        default = _default_torch_index(recipe)
        return default if self.machine.reachable(default) else ""

    def _is_here(self, image: str) -> bool:
        return self.store.image_labels(image) is not None

    def _pull(self, image: str) -> bool:
        if self.unreachable:
            return False
        self.say(f"pulling {image}")
        done = self.machine.execute(["docker", "pull", "--quiet", image], timeout=_PULL_SECONDS)
        if done.code:
            self.unreachable = done.tail(1)
        return done.code == 0

    def _proxies(self) -> list[str]:
        return [f"--build-arg={name}" for name in _PROXIES if name in self.machine.environment]

    def _build(
        self,
        tag: str,
        recipe: Path,
        options: list[str],
        context: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        argv = ["docker", "build", "--load", "--progress=plain", f"--tag={tag}", f"--file={recipe}"]
        self._run([*argv, *options, str(context)], f"building {tag}", environment)

    def _run(self, argv: list[str], what: str, environment: dict[str, str] | None = None) -> None:
        done = self.machine.execute(argv, on_line=_Steps(self.say), environment=environment)
        if done.code:
            raise DockerError(f"{what} failed:\n{done.tail()}")


def _default_torch_index(recipe: Path) -> str:
    match = re.search(r"^ARG TORCH_INDEX=(\S+)$", recipe.read_text(), re.MULTILINE)
    assert match  # noqa: S101
    return match[1]


@dataclass
class _Steps:
    """BuildKit's plain progress, line by line -> one line for every step that does something."""

    say: Say
    names: dict[str, str] = field(default_factory=dict)

    def __call__(self, line: str) -> None:
        if match := re.fullmatch(r"#(\d+) \[(?!internal)[^]]+\] (.+)", line):
            self.names[match[1]] = " ".join(re.sub(r"--mount=\S+", "", match[2]).split())
        elif (match := re.match(r"#(\d+) \d+\.\d+ ", line)) and match[1] in self.names:
            name = self.names.pop(match[1])
            self.say(f"  {name[:75]}{'…' if len(name) > 75 else ''}")
