"""Emulators of other projects, each in the Python environment that has its packages.

`PYTHON bench/peers/emulators.py NAME` emulates one machine for a benchmark. It imports nothing of
simenv, so that PYTHON may be of another environment. It reads JSON lines: first a machine, {"name",
"calibration": text of its file, "from_library": true without one, "num_qubits", "dt_ns", "qubits",
"gates"} with the values of a calibration snapshot, "flips" of a qubit being p01 and p10; then a
circuit in each line, a list of operations [gate, qubits, angles, clbit] in native gates on the
machine's qubits; clbit is -1 but of measurements, which come last. It answers with a JSON line: to
the machine {"version"}, to a circuit {"probabilities": {outcome: probability}}, exact ones; or
{"problem"}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

Operations = list[tuple[str, list[int], list[float], int]]
Emulator = Callable[[Operations], dict[int, float]]
MOST_QUBITS = 11  # of a density matrix here


def aer(machine: Mapping[str, Any], *, scheduled: bool = False) -> Emulator:
    """Emulate by Aer's `NoiseModel.from_backend`. The backend is that of qiskit-ibm-runtime with
    the machine's name, where the set has no calibration of its own; else one with the values of the
    snapshot as a Target."""
    from qiskit_aer.noise import NoiseModel

    named = _fake_backend(machine["name"]) if machine["from_library"] else None
    backend = named or _backend(machine)
    model = NoiseModel.from_backend(backend)
    return lambda operations: _by_aer(_qiskit(operations), model, backend if scheduled else None)


def aer_scheduled(machine: Mapping[str, Any]) -> Emulator:
    """Emulate as `aer` does, with the relaxation of idle qubits: circuits are scheduled as late as
    possible, and idle times are delays."""
    return aer(machine, scheduled=True)


def iqm(machine: Mapping[str, Any]) -> Emulator:
    """Emulate by iqm-client's IQMFakeBackend with an error profile of the machine's values. Raises
    ValueError for a machine without its native gates."""
    from iqm.qiskit_iqm.fake_backends.iqm_fake_backend import IQMErrorProfile, IQMFakeBackend
    from iqm.station_control.interface.models import StaticQuantumArchitecture

    gates = {(each["name"], tuple(each["qubits"])): each for each in machine["gates"]}
    singles = {key[1][0]: each for key, each in gates.items() if key[0] == "r" and key[1]}
    pairs = {(min(key[1]), max(key[1])): each for key, each in gates.items()
             if key[0] == "cz" and key[1]}  # once: it adds the error to both orders  # fmt: skip
    if not singles or not pairs:
        raise ValueError("not a machine with prx on each qubit and cz on pairs")

    def label(qubit: int) -> str:
        return f"QB{qubit + 1}"

    values = {label(k): each for k, each in enumerate(machine["qubits"]) if k in singles}
    t1s, t2s = ({name: (each[key] or 1e6) * 1e3 for name, each in values.items()}
                for key in ("t1_us", "t2_us"))  # fmt: skip
    ones = {label(k): min(2.0 * (each["error"] or 0.0), 1.0) for k, each in singles.items()}
    twos = {(label(a), label(b)): min((each["error"] or 0.0) * 4.0 / 3.0, 1.0)
            for (a, b), each in pairs.items()}  # fmt: skip
    profile = IQMErrorProfile(
        t1s=t1s, t2s=t2s, name=machine["name"],
        single_qubit_gate_depolarizing_error_parameters={"prx": ones},
        two_qubit_gate_depolarizing_error_parameters={"cz": twos},
        single_qubit_gate_durations={"prx": _median_ns(singles)},
        two_qubit_gate_durations={"cz": _median_ns(pairs)},
        readout_errors={name: dict(zip("01", each["flips"], strict=True))
                        for name, each in values.items()},
    )  # fmt: skip
    architecture = StaticQuantumArchitecture(
        dut_label=machine["name"], qubits=[label(k) for k in sorted(singles)],
        computational_resonators=[], connectivity=[(label(a), label(b)) for a, b in pairs],
    )  # fmt: skip
    model = IQMFakeBackend(architecture, profile).noise_model
    place = {qubit: number for number, qubit in enumerate(sorted(singles))}

    def emulate(operations: Operations) -> dict[int, float]:
        moved = [(n, [place[q] for q in qubits], a, c) for n, qubits, a, c in operations]
        return _by_aer(_qiskit(moved), model)

    return emulate


def braket(machine: Mapping[str, Any]) -> Emulator:
    """Emulate by Amazon Braket's LocalEmulator, from the machine's device properties. Raises
    ValueError for a calibration of another vendor."""
    from braket.circuits import Circuit
    from braket.devices import LocalSimulator
    from braket.emulation.local_emulator import LocalEmulator

    emulator = LocalEmulator.from_json(machine["calibration"])
    simulator = LocalSimulator("braket_dm")

    def emulate(operations: Operations) -> dict[int, float]:
        inner, measured = Circuit(), {}
        for name, qubits, angles, clbit in operations:
            if name == "measure":
                measured[qubits[0]] = clbit
            elif name != "barrier":
                getattr(inner, BRAKET_NAMES.get(name, name))(*qubits, *angles)
        circuit = Circuit().add_verbatim_box(inner)
        for qubit in measured:
            circuit.measure(qubit)
        noisy = emulator.transform(circuit, apply_noise_model=True)
        kept = Circuit(each for each in noisy.instructions if each.operator.name not in NOT_RUN)
        kept.probability(list(measured))
        values = simulator.run(kept, shots=0).result().values[0]
        return _outcomes(values, list(measured.values())[::-1])  # the first target is the top bit

    return emulate


BRAKET_NAMES = {"r": "prx", "rxx": "xx", "ryy": "yy", "rzz": "zz", "sx": "v", "sxdg": "vi"}
NOT_RUN = ("Measure", "StartVerbatimBox", "EndVerbatimBox")
# Emulator by name: how it is made, and the distributions that it needs.
EMULATORS: dict[str, tuple[Callable[[Mapping[str, Any]], Emulator], tuple[str, ...]]] = {
    "aer": (aer, ("qiskit-aer",)),
    "aer-scheduled": (aer_scheduled, ("qiskit-aer",)),
    "iqm": (iqm, ("iqm-client", "qiskit-aer")),
    "braket": (braket, ("amazon-braket-sdk",)),
}


def _median_ns(gates: Mapping[Any, Mapping[str, Any]]) -> float:
    return float(np.median([each["duration_ns"] or 0.0 for each in gates.values()]))


def _fake_backend(name: str) -> Any:
    """Return the backend of a machine in qiskit-ibm-runtime; None: it has none."""
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError:
        return None
    short = name.removeprefix("ibm_").removeprefix("ibmq_").title()
    for each in (f"Fake{short}V2", f"Fake{short}"):
        if hasattr(fake_provider, each):
            return getattr(fake_provider, each)()
    return None


def _backend(machine: Mapping[str, Any]) -> Any:
    """Return a backend whose Target has the snapshot's T1, T2, errors and durations; written apart
    from `simenv.transpiler.target_of`, which this process may lack."""
    from qiskit.circuit import Delay, Measure, Parameter
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.providers import BackendV2, Options
    from qiskit.transpiler import InstructionProperties, QubitProperties, Target

    standard = get_standard_gate_name_mapping()
    qubits = machine["qubits"]
    times = [[(each[key] or 1e6) * 1e-6 for key in ("t1_us", "t2_us")] for each in qubits]
    own = [QubitProperties(t1=t1, t2=min(t2, 2.0 * t1)) for t1, t2 in times]
    dt = (machine["dt_ns"] or 1.0) * 1e-9
    target = Target(num_qubits=machine["num_qubits"], dt=dt, qubit_properties=own)

    def properties(duration_ns: float | None, error: float | None) -> Any:
        return InstructionProperties(duration=(duration_ns or 0.0) * 1e-9, error=error)

    by_name: dict[str, dict[tuple[int, ...], Any]] = {}
    for each in machine["gates"]:
        if each["qubits"] and each["name"] in standard:
            entry = properties(each["duration_ns"], each["error"])
            by_name.setdefault(each["name"], {})[tuple(each["qubits"])] = entry
    for name, places in by_name.items():
        target.add_instruction(standard[name], places)
    readout = {(k,): properties(each["readout_ns"], sum(each["flips"]) / 2.0)
               for k, each in enumerate(qubits)}  # fmt: skip
    target.add_instruction(Measure(), readout)
    target.add_instruction(Delay(Parameter("t")), dict.fromkeys(readout))

    class Backend(BackendV2):  # type: ignore[misc]
        target = None
        max_circuits = None

        def __init__(self) -> None:
            super().__init__(name=machine["name"])
            self.target = target

        @classmethod
        def _default_options(cls) -> Options:
            return Options()

        def run(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("only its Target is used")

    return Backend()


def _qiskit(operations: Operations) -> Any:
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import get_standard_gate_name_mapping

    standard = get_standard_gate_name_mapping()
    size = 1 + max(max(qubits) for _, qubits, _, _ in operations)
    bits = 1 + max(clbit for *_, clbit in operations)
    circuit = QuantumCircuit(size, bits)
    for name, qubits, angles, clbit in operations:
        if name == "measure":
            circuit.measure(qubits[0], clbit)
        elif name == "barrier":
            circuit.barrier(qubits)
        elif name == "delay":
            circuit.delay(angles[0], qubits, unit="ns")
        else:
            circuit.append(type(standard[name])(*angles), qubits)
    return circuit


def _by_aer(circuit: Any, model: Any, backend: Any = None) -> dict[int, float]:
    """Return probabilities by Aer's density matrix, with the model's readout errors. `backend`: of
    the durations by which the circuit is scheduled; None: it is not."""
    from qiskit.transpiler import PassManager
    from qiskit.transpiler.passes import ALAPScheduleAnalysis, PadDelay, TimeUnitConversion
    from qiskit_aer import AerSimulator

    if backend is not None:
        target = backend.target
        steps = [TimeUnitConversion(target=target), ALAPScheduleAnalysis(target=target)]
        circuit = PassManager([*steps, PadDelay(target=target)]).run(circuit)
    measured = {
        circuit.find_bit(each.clbits[0]).index: circuit.find_bit(each.qubits[0]).index
        for each in circuit.data
        if each.operation.name == "measure"
    }
    clbits = sorted(measured)
    circuit.remove_final_measurements()
    circuit.save_probabilities([measured[k] for k in clbits])
    simulator = AerSimulator(method="density_matrix", noise_model=model, fusion_enable=True)
    values = np.asarray(simulator.run(circuit, shots=1).result().data(0)["probabilities"])
    values = values.reshape((2,) * len(clbits))  # the first clbit is the last axis
    for axis, clbit in enumerate(reversed(clbits)):
        confusion = _readout_errors(model).get(measured[clbit])
        if confusion is not None:
            values = np.moveaxis(np.tensordot(confusion.T, values, (1, axis)), 0, axis)
    return _outcomes(values.reshape(-1), clbits)


def _readout_errors(model: Any) -> dict[int, Any]:
    """Return the matrix [prepared, read] of each qubit with a readout error."""
    errors = [each for each in model.to_dict()["errors"] if each["type"] == "roerror"]
    return {qubits[0]: np.array(each["probabilities"]) for each in errors
            for qubits in each["gate_qubits"]}  # fmt: skip


def _outcomes(values: Iterable[float], clbits: list[int]) -> dict[int, float]:
    """Return the probability by outcome; bit k of an index is `clbits[k]`."""
    return {
        sum((index >> k & 1) << clbit for k, clbit in enumerate(clbits)): float(value)
        for index, value in enumerate(values)
        if value > 0.0
    }


def main(name: str) -> None:
    """Answer the lines of standard input."""
    emulator = None
    for line in sys.stdin:
        try:
            if emulator is None:
                create, packages = EMULATORS[name]
                emulator = create(json.loads(line))
                answer: Any = {"version": ", ".join(f"{each} {version(each)}" for each in packages)}
            else:
                operations = json.loads(line)
                used = {qubit for _, qubits, _, _ in operations for qubit in qubits}
                if len(used) > MOST_QUBITS:
                    raise ValueError(f"{len(used)} qubits, more than {MOST_QUBITS}")
                answer = {"probabilities": emulator(operations)}
        except Exception as error:  # noqa: BLE001 of any package
            answer = {"problem": f"{type(error).__name__}: {error}"[:400]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
