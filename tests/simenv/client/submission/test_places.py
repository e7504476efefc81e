"""Circuits of stim on devices: the client refuses what a worker's device program refuses."""

import itertools

import pytest
import stim

from noise_models import calibration, library
from simenv.client.submission import places
from simenv.errors import ProgramError
from simenv.model import link_use
from simulators.errors import Unsupported
from simulators.stabilizer.device_circuit import DeviceProgram
from simulators.stabilizer.device_gates import DeviceGates

GATES = DeviceGates(library.load("trapped-ions"))
PRODUCT = [stim.target_x(0), stim.target_combiner(), stim.target_z(1)]
TARGETS = ([0], [0, 1], [stim.target_rec(-1)], [stim.target_rec(-1), 1], PRODUCT)
ARGUMENTS = ([], [0.01], [0.01] * 3, [0.01] * 4, [0.01] * 15)


def circuits(name: str) -> list[stim.Circuit]:
    """Circuits with one instruction of a name, of all forms that stim takes."""
    found = []
    for targets, arguments in itertools.product(TARGETS, ARGUMENTS):
        circuit = stim.Circuit("M 2")
        try:
            circuit.append(name, targets, arguments)
        except (ValueError, IndexError):
            continue
        found.append(circuit)
    return found


@pytest.mark.parametrize("name", sorted(stim.gate_data()))
def test_client_and_worker_refuse_the_same_instructions(name: str) -> None:
    for circuit in circuits(name):
        refused = [False, False]
        try:
            places._check_operations(circuit)
        except ProgramError:
            refused[0] = True
        try:
            DeviceProgram(circuit, GATES, {0: 0, 1: 1, 2: 2})
        except Unsupported:
            refused[1] = True
        assert refused[0] == refused[1], str(circuit)


def test_gate_of_links_has_the_same_name_on_both_sides_of_the_import_rules() -> None:
    assert link_use.LINK_GATE == calibration.LINK_GATE
