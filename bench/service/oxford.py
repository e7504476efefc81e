"""Oxford's two linked ion traps, from the published figures of their parts."""

from __future__ import annotations

import itertools
import math
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.quantum_info import Pauli

import simenv
from bench.harness import Report, benchmark
from bench.harness.environments import home
from noise_models import calibration as cal, snapshot as snapshots
from noise_models.linked import LinkDesign, linked
from simenv import config
from simenv.client.client import Client
from simenv.transpiler.linked.distribution import LinkedTranspiler
from simenv.transpiler.linked.operations import DistributedCircuit

# --- the published figures ------------------------------------------------------------------------
# Main et al., Nature 638, 383 (2025), arXiv 2407.00835: outcomes, with the CZ and Grover of the
# abstract and those of the iSWAP and SWAP circuits as recalled; pair and rate as published.
OUTCOMES = {"cz": 0.862, "iswap": 0.70, "swap": 0.64, "grover": 0.71}
PAIR_FIDELITY, RATE_HZ = 0.9689, 9.7
# Their tomography of the pair (density matrix, as tabulated in quantinuum's optyx from the paper's
# figure): populations 0.012 and 0.000 of the states with a flipped bit, without a coherence between
# them; all other errors are of the phase.
FLIPPED = 0.012
# Recalled, not verified: gates between the ions of a trap, by trap; one-qubit gates; readout of the
# ions that hold the pair, and of those that hold the data.
LOCAL_CZ = (0.976, 0.980)
ONE_QUBIT_ERROR, PAIR_READOUT, DATA_READOUT = 5e-4, 3e-3, 2e-3
# Drmota et al., PRL 130, 090803 (2023), arXiv 2210.11447, in one of these traps: entanglement that
# was transferred to the memory with fidelity 0.977 has 0.81(4) after 10 s with decoupling pulses.
# Pure dephasing: 2 F - 1 decays as exp(-t / T2).
MEMORY_T2_US = 10e6 / math.log((2 * 0.977 - 1) / (2 * 0.81 - 1))

DATA, PAIR, REFERENCE = 0, 1, 2  # qubits of a trap; the reference is perfect
_T1_US = 1e12  # no decay of populations
Body = Callable[[DistributedCircuit, int, int], None]


class Budget(NamedTuple):
    """Errors that are taken into account."""

    local: bool = True
    small: bool = True  # one-qubit gates and readout
    memory_t2_us: float = MEMORY_T2_US  # inf: none


BUDGETS = {
    "pair": Budget(local=False, small=False, memory_t2_us=math.inf),
    "pair, local gates": Budget(small=False, memory_t2_us=math.inf),
    "pair, local and one-qubit gates, readout": Budget(memory_t2_us=math.inf),
    f"all, memory with T2 = {MEMORY_T2_US / 1e6:.0f} s": Budget(),
}


@benchmark()
def oxford(report: Report, options: Namespace) -> None:  # noqa: ARG001  # it has none
    """Two ion traps joined by a photonic link, compared with the published outcomes.

    Average gate fidelity of the teleported CZ and of iSWAP and SWAP, which are two and three of it,
    from the exact state of the qubits and two perfect references (Choi state); and the mean success
    of Grover's search for each of four numbers. Inputs are figures of the parts alone: pair
    tomography and rate, local gates, readout, memory (`bench/service/oxford.py` has the source of
    each). The paper's own budget of errors was not accessible, and no number is fitted: what the
    parts do not explain shows as a deviation. The last line, which has no verdict, says how much of
    it one more dephasing of the data explains.
    """
    with home(), simenv.local(workers=1) as client:
        predicted: dict[str, float] = {}
        for name, budget in BUDGETS.items():
            predicted = _outcomes(client, _installed(budget))
            _print(name, predicted)
        _print("published", OUTCOMES)
        for key, value in OUTCOMES.items():
            report.at_most(f"{key}_points", 100.0 * abs(predicted[key] - value))
        budget = Budget(memory_t2_us=_fitted_t2_us(client))
        name = f"for information, T2 = {budget.memory_t2_us / 1e6:.2f} s fitted to the CZ"
        _print(name, _outcomes(client, _installed(budget)))


