"""Error ledgers from Python, and the same from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from qiskit import QuantumCircuit

from simenv.calibration.ledger.circuits import circuit_ledger
from simenv.errors import InfeasibleError, NotFoundError, OptionError

DEVICE = "superconducting-lattice"


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


def test_circuits_and_files_have_one_ledger() -> None:
    path = Path(__file__).parents[4] / "examples" / "bell.qasm"
    result = circuit_ledger(bell(), DEVICE)
    assert 0.9 < result.fidelity < 1.0
    assert result.loss == pytest.approx(sum(loss for _, loss in result.components))
    assert circuit_ledger(path, DEVICE) == result


def test_noise_options_are_those_of_submit() -> None:
    result = circuit_ledger(bell(), DEVICE, noise={"qubit": 0, "gate.crosstalk": 0})
    assert {name for name, _ in result.components} == {"gate.depolarizing", "gate.coherent"}
    with pytest.raises(OptionError, match="no noise acts"):
        circuit_ledger(bell(), DEVICE, noise="off")
    with pytest.raises(OptionError, match="compile='often'"):
        circuit_ledger(bell(), DEVICE, compile="often")
    with pytest.raises(NotFoundError, match="nowhere"):
        circuit_ledger(bell(), "nowhere")


def test_a_circuit_that_the_device_would_refuse_has_no_ledger() -> None:
    with pytest.raises(InfeasibleError, match=r"h on qubit 0.* no native gate"):
        circuit_ledger(bell(), DEVICE, compile="never")


@pytest.mark.parametrize("device", [DEVICE, "trapped-ions"])
def test_recipe_of_aer_has_a_ledger_without_components_that_it_lacks(device: str) -> None:
    result = circuit_ledger(bell(), device, noise="aer")
    names = {name for name, _ in result.components}
    assert {"gate.depolarizing", "qubit.readout"} <= names
    assert not names & {"gate.coherent", "gate.crosstalk", "qubit.preparation"}


def test_a_circuit_that_measures_before_its_end_is_refused_with_one_hint() -> None:
    circuit = QuantumCircuit(1, 2)
    circuit.measure(0, 0)
    circuit.x(0)
    circuit.measure(0, 1)
    with pytest.raises(OptionError) as caught:
        circuit_ledger(circuit, DEVICE)
    assert str(caught.value).count("measurements at its end") == 1
