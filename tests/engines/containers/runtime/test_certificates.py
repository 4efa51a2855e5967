"""Certificates, by real handshakes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import ssl
import sys
import threading
from contextlib import suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fedbench.engines.containers.runtime import certificates


def server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server" / "server.pem", folder / "server" / "server.key")
    return context


def client_context(ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by default
    return context


def handshake(folder: Path, ca: Path, name: str) -> str | None:
    """Connects to a server of `folder` under `name`; the protocol that the two agreed on."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        # A client that hangs up says why itself.
        with theirs, suppress(ssl.SSLError, ConnectionError):
            server_context(folder).wrap_socket(theirs, server_side=True).close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        with ours, client_context(ca).wrap_socket(ours, server_hostname=name) as connection:
            return connection.version()
    finally:
        ours.close()
        server.join()


@pytest.mark.parametrize("name", ["localhost", "server", "192.168.1.20", "127.0.0.1", "::1"])
def test_a_client_trusts_the_server_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    certificates.ensure(tmp_path, [*certificates.SERVER_NAMES, "192.168.1.20", "127.0.0.1", "::1"])
    assert handshake(tmp_path, tmp_path / "ca.pem", name) == "TLSv1.3"


@pytest.mark.parametrize("name", ["example.org", "192.168.1.21"])
def test_a_name_that_is_not_in_the_certificate_is_rejected(tmp_path: Path, name: str) -> None:
    certificates.ensure(tmp_path, [*certificates.SERVER_NAMES, "192.168.1.20"])
    with pytest.raises(
        ssl.SSLCertVerificationError, match=f"certificate is not valid for '{name}'"
    ):
        handshake(tmp_path, tmp_path / "ca.pem", name)


def test_a_client_of_another_federation_does_not_trust_the_server(tmp_path: Path) -> None:
    certificates.ensure(tmp_path / "ours", ["localhost"])
    certificates.ensure(tmp_path / "theirs", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path / "ours", tmp_path / "theirs" / "ca.pem", "localhost")


def test_the_authority_is_kept_and_the_servers_certificate_renewed(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, ["localhost"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    certificates.ensure(tmp_path, ["localhost", "new-name"])
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert before.keys() == after.keys()
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed == {"server.pem", "server.key"}
    assert handshake(tmp_path, tmp_path / "ca.pem", "new-name") == "TLSv1.3"


def test_only_their_owner_reads_the_keys_and_clients_need_none(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, ["localhost"])
    certificates.ensure(tmp_path, ["localhost"])
    modes = {
        str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777
        for path in tmp_path.rglob("*.key")
    }
    assert modes == {"ca.key": 0o600, "server/server.key": 0o600}
    assert b"PRIVATE" not in (tmp_path / "ca.pem").read_bytes()
    assert sorted(path.name for path in (tmp_path / "server").iterdir()) == [
        "server.key",
        "server.pem",
    ]


def test_the_servers_certificate_signs_nothing(tmp_path: Path) -> None:
    certificates.ensure(tmp_path, ["localhost"])
    for name, is_authority in (("ca.pem", True), ("server/server.pem", False)):
        certificate = x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca) == (True, is_authority)


def test_this_hosts_names_and_addresses_are_in_it_by_default(tmp_path: Path) -> None:
    certificates.ensure(tmp_path)
    for name in ("server", "localhost", "fedbench-host", socket.gethostname(), "127.0.0.1"):
        assert handshake(tmp_path, tmp_path / "ca.pem", name) == "TLSv1.3"


def assert_belong_together(folder: Path) -> None:
    """Keys and certificates: loaded by ssl, each signed by whom it names, and in a handshake."""
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert authority.public_key() == key.public_key()
    for name in ("ca.pem", "server/server.pem"):
        certificate = x509.load_pem_x509_certificate((folder / name).read_bytes())
        certificate.verify_directly_issued_by(authority)
    assert handshake(folder, folder / "ca.pem", "localhost") == "TLSv1.3"
    modes = {str(p.relative_to(folder)): p.stat().st_mode & 0o777 for p in folder.rglob("*.*")}
    assert modes == {
        "ca.key": 0o600, "ca.pem": 0o644, "server/server.key": 0o600, "server/server.pem": 0o644,
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {"ca.key", "ca.pem", "server"}


FORKED = multiprocessing.get_context("fork")
CHANGES = ("open", "os.mkdir", "os.remove", "os.rename")


def ensure_until(folder: Path, change: int) -> None:
    """Dies, as by `kill -9`, just before it changes files in the folder for so many times."""
    left = iter(range(change))

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        concerned = event in CHANGES and str(arguments[0]).startswith(str(folder))
        if concerned and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    certificates.ensure(folder, ["localhost"])


@pytest.mark.parametrize("before", ["nothing", "an authority", "half an authority"])
def test_killed_at_any_moment_the_next_one_makes_it_whole(tmp_path: Path, before: str) -> None:
    killed = 0
    for change in range(100):
        folder = tmp_path / str(change)
        if before != "nothing":
            certificates.ensure(folder, ["localhost"])
        if before == "half an authority":
            (folder / "ca.pem").write_bytes((folder / "ca.pem").read_bytes()[:100])
        kept = (folder / "ca.pem").read_bytes() if before == "an authority" else None
        process = FORKED.Process(target=ensure_until, args=(folder, change))
        process.start()
        process.join()
        certificates.ensure(folder, ["localhost"])
        assert_belong_together(folder)
        assert kept in (None, (folder / "ca.pem").read_bytes())
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    assert killed >= (8 if before == "an authority" else 14)


def test_what_a_killed_one_leaves_is_no_authority_without_its_key(tmp_path: Path) -> None:
    for change in range(14):
        folder = tmp_path / str(change)
        process = FORKED.Process(target=ensure_until, args=(folder, change))
        process.start()
        process.join()
        if (folder / "ca.pem").exists():
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
            authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            assert authority.public_key() == key.public_key()


def ensure_at_once(folder: Path, barrier: Barrier) -> None:
    barrier.wait()
    certificates.ensure(folder, ["localhost"])


def test_twenty_pairs_at_once_make_one_authority_each(tmp_path: Path) -> None:
    for number in range(20):
        folder, barrier = tmp_path / str(number), FORKED.Barrier(2)
        pair = [FORKED.Process(target=ensure_at_once, args=(folder, barrier)) for _ in range(2)]
        for process in pair:
            process.start()
        for process in pair:
            process.join()
        assert [process.exitcode for process in pair] == [0, 0]
        assert_belong_together(folder)
