"""Documents, the registry of devices, and the first check of a circuit for a device."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from failing import fails

from simenv.client.circuits import load
from simenv.errors import LimitExceededError, NotFoundError
from simenv.model import TaskOptions, decode_program
from simenv.service.devices import context, registry, resolve
from simenv.service.devices.context import DeviceContext
from simenv.service.devices.registry import DeviceRegistry, EmulatedDevice
from simenv.service.devices.resolve import MAX_SENT, SENT_BYTES, NoiseDocuments, SentDocuments
from simenv.service.journal.writer import Journal
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.compiler import kernel


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    outcome = Journal(tmp_path / "journal.db", "process")
    yield outcome
    outcome.close()


def test_document_is_read_again_after_restart(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.db", "process")) as first:
        NoiseDocuments(first, set).add("aa", b"body", "ana")
    with closing(Journal(tmp_path / "journal.db", "process")) as second:
        documents = NoiseDocuments(second, set)
        assert "aa" in documents
        assert (documents.body("aa"), documents.body("bb")) == (b"body", b"")


def test_oldest_unused_document_goes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "MAX_DOCUMENTS", 2)
    documents = NoiseDocuments(journal, lambda: {"a0"})
    documents.add("z0", b"other", "ben")
    for name in ("a0", "a1", "a2"):
        documents.add(name, b"body", "ana")
    assert [n for n in ("a0", "a1", "a2", "z0") if n in documents] == ["a0", "a2", "z0"]


def test_owner_of_documents_in_use_only(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "MAX_OWNER_BYTES", 10)
    noise_documents = NoiseDocuments(journal, lambda: {"a0"})
    noise_documents.add("a0", b"8 bytes.", "ana")
    noise_documents.add("a0", b"8 bytes.", "ana")
    fails(LimitExceededError, "in use", noise_documents.add, "a1", b"8 bytes.", "ana")
    assert "a1" not in noise_documents


def test_document_is_sent_once_to_each_start_of_worker() -> None:
    sent = SentDocuments()
    assert sent.missing("w", 1, ["a", "b", "a"], len) == (["a", "b"], False)
    assert sent.missing("w", 1, ["b", "c"], len) == (["c"], False)
    assert sent.missing("v", 1, ["a"], len) == (["a"], False)
    assert sent.missing("w", 2, ["b"], len) == (["b"], False)


def test_worker_with_too_many_documents_or_bytes_drops_them_and_gets_all_needed() -> None:
    sent = SentDocuments()
    sent.missing("w", 1, [str(number) for number in range(MAX_SENT)], len)
    assert sent.missing("w", 1, ["0", "new"], len) == (["0", "new"], True)
    assert sent.missing("w", 1, ["1"], len) == (["1"], False)
    sent = SentDocuments()
    half = {"a": SENT_BYTES // 2, "b": SENT_BYTES // 2, "c": 1, "d": 2 * SENT_BYTES}.__getitem__
    assert sent.missing("w", 1, ["a"], half) == (["a"], False)
    assert sent.missing("w", 1, ["a", "b"], half) == (["b"], False)
    assert sent.missing("w", 1, ["a", "c"], half) == (["a", "c"], True)
    assert sent.missing("w", 1, ["d"], half) == (["d"], True)
    assert sent.missing("v", 1, ["d"], half) == (["d"], False)


def test_the_document_of_a_device_that_was_read_is_not_parsed_again(tmp_path: Path) -> None:
    registry = DeviceRegistry(tmp_path)
    device = registry.get("ideal").result(60)
    assert registry.document(device.digest, b"not parsed").result(60) is device
    other = DeviceRegistry(tmp_path).document(device.digest, device.body).result(60)
    assert other.digest == device.digest
    registry.close()


def test_large_document_is_refused_to_owners_of_keys_alone(tmp_path: Path) -> None:
    devices = DeviceRegistry(tmp_path)
    body = devices.get("ideal").result(60).body
    large, largest = body + b" " * 2 * 2**20, body.ljust(2**20)
    error = fails(LimitExceededError, "with the key 'ana'", devices.check, large, "ana")
    assert "the limit is 1.0 MiB" in error.message
    assert "simenv devices import" in error.hint
    fails(LimitExceededError, "", devices.check, largest + b" ", "ana")
    for accepted, owner in ((largest, "ana"), (large, "")):
        assert devices.check(accepted, owner).result(60).body == body
    devices.close()


def test_documents_of_one_owner_wait_for_one_another_and_not_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is held until that of the other owner has been checked."""
    may_go_on, order = threading.Event(), []
    parse = registry._parsed
    devices = DeviceRegistry(tmp_path)
    body = devices.get("ideal").result(60).body

    def parsed(text: bytes, name: str) -> EmulatedDevice:
        if len(text) == len(body):
            may_go_on.wait(60)
        order.append(len(text) - len(body))
        return parse(text, name)

    monkeypatch.setattr(registry, "_parsed", parsed)
    checks = [
        devices.check(body.ljust(len(body) + number), owner)
        for number, owner in enumerate(("ana", "ana", "ana", "ben"))
    ]
    assert checks[3].result(60).body == body
    may_go_on.set()
    assert {check.result(60).body for check in checks} == {body}
    assert order == [3, 0, 1, 2]
    devices.close()


@pytest.mark.parametrize("name", ["a" * 5_000, "\u00e9" * 200, "a\x00b", "../ideal", "\ud800"])
def test_a_name_of_no_device_is_not_found(tmp_path: Path, name: str) -> None:
    registry = DeviceRegistry(tmp_path)
    with pytest.raises(NotFoundError, match="there is no device"):
        registry.get(name).result(60)
    registry.close()


NAME = "superconducting-lattice"
TEXT = "OPENQASM 2.0;\ninclude 'qelib1.inc';\nqreg q[1];\ncreg c[1];\nx q;\nmeasure q -> c;\n"


def test_first_check_compiles_few_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task would wait for them; the loop checks no circuit before they are compiled."""
    monkeypatch.setattr(kernel, "_kernels", dict(kernel._kernels))

    @kernel.kernel("INT -> INT", group="attachment")
    def unneeded(number):  # type: ignore[no-untyped-def]
        return number + 1

    monkeypatch.setattr(context, "kernels", lambda _group: (unneeded,))
    registry = DeviceRegistry(tmp_path)
    device = registry.get(NAME).result()
    registry.close()
    circuit = Circuit.from_program(decode_program(load(TEXT).packed))
    terms = TaskOptions(device=NAME)
    checks = DeviceContext(device.info, device, terms)
    assert checks.examined(circuit, profile(circuit, ("counts",), ()), terms).noise is not None
    assert not unneeded.is_loaded
    assert not checks.is_loaded
