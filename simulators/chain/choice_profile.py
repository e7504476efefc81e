"""Profile of a circuit for the choice of an engine, with a trial of its bonds if one is
decisive."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from simulators.catalog import DEFAULT_ENGINE, SMALL_QUBITS, card, trial_operations
from simulators.catalog.preference import (
    AUTO_BITS,
    contraction_operations,
    statevector_operations,
)
from simulators.chain.trial import TrialLimits, chain_trial
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit


def choice_profile(
    circuit: Circuit, outputs: tuple[str, ...] = (), labels: Iterable[str] = ()
) -> Profile:
    """Profile as `profiler.profile`, with a trial. A trial may take a second, so no thread that
    others wait for may call this."""
    result = profile(circuit, outputs, labels)
    dense = card(DEFAULT_ENGINE)
    if dense is None or result.num_qubits <= SMALL_QUBITS:
        return result
    width = dense.effective_profile(result, outputs).num_qubits
    operations = trial_operations(result, width)
    if not operations:
        return result
    enough = min(statevector_operations(result, width), contraction_operations(result)) / 4
    trial = chain_trial(circuit, TrialLimits(operations, 1 << AUTO_BITS, enough))
    return msgspec.structs.replace(result, trial=trial)
