"""Hints of refusals name only engines that take what was refused."""

import re

import pytest
from arrays import Arrays
from device_models import DeviceModel

from simulators import catalog
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.errors import OTHER_ENGINE, EngineError
from simulators.simulate import simulate

NAMED = re.compile(r"engine='(\w+)'")
ENGINES = sorted(
    card.name
    for card in catalog.engine_cards()
    if card.in_default_pool and not card.calls and not card.install_hint
)


def until(qubits: int) -> Circuit:
    """A loop without a bound, and T gates."""
    arrays = Arrays(qubits, 1).add("h", [0]).add("t", [0]).add("measure", [0], [0])
    arrays.begin((ir.CLBIT, 0, 0), name="while").add("h", [0]).add("measure", [0], [0]).add("end")
    return arrays.circuit()


def conditional() -> Circuit:
    arrays = Arrays(3, 3).add("h", [0]).add("t", [0]).add("h", [0]).add("measure", [0], [0])
    arrays.begin((ir.CLBIT, 0, 0)).add("x", [1]).add("end")
    return arrays.measure(range(3)).circuit()


def wide_gate() -> Circuit:
    return Arrays(6, 6).add("h", [0]).add("mcx", [*range(6)]).measure(range(6)).circuit()


def noisy(circuit: Circuit) -> NoiseProgram:
    return attach_noise(circuit, DeviceModel(circuit.num_qubits, gate_error=0.02))


CASES = {
    "until": (until(2), None),
    "until_wide": (until(90), None),
    "conditional": (conditional(), None),
    "conditional_noise": (conditional(), noisy(conditional())),
    "wide_gate": (wide_gate(), None),
}


def refusal(engine: str, circuit: Circuit, noise: NoiseProgram | None) -> str:
    """Hint of the engine's refusal; "" if it runs the circuit."""
    try:
        simulate(circuit, engine=engine, noise=noise, shots=10)
    except EngineError as error:
        return error.hint or "none"
    return ""


@pytest.mark.parametrize("name", CASES)
def test_engines_that_hints_name_run_the_circuit(name: str) -> None:
    circuit, noise = CASES[name]
    hints = {engine: refusal(engine, circuit, noise) for engine in ENGINES}
    assert any(hints.values())
    for engine, hint in hints.items():
        assert OTHER_ENGINE not in hint
        for other in NAMED.findall(hint):
            assert not hints[other], f"{engine}: {hint}"
