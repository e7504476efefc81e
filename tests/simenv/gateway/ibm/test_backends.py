"""Devices in the form of IBM's backends: the client makes the same Target of them as simenv."""

import math
from typing import Any

import pytest
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.transpiler import Target
from qiskit_ibm_runtime.models import BackendProperties, QasmBackendConfiguration
from qiskit_ibm_runtime.utils.backend_converter import convert_to_target
from qiskit_ibm_runtime.utils.backend_decoder import (
    configuration_from_server_data,
    properties_from_server_data,
)

from simenv.client.client import Client
from simenv.frontends.qiskit.backend import device_target
from simenv.gateway.ibm import backends
from simenv.model.devices import DeviceInfo


def read(
    name: str, info: DeviceInfo, fractional: bool | None = None
) -> tuple[QasmBackendConfiguration, BackendProperties | None]:
    configuration = configuration_from_server_data(
        backends.configuration(name, info), use_fractional_gates=fractional
    )
    raw = backends.properties(name, info)
    found = (
        None if raw is None else properties_from_server_data(raw, use_fractional_gates=fractional)
    )
    return configuration, found


def test_standard_gates_are_those_of_qiskit() -> None:
    of_qiskit = set(get_standard_gate_name_mapping()) - {"measure", "reset", "delay"}
    assert of_qiskit == backends.STANDARD_GATES


def places(target: Target, name: str) -> dict[tuple[int, ...], Any]:
    return {qubits: each for qubits, each in target[name].items() if qubits is not None}


@pytest.mark.parametrize("fractional", [False, True])
@pytest.mark.parametrize(
    "name", ["fez", "kingston", "superconducting-lattice", "trapped-ions", "manila"]
)
def test_the_clients_target_of_a_device_is_simenvs(
    env: Client, name: str, fractional: bool
) -> None:
    info = env.device(name)
    asked = fractional or name == "trapped-ions"  # which the client strips of its native rzz
    target = convert_to_target(*read(name, info, asked))
    own = device_target(info, fractional_gates=fractional)
    is_fractional = {"rx", "rzz"} <= set(own.operation_names)
    assert is_fractional == (fractional and name in ("fez", "kingston"))
    assert target.num_qubits == own.num_qubits
    assert set(own.operation_names) <= set(target.operation_names) | {"delay"}
    named = ("measure_2",) if name == "kingston" else ()
    gates = [*named, *(each.name for each in info.gates + info.fractional_gates)]
    for gate in filter(own.operation_names.__contains__, gates):
        assert places(target, gate).keys() == places(own, gate).keys()
        for qubits, figures in places(own, gate).items():
            seen = target[gate][qubits]
            if figures is not None and figures.error is not None:
                assert seen.error == pytest.approx(figures.error)
            if figures is not None and figures.duration is not None:
                assert seen.duration == pytest.approx(figures.duration)


def test_properties_have_the_times_of_the_qubits(env: Client) -> None:
    info = env.device("fez")
    _, found = read("fez", info)
    assert found is not None
    assert found.t1(3) == pytest.approx(info.qubits[3].t1_us * 1e-6)
    assert found.readout_error(3) == pytest.approx(info.qubits[3].readout_error)
    assert not math.isnan(found.gate_error("cz", [0, 1]))


def test_an_ideal_pool_couples_any_pair_and_has_no_properties(env: Client) -> None:
    info = env.devices()["main"]
    configuration, found = read("main", info)
    assert found is None
    assert configuration.simulator
    target = convert_to_target(configuration)
    assert target.instruction_supported("cx", (7, 2))
    assert target.instruction_supported("u", (5,))
    assert target.num_qubits == info.num_qubits
