"""Half of a Bell pair that another QPU receives, on each engine that takes dynamic circuits."""

from __future__ import annotations

import pytest
from linked_devices import PERFECT, install_linked
from qiskit import QuantumCircuit

from simenv import QPUProgram
from simenv.client.client import Client
from simulators import catalog

ENGINES = {
    card.name: card
    for card in catalog.engine_cards()
    if card.control.dynamic and card.control.conditions and card.pool == "default"
}
NOISY = [name for name, card in ENGINES.items() if "pauli" in card.noise.kinds]
SHOTS = 2_000


def sent_half(basis: str) -> list[QPUProgram]:
    """A sends half of |00> + |11> to B; both measure in Z or X, and B sends its outcome to A."""
    a, b = QPUProgram("A", 2, 2), QPUProgram("B", 2, 1)
    a.h(0)
    a.cx(0, 1)
    a.qsend(1, b)
    b.qrecv(1, a)
    if basis == "X":
        a.h(0)
        b.h(1)
    a.measure(0, 0)
    b.measure(1, 0)
    b.send(0, a)
    a.recv(1, b)
    return [a, b]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("basis", "ZX")
def test_half_of_a_bell_pair_stays_entangled_when_it_is_sent(
    env: Client, engine: str, basis: str
) -> None:
    device = install_linked("programs-ideal", dict.fromkeys("ab", PERFECT), links=1)
    joined = env.join(sent_half(basis), device)
    result = env.run(joined.circuit, device=device, shots=SHOTS, seed=1, engine=engine)
    counts = joined.counts(result)
    assert counts["A"].keys() == {"00", "11"}
    assert counts["B"] == {key[0]: count for key, count in counts["A"].items()}
    assert abs(counts["B"]["0"] - SHOTS / 2) < 5 * (SHOTS / 4) ** 0.5


@pytest.mark.parametrize("engine", NOISY)
@pytest.mark.parametrize("basis", "ZX")
def test_half_of_a_bell_pair_has_the_errors_of_the_link(
    env: Client, engine: str, basis: str
) -> None:
    device = install_linked("programs-link", dict.fromkeys("ab", PERFECT), links=1, fidelity=0.9)
    joined = env.join(sent_half(basis), device)
    result = env.run(joined.circuit, device=device, shots=SHOTS, seed=2, engine=engine)
    wrong = sum(n for key, n in joined.counts(result)["A"].items() if key[0] != key[1])
    expected = 2 / 3 * 0.1  # two of the three errors of a Werner state
    assert abs(wrong / SHOTS - expected) < 5 * (expected / SHOTS) ** 0.5


def test_programs_without_messages_run_as_alone(env: Client) -> None:
    device = install_linked("programs-ideal", dict.fromkeys("ab", PERFECT), links=1)
    a, b = QPUProgram("A", 2, 2), QPUProgram("B", 1, 1)
    a.x(1)
    a.measure([0, 1], [0, 1])
    b.x(0)
    b.measure(0, 0)
    joined = env.join({"b": a, "a": b}, device)
    counts = joined.counts(env.run(joined.circuit, device=device, shots=10))
    assert counts == {"A": {"10": 10}, "B": {"1": 10}}


def test_memory_of_programs_is_that_of_the_same_shots(env: Client) -> None:
    device = install_linked("programs-ideal", dict.fromkeys("ab", PERFECT), links=1)
    joined = env.join(sent_half("X"), device)
    result = env.run(joined.circuit, device=device, shots=50, outputs=("counts", "memory"))
    memory = joined.memory(result)
    assert [key[0] for key in memory["A"]] == memory["B"]
    assert {key: memory["A"].count(key) for key in set(memory["A"])} == joined.counts(result)["A"]


def test_gate_by_a_received_bit_waits_for_the_message(env: Client) -> None:
    modules, seconds = dict.fromkeys("ab", "belem"), []
    for latency_ns in (1e6, 2e6):
        name = f"programs-{latency_ns:.0f}"
        device = install_linked(name, modules, links=1, latency_ns=latency_ns)
        a, b = QPUProgram("A", 1, 1), QPUProgram("B", 1, 1)
        a.measure(0, 0)
        a.send(0, b)
        b.recv(0, a)
        with b.if_test((0, 0)):
            b.x(0)
        b.measure(0, 0)
        joined = env.join([a, b], device)
        result = env.run(joined.circuit, device=device, shots=100, seed=4)
        assert joined.counts(result)["B"]["1"] > 80
        seconds.append(result.device_time_s)
    assert seconds[1] - seconds[0] == pytest.approx(100 * 1e-3, rel=1e-3)


def test_a_stored_bit_has_the_value_that_was_measured_before(env: Client) -> None:
    device = install_linked("programs-ideal", dict.fromkeys("ab", PERFECT), links=1)
    circuit = QuantumCircuit(1, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    circuit.store(circuit.clbits[1], circuit.clbits[0])
    assert env.run(circuit, device=device, compile="always", shots=10).counts == {"11": 10}
