"""The federation's own certificate authority, and the server's certificate from it.

The authority is made at the first `up` and kept; the server's certificate is made anew at each
`up`, for all names and addresses that this host has then. Each file is replaced as a whole, an
authority's certificate after its key: whoever is killed in between leaves what the next `up` makes
whole, and clients never see an authority that has no key.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedbench.host.setup.locks import locked

_Pair = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]

_CA_DAYS, _SERVER_DAYS = 3650, 365
# `server` inside the compose network; `fedbench-host` for a container joined on this same host.
SERVER_NAMES = ("server", "localhost", "fedbench-host", "host.docker.internal")


def ensure(folder: Path, names: Iterable[str] | None = None) -> None:
    """Write `ca.pem`, `ca.key`, `server/server.pem` and `server/server.key` into `folder`.

    Clients mount only `ca.pem`, the server only `server/`: the authority's key stays here.
    """
    (folder / "server").mkdir(parents=True, exist_ok=True)
    with locked(folder):
        known = _known_authority(folder)
        if known is None:
            known = _authority()
            _write(folder, "ca", *known)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _server(key, *known, names or host_names())
        _write(folder, "server/server", key, certificate)


def host_names() -> list[str]:
    """Return names and addresses by which devices may know this host."""
    addresses = {
        address.address.partition("%")[0]
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }
    return [*SERVER_NAMES, socket.gethostname(), *sorted(addresses)]


def _known_authority(folder: Path) -> _Pair | None:
    """Return the authority; None where there is none, or its two files do not belong together."""
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{folder / 'ca.key'}: expected an elliptic-curve key")
    return (key, certificate) if certificate.public_key() == key.public_key() else None


def _authority() -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("fedbench federation")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(subject, subject, key, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _server(
    key: ec.EllipticCurvePrivateKey,
    authority_key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    names: Iterable[str],
) -> x509.Certificate:
    return (
        _builder(_name("fedbench server"), authority.subject, key, _SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    # Valid since yesterday: the clocks of real devices differ.
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(),
        now - timedelta(days=1), now + timedelta(days=days),
    )  # fmt: skip


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    for ending, content, mode in ((".key", private, 0o600), (".pem", public, 0o644)):
        aside = folder / "new"  # not in server/, which its container sees
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        aside.replace(folder / f"{name}{ending}")
