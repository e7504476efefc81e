"""Drawings for notebooks: the circuit of a task, and a histogram with matplotlib."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from simenv.client.circuits import to_qiskit
from simenv.errors import OptionError
from simenv.model import decode_program

if TYPE_CHECKING:
    from simenv.client.results.notebook import ResultLike
    from simenv.model import TaskSpec

MAX_DRAWN_QUBITS = 20  # a larger drawing is unreadable
MAX_DRAWN_OPERATIONS = 200
FOLD_COLUMNS = 120
MAX_BARS = 64


def circuit_of(spec: TaskSpec) -> Any:
    """Return the `QuantumCircuit` of a task, as it was sent, with the parameter values of a single
    binding; else with parameters p0, p1 ... Raises ProgramError."""
    import numpy as np

    circuit = to_qiskit(decode_program(spec.program))
    if spec.bindings and spec.count == 1:
        # Sorted by name, p10 would come before p2.
        values = np.frombuffer(spec.bindings, np.float64).tolist()
        named = {p.name: p for p in circuit.parameters}
        used = {named[f"p{k}"]: value for k, value in enumerate(values) if f"p{k}" in named}
        circuit = circuit.assign_parameters(used)
    return circuit


def circuit_html(spec: TaskSpec) -> str:
    """Return a collapsed text drawing of a circuit; "" for a circuit that is too large to be
    readable. Raises ProgramError."""
    circuit = circuit_of(spec)
    if circuit.num_qubits > MAX_DRAWN_QUBITS or circuit.size() > MAX_DRAWN_OPERATIONS:
        return ""
    text = str(circuit.draw("text", fold=FOLD_COLUMNS))
    style = "line-height:1.1;white-space:pre"
    return f'<details><summary>circuit</summary><pre style="{style}">{escape(text)}</pre></details>'


def histogram(result: ResultLike, axes: Any) -> Any:
    """Draw the counts, or the exact probabilities, of a result; see `Result.plot`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise OptionError(
            "a plot needs matplotlib, which is not installed", hint="pip install 'simenv[plots]'"
        ) from None
    entry = result.counts if result.has("counts") else result.probabilities
    best = sorted(sorted(entry, key=lambda key: -entry[key])[:MAX_BARS])
    if axes is None:
        _, axes = pyplot.subplots(figsize=(min(12.0, 2.0 + 0.35 * len(best)), 3.5))
    axes.bar(best, [entry[key] for key in best])
    axes.tick_params(axis="x", labelrotation=90 if len(best) > 4 else 0)
    axes.set_ylabel("counts" if result.has("counts") else "probability")
    left = len(entry) - len(best)
    axes.set_title(f"{result.task}{f', {left} rarer outcomes left out' if left else ''}")
    return axes
