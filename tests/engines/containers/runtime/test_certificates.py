"""Certificates, by real handshakes."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509

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