def _print(name: str, values: Mapping[str, float]) -> None:
    print(f"{name}:", ", ".join(f"{key} {value:.3f}" for key, value in values.items()), flush=True)


def _outcomes(client: Client, device: str) -> dict[str, float]:
    fidelities = {gate: _gate_fidelity(client, device, gate) for gate in BODIES}
    return {**fidelities, "grover": _grover_success(client, device)}


def _fitted_t2_us(client: Client) -> float:
    """T2 that explains what the parts leave unexplained of the CZ: it is none of theirs."""
    low, high = 1e5, MEMORY_T2_US
    for _ in range(10):
        middle = math.sqrt(low * high)
        value = _gate_fidelity(client, _installed(Budget(memory_t2_us=middle)), "cz")
        low, high = (middle, high) if value < OUTCOMES["cz"] else (low, middle)
    return low


def _installed(budget: Budget) -> str:
    """Store the device of a budget; return its name."""
    name = f"oxford-{abs(hash(budget))}"
    traps = {
        trap: _trap(trap, fidelity, budget)
        for trap, fidelity in zip(("alice", "bob"), LOCAL_CZ, strict=True)
    }
    errors = {"IX": FLIPPED / 2, "IY": FLIPPED / 2, "IZ": 1.0 - PAIR_FIDELITY - FLIPPED}
    link = LinkDesign(
        (f"alice.{PAIR}", f"bob.{PAIR}"),
        paulis=tuple(cal.PauliError(*each) for each in errors.items()),
        rate_hz=RATE_HZ,
    )
    folder = config.devices_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_bytes(snapshots.dump(linked(name, traps, (link,))))
    return name


def _trap(name: str, fidelity: float, budget: Budget) -> cal.CalibrationSnapshot:
    """One trap: an ion for data, one for pairs, and a perfect reference."""
    error = 1.0 - fidelity if budget.local else 0.0
    small = ONE_QUBIT_ERROR if budget.small else 0.0
    memory = (
        {"t1_us": _T1_US, "t2_us": budget.memory_t2_us} if budget.memory_t2_us < math.inf else {}
    )
    readouts = (DATA_READOUT, PAIR_READOUT) if budget.small else (0.0, 0.0)
    return cal.CalibrationSnapshot(
        name=name,
        num_qubits=3,
        provider="oxford",
        technology="trapped-ion",
        version="1",
        dynamic=True,
        native_gates=(
            *(cal.NativeGate(each, 1) for each in ("x", "sx")),
            cal.NativeGate("rz", 1, 1),
            *(cal.NativeGate(each, 2) for each in ("cz", "cx")),
        ),
        coupling=((DATA, PAIR), (PAIR, DATA), (REFERENCE, DATA)),
        qubits=(
            cal.QubitCalibration(p01=readouts[0], p10=readouts[0], readout_ns=0.0, **memory),
            cal.QubitCalibration(p01=readouts[1], p10=readouts[1], readout_ns=0.0),
            cal.QubitCalibration(p01=0.0, p10=0.0, readout_ns=0.0),
        ),
        gates=(
            cal.GateCalibration("rz", error=0.0, duration_ns=0.0),
            *(
                cal.GateCalibration(gate, (ion,), error=small, duration_ns=0.0)
                for gate in ("x", "sx")
                for ion in (DATA, PAIR)
            ),
            *(
                cal.GateCalibration(gate, (REFERENCE,), error=0.0, duration_ns=0.0)
                for gate in ("x", "sx")
            ),
            *(
                cal.GateCalibration("cz", pair, error=error, duration_ns=0.0)
                for pair in ((DATA, PAIR), (PAIR, DATA))
            ),
            cal.GateCalibration("cx", (REFERENCE, DATA), error=0.0, duration_ns=0.0),
        ),
        source_format="simenv",
    )


