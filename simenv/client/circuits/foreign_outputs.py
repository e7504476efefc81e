"""Options in place of instructions by which programs of other simulators ask for outputs.

Invariant: outputs and noise are options of a submission, never instructions of a circuit; an
instruction that asks for them is refused with the option that replaces it.
"""

from __future__ import annotations

_STATE = 'shots=None, outputs=("statevector",)'
_PROBABILITIES = 'shots=None, outputs=("probabilities",)'
_OBSERVABLES = "shots=None, observables="
_NONE = "no option replaces it: ask for a statevector, probabilities or expectation values"
_AER = {  # names of qiskit_aer.library
    **dict.fromkeys(("save_state", "save_statevector", "save_statevector_dict"), _STATE),
    **dict.fromkeys(("save_probabilities", "save_probabilities_dict"), _PROBABILITIES),
    **dict.fromkeys(("save_expval", "save_expval_var", "save_expectation_value"), _OBSERVABLES),
    **dict.fromkeys(("save_amplitudes", "save_amplitudes_sq"), "shots=None, amplitudes="),
}
_AER_START = {
    "set_statevector": "circuit.initialize(state)",
    "set_stabilizer": "circuit.append(clifford, qubits)",
}
_AER_NOISE = ("kraus", "superop", "roerror", "quantum_channel", "pauli_error")
_BRAKET = {  # words after `#pragma braket result`
    "state_vector": _STATE,
    "amplitude": "shots=None, amplitudes=",
    "probability": _PROBABILITIES,
    "expectation": "observables=",
    "variance": "observables=, whose std_errors follow from the variance",
    "sample": 'outputs=("memory",)',
}


_MESSAGES = ("send", "recv", "qsend", "qrecv", "expose", "unexpose", "attach", "detach")


def hint_of(name: str) -> str:
    """Return the way out for an instruction of Aer, a message of a QPUProgram, or one that is named
    as a measurement but has another shape; "" if it is none."""
    if name in _MESSAGES:
        return "client.join(programs, device) makes one circuit of programs with messages"
    if name.startswith("measure_"):
        return "a measurement has one qubit and one clbit, and no parameters"
    if name.startswith("save_"):
        option = _AER.get(name)
        if option is None:
            return f"{_NONE}; remove it"
        return f"remove it, and submit the circuit with {option}: outputs are those at its end"
    if name.startswith("set_"):
        start = _AER_START.get(name)
        return f"write {start} in its place" if start else "begin with gates that prepare the state"
    if name in _AER_NOISE:
        return "noise is an option of the submission (device=, noise=); remove it"
    return ""


def pragma_hint(command: str) -> str:
    """Return the way out for the text of a pragma, such as `braket result state_vector`."""
    words = command.replace("(", " ").split()
    if words[:2] == ["braket", "result"]:
        option = _BRAKET.get(words[2] if len(words) > 2 else "")
        return (
            f"remove it, and submit the circuit with {option}" if option else f"{_NONE}; remove it"
        )
    if words[:2] == ["braket", "noise"]:
        return "noise is an option of the submission (device=, noise=); remove it"
    if words[:2] == ["braket", "verbatim"]:
        return 'remove it, and submit the circuit with compile="never"'
    if words[:2] == ["braket", "unitary"]:
        return "define the gate, or give the circuit as a QuantumCircuit with the matrix"
    return "remove it"
