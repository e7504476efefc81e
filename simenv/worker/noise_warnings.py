"""Warnings about requested noise that does not act on a circuit, or was fitted to others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from simenv.model import NO_GATES, Program, TaskOptions

if TYPE_CHECKING:
    from noise_models.calibration import FitScope
    from noise_models.custom import CustomModel

_SHOWN = 12


def unused_channels(
    document: CustomModel, program: Program, terms: TaskOptions, *, acts: bool
) -> tuple[str, ...]:
    """Return warnings about the channels of a custom noise model that do not act on a circuit.
    `acts`: whether any of its channels does."""
    results = []
    has = {entry.gate for entry in document.channels}
    if not acts:
        gates = sorted(set(program.names) - NO_GATES)
        channels = dict.fromkeys(
            _gate_text(entry.gate, entry.qubits) for entry in document.channels
        )
        results.append(
            f"the noise model does not act on this circuit, which ran without noise: channels of"
            f" {_listed(channels)}; the circuit has {_listed(gates)}"
        )
    lost = [name for name in terms.replaced_gates if name in has]
    if lost:
        results.append(
            f"channels of {_listed(lost)} do not act: compilation for device {terms.device}"
            f" replaced {'these gates' if len(lost) > 1 else 'this gate'}; give channels of native"
            " gates, or compile='never'"
        )
    return tuple(results)


def outside_fit(scope: FitScope, program: Program, name: str) -> tuple[str, ...]:
    """Return a warning about a circuit that differs from those which the device was fitted to; ()
    if it does not. `name`: of the task."""
    arities = np.frombuffer(program.arities, np.uint16).reshape(-1, 3)
    ops = np.frombuffer(program.ops, np.uint16)
    sizes = arities[ops, 0].astype(np.int64)
    gates = np.array([each not in NO_GATES for each in program.names], bool)[ops]
    wires = np.frombuffer(program.qubits, np.uint16)
    used = sorted(set(wires[np.repeat(gates, sizes)].tolist()))
    pairs = int((gates & (sizes == 2)).sum())
    family = scope.family(name)
    others = [str(qubit) for qubit in used if qubit not in scope.qubits]
    has = []
    if family and any(scope.families) and family not in scope.families:
        has.append(f"family {family}")
    if len(used) > scope.widest:
        has.append(f"{len(used)} qubits")
    if pairs > scope.two_qubit_gates:
        has.append(f"{pairs} two-qubit gates")
    if others and not scope.placed:
        has.append(f"qubits {_listed(others)}")
    if not has:
        return ()
    families = ", ".join(each for each in scope.families if each)
    seen = [f"of {families}"] if families else []
    seen += [f"of {scope.first} to {scope.last}"] if scope.first else []
    seen.append(f"with at most {scope.widest} qubits and {scope.two_qubit_gates} two-qubit gates")
    if not scope.placed:
        seen.append(f"on qubits {_listed(map(str, scope.qubits))}")
    return (
        f"the noise was fitted to {scope.bodies} circuits {', '.join(seen)}; this circuit has"
        f" {', '.join(has)}",
    )


def _gate_text(gate: str, qubits: tuple[int, ...]) -> str:
    return f"{gate} on {', '.join(map(str, qubits))}" if qubits else gate


def _listed(names: Iterable[str]) -> str:
    items = list(names)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more if items else "no gates"
