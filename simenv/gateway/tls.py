"""Certificates with which the gateway proves that it is the environment's.

The environment has a certificate authority of its own, whose secret key never leaves the gateway's
folder; clients get its certificate with their token, by a connection that is authenticated. Each
start of the gateway issues a certificate for its present names. Invariant: the authority stays the
same until its files are removed, so that what clients have stays valid.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from simenv import files
from simenv.config.paths import AUTHORITY_FILE
from simenv.errors import ConfigError

YEARS = 10  # of the authority
DAYS = 800  # of a certificate; browsers refuse more than 825
CERTIFICATE_FILE, KEY_FILE, AUTHORITY_KEY_FILE = "tls.pem", "tls.key", "authority.key"
_BEFORE = datetime.timedelta(days=1)  # clocks of clients may be late


def issue(folder: Path, environment: str, host: str) -> tuple[Path, Path]:
    """Issue a certificate for this machine, and for `host`, the address at which the gateway
    listens. Returns the PEM files of the certificate and of its key. `folder`: that of the gateway;
    the first call creates the authority there. Raises ConfigError."""
    authority, secret = _authority(folder, environment)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        _builder(f"simenv gateway of {environment}", key, now + datetime.timedelta(days=DAYS))
        .issuer_name(authority.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(secret.public_key()), critical=False
        )
        .sign(secret, hashes.SHA256())
    )
    paths = folder / CERTIFICATE_FILE, folder / KEY_FILE
    try:
        files.write_atomic(paths[1], _pem_of(key))
        files.write_atomic(paths[0], certificate.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise ConfigError(f"cannot write {paths[0]}: {error.strerror}") from error
    return paths


def _authority(
    folder: Path, environment: str
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return the certificate and the key of the environment's authority. Raises ConfigError."""
    paths = folder / AUTHORITY_FILE, folder / AUTHORITY_KEY_FILE
    try:
        if not paths[0].exists():  # the certificate is written last
            key = ec.generate_private_key(ec.SECP256R1())
            files.write_atomic(paths[1], _pem_of(key), sync=True)
            body = _authority_of(environment, key).public_bytes(serialization.Encoding.PEM)
            files.write_atomic(paths[0], body, sync=True)
        certificate = x509.load_pem_x509_certificate(paths[0].read_bytes())
        secret = serialization.load_pem_private_key(paths[1].read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        hint = "remove both: the next start makes new ones, and clients need `gateway env` again"
        raise ConfigError(f"cannot use {paths[0]} and {paths[1]}: {error}", hint=hint) from error
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    return certificate, secret


def _authority_of(environment: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    name = f"simenv authority of {environment} on {os.uname().nodename}"[:64]  # limit of X.509
    builder = _builder(name, key, now + datetime.timedelta(days=365 * YEARS))
    return (
        builder.issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, end: datetime.datetime
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name[:64]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.now(datetime.UTC) - _BEFORE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _names(host: str) -> list[x509.GeneralName]:
    """Return the names and addresses of this machine, and `host`."""
    interfaces = [each.address for own in psutil.net_if_addrs().values() for each in own]
    names = ["localhost", os.uname().nodename, socket.getfqdn(), host]
    return list(dict.fromkeys(_general(each) for each in (*names, *interfaces) if _is_name(each)))


def _general(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))
    return x509.DNSName(name)


def _is_name(text: str) -> bool:
    """Return whether a certificate can have a text as a name; not an address of hardware."""
    with suppress(ValueError):
        return not ipaddress.ip_address(text.partition("%")[0]).is_unspecified
    return bool(text) and text.isascii() and ":" not in text
