"""The stand-in: what a plugin meets there is what it meets in a DEFw."""

import socket
import threading
from pathlib import Path

import pytest
from failing import fails
from kit import assembled, checked

from simenv.qpm_check.check import VerdictState
from simenv.qpm_check.fake_defw import fakes
from simenv.qpm_check.fake_defw.fakes import Directory, is_subset
from simenv.qpm_check.fake_defw.loader import PeerGone, Sender, pack, purified, receive
from simenv.qpm_check.plugin import PluginTarget

MODE = '"instance_mode": _instance_mode()'
MODULE = "services/svc_reference/__init__.py"


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "answer", "value": {"00": 1, "0x1": 2, "": None, "yes": True, "1e3": 1.5}},
        {"kind": "answer", "value": [["a\nb\t\x00\x7f", "ü𝄞", "2026-01-01", "~", "- x", "{y: z}"]]},
        {"kind": "answer", "value": [0, -1, 2**70, 1e-300, float("inf")]},
    ],
)
def test_documents_are_received_unchanged(document: dict[str, object]) -> None:
    value, other = socket.socketpair()
    with value, other:
        Sender(value).send(document)
        assert receive(other) == document


def test_stream_with_broken_framing_is_refused() -> None:
    value, other = socket.socketpair()
    with value, other:
        header, body = pack({"a": 1})
        value.sendall(header[4:] + header + body)
        value.close()
        fails(PeerGone, "framing", receive, other)


def test_concurrent_sends_are_serialized_and_counted_as_collision() -> None:
    value, other = socket.socketpair()
    with value, other:
        sender = Sender(value)
        sender.pause_s = 0.2
        threads = [
            threading.Thread(target=sender.send, args=({"kind": "x", "n": k},)) for k in range(2)
        ]
        for thread in threads:
            thread.start()
        ordered = sorted(receive(other)["n"] for _ in threads)
        for thread in threads:
            thread.join()
    assert ordered == [0, 1]  # the second waited, so that the stream is still one
    assert sender.collisions == 1


def test_errors_and_odd_values_are_sent_plain() -> None:
    numpy = pytest.importorskip("numpy")
    value, result = purified({"counts": {"0": numpy.int64(3)}, "pair": (1, 2.5), "kind": {1}})
    assert (value, len(result)) == ({"counts": {"0": 3}, "pair": [1, 2.5], "kind": [1]}, 3)
    assert "numpy.int64" in result[0]
    assert purified({"a": [1, None, "x"]}) == ({"a": [1, None, "x"]}, [])

    class Own(fakes.DEFwNotFound):
        """A plugin's own, derived from one of DEFw's."""

    assert fakes.own_class(Own()) == "DEFwNotFound"
    assert (fakes.own_class(fakes.DEFwError()), fakes.own_class(ValueError())) == ("DEFwError", "")


def test_mask_matches_if_all_its_bits_are_offered_or_it_is_minus_1() -> None:
    assert is_subset(2, 3)
    assert is_subset(-1, 0)
    assert not is_subset(3, 2)


def test_directory_counts_generations_and_filters_services() -> None:
    directory = Directory()
    table = {"service_id": "a", "api_bindings": [{"binding_name": "control"}], "qpm_type": 2}
    for generation in (1, 2):
        directory.register_service(None, context=table)
        resolve_services = directory.resolve_services(service_id="a", binding_name="control")
        assert [each["generation"] for each in resolve_services] == [generation]
    assert directory.resolve_services(binding_name="telemetry") == []
    assert directory.resolve_services(qpm_type=1) == []
    directory.deregister_service("a")
    assert directory.resolve_services(service_id="a") == []


def _with(folder: Path, old: str, new: str) -> Path:
    path = folder / MODULE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "row", "words"),
    [
        ("import json", "import defw_workers\nimport json", "load.bare", "defw_workers"),
        ("import json", "import defw\nimport json", "load.bare", "defw"),
        ("def initialize() -> None:", "def initialize(x) -> None:", "load.initialize", "argument"),
        ('"name": "QPM"', '"name": "QPM2"', "load.metadata", "QPM2"),
        ('"version": 1.0', '"version": "1.0"', "load.metadata", "version"),
        (MODE, '"instance_mode": "per_connection"', "load.singleton", "six objects"),
        ("[QPM]", "[]", "load.classes", "no QPM"),
        ("_ended.set()", "raise RuntimeError('left')", "load.uninitialize", "left"),
    ],
)
def test_bad_module_fails_load(old: str, new: str, row: str, words: str, tmp_path: Path) -> None:
    (verdict,) = checked(_with(assembled(tmp_path), old, new), row, revisions=(2,)).verdicts
    assert verdict.state is VerdictState.FAILED
    assert words in verdict.why


def test_singleton_plugin_fails_per_connection_checks_of_revision_1(tmp_path: Path) -> None:
    folder = _with(assembled(tmp_path), MODE, '"instance_mode": "singleton"')
    report = checked(folder, "load.per-connection", "clients.own-queue", revisions=(1,))
    whys = {verdict.id: verdict.why for verdict in report.verdicts}
    assert "'singleton'" in whys["load.per-connection"]
    assert "another client" in whys["clients.own-queue"]


def test_clients_of_revision_1_have_separate_objects_and_queues(tmp_path: Path) -> None:
    with PluginTarget("a plugin", assembled(tmp_path)).open(1) as subject:
        client = subject.connect()
        other = subject.connect_same_process(client)
        cid = client.methods.async_run(
            {"qasm": "OPENQASM 2.0; qreg q[1]; creg c[1]; x q[0];", "num_shots": 1}
        )
        with pytest.raises(fakes.DEFwInProgress):  # it has an object, and a queue, of its own
            other.methods.read_cq(cid)
        fails(fakes.DEFwRemoteError, "AttributeError", client.methods.no_such_method)
