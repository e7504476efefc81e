"""Warnings about requested noise that does not act on a circuit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from simenv.model import NO_GATES, Program, TaskOptions

if TYPE_CHECKING:
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


def _gate_text(gate: str, qubits: tuple[int, ...]) -> str:
    return f"{gate} on {', '.join(map(str, qubits))}" if qubits else gate


def _listed(names: Iterable[str]) -> str:
    items = list(names)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more if items else "no gates"