# --- circuits: wires 0 and 1 are the data of the two traps, 2 and 3 the references ----------------


def _cz(distributed: DistributedCircuit, first: int, second: int) -> None:
    distributed.circuit.barrier()  # what is before it is done before the wait for the pair
    distributed.telegate("cz", first, second)
    distributed.circuit.barrier()


def _cx(distributed: DistributedCircuit, first: int, second: int) -> None:
    distributed.circuit.h(second)
    _cz(distributed, first, second)
    distributed.circuit.h(second)


def _iswap(distributed: DistributedCircuit, first: int, second: int) -> None:
    distributed.circuit.s([first, second])
    distributed.circuit.h(first)
    _cx(distributed, first, second)
    _cx(distributed, second, first)
    distributed.circuit.h(second)


def _swap(distributed: DistributedCircuit, first: int, second: int) -> None:
    for pair in ((first, second), (second, first), (first, second)):
        _cx(distributed, *pair)


BODIES: dict[str, Body] = {"cz": _cz, "iswap": _iswap, "swap": _swap}


def _gate_fidelity(client: Client, device: str, gate: str) -> float:
    """Average fidelity of a gate on two qubits, exact: (4 F + 1) / 5 with F that of the Choi state
    (Nielsen, Phys. Lett. A 303, 249), which is the mean of its stabilizers."""
    info = client.device(device)
    distributed = DistributedCircuit(info, (0, 1, 0, 1))
    circuit = distributed.circuit
    circuit.h([2, 3])
    circuit.cx([2, 3], [0, 1])
    BODIES[gate](distributed, 0, 1)
    placed = _placed(distributed, info)
    ideal = QuantumCircuit(2)
    getattr(ideal, gate)(0, 1)
    signs, labels = zip(*_stabilizers(ideal, info.num_qubits, placed.last), strict=True)
    run = client.run(
        placed.circuit, device=device, compile="never", observables=list(labels), shots=None
    )
    fidelity = float(np.mean(np.array(signs) * np.array(run.expectations)))
    return (4.0 * fidelity + 1.0) / 5.0


def _stabilizers(
    ideal: QuantumCircuit, width: int, places: tuple[int, ...]
) -> Iterator[tuple[int, str]]:
    """Yield sign and label of U P U^+ on the data times P^T on the references, for each P."""
    for letters in itertools.product("IXYZ", repeat=2):
        before = Pauli("".join(letters))
        text = before.evolve(ideal, frame="s").to_label()
        sign = (-1) ** (text.startswith("-") + letters.count("Y"))
        label = ["I"] * width
        for place, letter in zip(places, (*text.lstrip("-")[::-1], *letters[::-1]), strict=True):
            label[width - 1 - place] = letter
        yield sign, "".join(label)


def _grover_success(client: Client, device: str) -> float:
    """Mean probability of the marked number, of four."""
    found = []
    for marked in range(4):
        info = client.device(device)
        like = QuantumCircuit(2)
        like.add_register(ClassicalRegister(2, "c"))
        distributed = DistributedCircuit(info, (0, 1), like)
        circuit = distributed.circuit
        circuit.h([0, 1])
        for phase in (marked, 0):  # the oracle, and the reflection about the mean
            flipped = [wire for wire in (0, 1) if not phase >> wire & 1]
            circuit.x(flipped) if flipped else None
            _cz(distributed, 0, 1)
            circuit.x(flipped) if flipped else None
            circuit.h([0, 1])
        circuit.measure([0, 1], [0, 1])
        placed = _placed(distributed, info)
        run = client.run(
            placed.circuit, device=device, compile="never", outputs=("probabilities",), shots=None
        )
        found.append(run.probabilities.get(f"{marked:02b}", 0.0))
    return float(np.mean(found))


def _placed(distributed: DistributedCircuit, info: Any) -> Any:
    mapping = (DATA, 3 + DATA, REFERENCE, 3 + REFERENCE)[: len(distributed.modules)]
    return LinkedTranspiler(info).placed(distributed, mapping)
