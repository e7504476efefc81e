"""A noise model of Qaptiva as a device of simenv.

Gate noise is a channel after each gate, idle noise acts on qubits that wait. A snapshot of simenv
has the average infidelity of each gate, and T1 and T2. Of a channel that is not depolarizing the
infidelity is kept and its form is not: `HardwareModel.remarks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simenv_myqlm.errors import UnsupportedError
from simenv_myqlm.records import Matrix

# Names of Qiskit, qubits and angles, of myQLM's gates.
_NATIVE = {
    "I": ("id", 1, 0), "H": ("h", 1, 0), "X": ("x", 1, 0), "Y": ("y", 1, 0), "Z": ("z", 1, 0),
    "S": ("s", 1, 0), "T": ("t", 1, 0), "D-S": ("sdg", 1, 0), "D-T": ("tdg", 1, 0),
    "RX": ("rx", 1, 1), "RY": ("ry", 1, 1), "RZ": ("rz", 1, 1), "PH": ("p", 1, 1),
    "CNOT": ("cx", 2, 0), "CSIGN": ("cz", 2, 0), "C-H": ("ch", 2, 0), "C-Y": ("cy", 2, 0),
    "C-X": ("cx", 2, 0), "C-Z": ("cz", 2, 0), "C-PH": ("cp", 2, 1), "C-RX": ("crx", 2, 1),
    "C-RY": ("cry", 2, 1), "C-RZ": ("crz", 2, 1), "SWAP": ("swap", 2, 0), "ISWAP": ("iswap", 2, 0),
}  # fmt: skip
_MEASURE = ("measure", "MEASURE", "meas")
_IGNORED = ("reset", "logic", "cbreak", *_MEASURE)


@dataclass(frozen=True, slots=True)
class KrausChannel:
    """Kraus operators, [2^n, 2^n] each."""

    operators: tuple[Matrix, ...]


@dataclass(frozen=True, slots=True)
class HardwareModel:
    """Parameters of a HardwareModel. `gate_times_ns`: by myQLM's names. `gate_noise`: the channel
    after each gate. `t1_ns`, `t_phi_ns`: of amplitude damping and pure dephasing of idle qubits.
    `readout_error`: mean of both. `coupling`: pairs; None: all to all."""

    num_qubits: int
    gate_times_ns: Mapping[str, float] = field(default_factory=dict)
    gate_noise: Mapping[str, KrausChannel] = field(default_factory=dict)
    t1_ns: float | None = None
    t_phi_ns: float | None = None
    readout_error: float | None = None
    coupling: tuple[tuple[int, int], ...] | None = None

    @property
    def remarks(self) -> list[str]:
        """What the snapshot does not keep of this model."""
        lost = [name for name, channel in self.gate_noise.items() if not is_depolarizing(channel)]
        words = f"acts as a depolarizing channel of the same fidelity: {', '.join(lost)}"
        others = [name for name in self.gate_noise if name not in _NATIVE]
        result = [f"gate noise that is not depolarizing {words}"] if lost else []
        if others:
            result.append(f"gates that a device cannot have are left out: {', '.join(others)}")
        return result


def infidelity(channel: KrausChannel, gate: str = "") -> float:
    """Return the average infidelity of a channel: Nielsen, Phys. Lett. A 303, 249 (2002). Raises
    UnsupportedError if it does not keep the trace."""
    operators = [np.asarray(each, dtype=np.complex128) for each in channel.operators]
    size = len(operators[0]) if operators else 0
    kept = sum(each.conj().T @ each for each in operators) if operators else np.zeros((0, 0))
    if size not in (2, 4) or np.shape(kept) != (size, size):
        raise UnsupportedError(
            f"the noise of gate {gate!r} has no Kraus operators", "of 1 or 2 qubits"
        )
    if not np.abs(kept - np.eye(size)).max() < 1e-6:
        raise UnsupportedError(
            f"the noise of gate {gate!r} does not keep the trace", "its operators"
        )
    overlap = sum(abs(np.trace(each)) ** 2 for each in operators) / size
    return float(max(0.0, 1 - (overlap + 1) / (size + 1)))


def is_depolarizing(channel: KrausChannel) -> bool:
    """Return whether a channel shrinks all Pauli operators alike and mixes none."""
    operators = [np.asarray(each, dtype=np.complex128) for each in channel.operators]
    paulis = [np.eye(2), [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]
    factors = []
    for letters in itertools.product(paulis, repeat=1 if len(operators[0]) == 2 else 2):
        pauli = np.asarray(letters[0], dtype=np.complex128)
        for other in letters[1:]:
            pauli = np.kron(pauli, np.asarray(other, dtype=np.complex128)).astype(np.complex128)
        image = sum(each @ pauli @ each.conj().T for each in operators)
        factor = np.trace(pauli.conj().T @ image) / len(pauli)
        if np.abs(image - factor * pauli).max() > 1e-9:
            return False
        factors.append(factor)
    return bool(np.ptp(np.real(factors[1:])) < 1e-9)


def snapshot_of(model: HardwareModel, name: str) -> dict[str, Any]:
    """Return the snapshot, as `json.dumps` writes it for `simenv devices import`. Its native gates
    are those with noise or a time. Raises UnsupportedError."""
    if model.num_qubits < 1:
        raise UnsupportedError(f"a device of {model.num_qubits} qubits", "at least one")
    qubits: dict[str, float] = {}
    if model.t1_ns is not None:
        qubits["t1_us"] = _positive(model.t1_ns, "T_1") / 1e3
    rate = 0.0 if model.t1_ns is None else 0.5 / model.t1_ns
    if model.t_phi_ns is not None:
        rate += 1 / _positive(model.t_phi_ns, "T_phi")
    if rate:
        qubits["t2_us"] = 1 / rate / 1e3
    if model.readout_error is not None:
        qubits["readout_error"] = model.readout_error
    for measure in _MEASURE:
        if measure in model.gate_times_ns:
            qubits["readout_ns"] = model.gate_times_ns[measure]
    native: dict[str, dict[str, Any]] = {}
    gates: dict[str, dict[str, Any]] = {}
    for gate in [*model.gate_noise, *model.gate_times_ns]:
        if gate in _IGNORED or gate not in _NATIVE:
            continue
        own, size, angles = _NATIVE[gate]
        native[own] = {"name": own, "num_qubits": size, "num_params": angles}
        entry = gates.setdefault(own, {"name": own})
        if gate in model.gate_noise:
            entry["error"] = infidelity(model.gate_noise[gate], gate)
        if gate in model.gate_times_ns:
            entry["duration_ns"] = float(model.gate_times_ns[gate])
    if not gates:
        raise UnsupportedError(
            "the model has no gate with noise or a time", "gate_noise, gate_times"
        )
    result = {
        "kind": "snapshot", "name": name, "num_qubits": model.num_qubits,
        "all_to_all": model.coupling is None, "native_gates": list(native.values()),
        "qubits": [qubits] * model.num_qubits, "gates": list(gates.values()),
        "source_format": "simenv",
    }  # fmt: skip
    if model.coupling is not None:
        result["coupling"] = [list(pair) for pair in model.coupling]
    return result


def _positive(value: float, what: str) -> float:
    if not 0 < value < math.inf:
        raise UnsupportedError(f"{what} is {value}", "a positive number of nanoseconds")
    return value
