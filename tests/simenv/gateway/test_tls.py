"""Certificates of a gateway's own authority."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from failing import fails

from simenv import files
from simenv.config import AUTHORITY_FILE
from simenv.errors import ConfigError
from simenv.gateway import tls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files.private_folder(tmp_path / "gateway")


def test_authority_outlives_certificates_and_its_keys_are_private(folder: Path) -> None:
    paths = tls.issue(folder, "lab", "127.0.0.1")
    before, authority = paths[0].read_bytes(), (folder / AUTHORITY_FILE).read_bytes()
    assert tls.issue(folder, "lab", "192.0.2.1") == paths
    assert paths[0].read_bytes() != before
    assert (folder / AUTHORITY_FILE).read_bytes() == authority
    for path in (folder / tls.AUTHORITY_KEY_FILE, paths[1]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_strict_clients_accept_each_name_of_the_machine(folder: Path) -> None:
    path, key = tls.issue(folder, "e" * 64, "192.0.2.1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path, key)
    client = ssl.create_default_context(cafile=str(folder / AUTHORITY_FILE))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1", "192.0.2.1"):
        shake_hands(client, server, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(client, server, "quantum.example.org")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Connect both in memory."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    assert not ends


def test_authority_signs_no_other_authority(folder: Path) -> None:
    tls.issue(folder, "lab", "127.0.0.1")
    authority = x509.load_pem_x509_certificate((folder / AUTHORITY_FILE).read_bytes())
    bounds = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert bounds.critical
    assert bounds.value.path_length == 0


@pytest.mark.parametrize("damaged", [AUTHORITY_FILE, tls.AUTHORITY_KEY_FILE])
def test_damaged_authority_is_refused_with_the_remedy(folder: Path, damaged: str) -> None:
    tls.issue(folder, "lab", "127.0.0.1")
    (folder / damaged).write_bytes(b"nothing")
    error = fails(ConfigError, damaged.replace(".", r"\."), tls.issue, folder, "lab", "127.0.0.1")
    assert "remove both" in error.hint
