"""Devices of an installed qiskit-ibm-runtime, read without importing it."""

import importlib.util
import json

import pytest
from interpreter import python

from noise_models import library, snapshot

HAS_PACKAGE = importlib.util.find_spec(library.PACKAGE) is not None
pytestmark = pytest.mark.skipif(not HAS_PACKAGE, reason="qiskit-ibm-runtime is not installed")


def test_names_are_the_folders_of_the_package() -> None:
    assert {"fez", "torino", "lima"} <= set(library.installed_names())
    assert library.names() == (*library.BUNDLED, *library.installed_names())


@pytest.mark.parametrize("name", ["fez", "FEZ", "fake_fez", "FakeFez", "FakeFezV2", "ibm_fez"])
def test_aliases_of_a_device_lead_to_one_name(name: str) -> None:
    assert library.resolve(name) == "fez"


@pytest.mark.parametrize("name", ["", "..", "fez/../fez", "fake_", "abacus", "\u2460"])
def test_unknown_and_unsafe_names_lead_to_none(name: str) -> None:
    assert library.resolve(name) == ""


def test_values_of_a_device_are_those_of_its_files() -> None:
    document = library.load("fake_lima")
    assert (document.name, document.num_qubits, document.provider) == ("lima", 5, "IBM")
    assert document.qubits[0].t1_us == 59.69864328663569
    assert document.qubits[0].confusion == (0.011800000000000033, 0.0404)
    assert document.qubits[0].readout_ns == 5351.11111111111
    error = {(each.name, each.qubits): each.error for each in document.gates}
    assert error["cx", (4, 3)] == 0.02043493012013503
    assert document.zz[0].rate_khz == pytest.approx(-42.69674439106963)
    assert document.calibrated == "2021-03-15T00:36:03-04:00"


def test_every_device_is_imported() -> None:
    for name in library.installed_names():
        value, report = library.read(name)
        assert value.num_qubits == len(value.qubits), name
        assert value.coupling or value.num_qubits == 1, name
        assert report.used, name
        assert snapshot.load(snapshot.dump(value)) == value, name


def test_a_device_is_read_without_importing_qiskit() -> None:
    code = (
        "import json, sys; from noise_models import library; library.load('lima');"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = python("-c", code, timeout=60)
    assert {"qiskit", "qiskit_ibm_runtime", "numba", "simenv"}.isdisjoint(json.loads(done.stdout))


def test_without_package_bundled_profiles_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PACKAGE", "package_that_does_not_exist")
    assert (library.names(), library.resolve("fez")) == (library.BUNDLED, "")
