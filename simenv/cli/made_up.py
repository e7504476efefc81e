"""A machine that nobody has, for `simenv qpm check hardware` where no other is named."""

from __future__ import annotations

from typing import Any


def machine() -> Any:
    """A Qiskit BackendV2: seven qubits in a line, with errors."""
    from qiskit.providers.fake_provider import GenericBackendV2

    line = [[a, b] for a in range(7) for b in (a - 1, a + 1) if 0 <= b < 7]
    return GenericBackendV2(7, coupling_map=line, seed=7)
