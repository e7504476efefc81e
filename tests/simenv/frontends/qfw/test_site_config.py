"""What QFw's site file says of unread completions, from the file to what is let go of."""

import logging
from pathlib import Path

import pytest
from failing import fails

import simenv
from simenv.client.client import Client
from simenv.client.qpm.circuit_run import refused
from simenv.client.qpm.completion_queues import CircuitRegistry, CompletionRetention
from simenv.client.qpm.requests import Request
from simenv.client.qpm.submitter import ReservationChecks
from simenv.errors import ConfigError, ProgramError
from simenv.frontends.qfw import deployment, environment

pytest.importorskip("yaml")
REQUEST = Request("", shots=1, seed=None, statevector=False, options={})

SITE = """
install:
  qfw-prefix: ${QFW_PREFIX}
qpm:
  completion-queues:
    retention:
      completion-ttl-seconds: 9
      terminal-reservation-retention-seconds: 8
      max-records-per-reservation: 7
      max-bytes-per-reservation: 6
      purge-interval-seconds: 5
"""
AT = "qpm:\n  completion-queues:\n    retention:\n      "


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site.yaml"


def test_retention_is_read_from_site_file(site: Path) -> None:
    site.write_text(SITE)
    assert environment.retention(site) == CompletionRetention(9, 8, 7, 6, 5)
    site.write_text(AT + "max-records-per-reservation: 3\n")
    assert environment.retention(site) == CompletionRetention(count=3)


@pytest.mark.parametrize("text", ["", "qpm:\n", "qpm: {}\n", "install: {}\n", AT + "\n"])
def test_site_file_without_retention_keeps_defaults(site: Path, text: str) -> None:
    site.write_text(text)
    assert environment.retention(site) == CompletionRetention()


def test_unknown_retention_key_is_logged(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    site.write_text(AT + "completion-ttl-seconds: 4\n      max-weight: 3\n")
    with caplog.at_level(logging.WARNING):
        assert environment.retention(site) == CompletionRetention(age_s=4)
    assert "nothing here knows qpm.completion-queues.retention.max-weight" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (AT + "completion-ttl-seconds: -1\n", "completion-ttl-seconds = -1"),
        (AT + "completion-ttl-seconds: soon\n", "= 'soon'"),
        (AT + "completion-ttl-seconds: true\n", "= True"),
        (AT + "max-records-per-reservation: 0\n", "reservation = 0"),
        (AT + "max-bytes-per-reservation: 1.5\n", "= 1.5"),
        ("qpm: 5\n", "qpm is not a table"),
        ("[1, 2]\n", "all of it is not a table"),
        ("qpm:\n  completion-queues:\n    retention: [1]\n", "retention is not a table"),
        ("a: [1\n", "is not YAML"),
        ("qpm: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("[" * 5_000, "is not YAML"),
        ("#" * 2**20 + "\n", "larger than"),
    ],
)
def test_invalid_site_file_is_refused(site: Path, text: str, words: str) -> None:
    site.write_text(text)
    fails(ConfigError, words, environment.retention, site)


def test_missing_site_file_means_defaults(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    fails(ConfigError, "cannot be read: No such file", environment.retention, site)
    with caplog.at_level(logging.WARNING):
        assert environment._retention(site) is None
    assert "kept as the contract has it" in caplog.text


def test_retention_of_site_file_is_applied_to_completion_queues(site: Path) -> None:
    site.write_text(SITE)
    result = deployment.read({"QFW_SITE_CONFIG": str(site)})
    assert result.site_config == site
    assert deployment.read({}).site_config is None
    with simenv.local(workers=1) as env:
        qpm = environment._opened(
            env, environment.QPMConfig(reservations_required=False), result.site_config
        )
        assert qpm._registry.retention == CompletionRetention(9, 8, 7, 6, 5)
        assert env.qpm_with()._registry.retention == CompletionRetention()
        _reservations_end(env)
        _one_is_released(env)


def _reservations_end(env: Client) -> None:
    """What ran under one that is over goes; what ran under others stays."""
    book = CircuitRegistry(env._session, CompletionRetention(closed_s=0.0, purge_s=0.0))
    claims = ReservationChecks(env._session, required=False, over=book.closed)
    for number in (1, 2):
        run = refused(f"cid-{number}", number, REQUEST, 0.0, ProgramError("no circuit"), number)
        book.enter(run, queued=True)
    book.look()
    claims.ended(1)
    claims.ended(3)
    book.look()
    assert book._closed_s == {}
    result, outcome = book.find("cid-1"), book.find("cid-2")
    assert getattr(result, "reason", "") == "retention-reservation"
    assert not hasattr(outcome, "reason")
    assert book.take("cid-2") is not None


def _one_is_released(env: Client) -> None:
    """Through the calls of the contract."""
    qpm = env.qpm_with(retention=CompletionRetention(closed_s=0.0, purge_s=0.0))
    number = qpm.reserve(request={})["reservation_id"]
    info = {"qasm": "OPENQASM 2.0;\nbad;\n", "num_qubits": 1, "num_shots": 1}
    cid = qpm.async_run(info, reservation_id=number)["cid"]
    assert qpm.peek_cq(cid, reservation_id=number)["completion_ready"]
    assert qpm.release(reservation_id=number)["status"] == "accepted"
    answer = qpm.read_cq(cid, reservation_id=number)
    assert answer["outcome"] == "NO_LONGER_RETAINED"
    assert answer["retention_reason"] == "retention-reservation"
