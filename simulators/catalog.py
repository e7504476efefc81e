"""What each engine can do and what it costs, readable without importing any engine.

Invariant: pure and light (no numpy, no numba), so that the service decides with it. Estimates serve
forecasts and placement; a limit that refuses a task counts qubits and bytes, never seconds.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from simulators.circuit.profile import Profile

_BASE_BYTES = 64 * 2**20  # scratch arrays, results and the allocator's slack
_PROBABILITY_BYTES = 40  # of one outcome: table, index, value, record, packed
_LIVE_BRANCHES = 8  # states a dynamic circuit is expected to hold at once
_CALL_S = 10e-6  # entering an engine and packing its result
_SHOT_S = 5e-9
_AMPLITUDE_S = 1.5e-9  # one gate on one amplitude, one thread
_BRANCH_OP_S = 30e-6  # a measurement, reset or `if` of a dynamic circuit, small state


class EngineCard(msgspec.Struct, frozen=True):
    """One engine as routing sees it."""

    name: str
    module: str  # where its class is
    outputs: tuple[str, ...]
    dynamic: bool  # mid-circuit measurement, reset, if
    noise: bool
    reproducible: bool  # the same bits on every machine and version
    precisions: tuple[str, ...]
    max_qubits: int  # whatever the memory
    needs: tuple[str, ...]  # modules to be installed
    install: str  # the line to type where they are missing
    automatic: bool  # may be chosen without being named
    summary: str

    @property
    def missing(self) -> str:
        """ "" if the engine can be used here, else what to type."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return self.install if absent else ""

    def memory_bytes(
        self, profile: Profile, precision: str = "double", outputs: tuple[str, ...] = ("counts",)
    ) -> int:
        """Peak memory of one run: the states it holds, its largest output, and a base amount."""
        state = state_bytes(profile.num_qubits, precision)
        need = _BASE_BYTES + state * (_LIVE_BRANCHES if profile.mid_circuit else 1)
        if "statevector" in outputs:
            need += 2 * state  # as bytes, and packed
        if "probabilities" in outputs:
            need += _PROBABILITY_BYTES << profile.num_qubits
        return need

    def least_memory_bytes(self, profile: Profile, precision: str = "double") -> int:
        """Below this it cannot run: a dynamic circuit needs two states, its shots in groups."""
        state = state_bytes(profile.num_qubits, precision)
        return _BASE_BYTES + state * (2 if profile.mid_circuit else 1)

    def seconds(self, profile: Profile, shots: int, slots: int = 1) -> float:
        """Expected time of one binding on `slots` threads."""
        gates = profile.gates_1q + profile.gates_2q + profile.gates_many
        amplitudes = 2.0**profile.num_qubits
        threads = slots if profile.num_qubits > SMALL_QUBITS else 1
        work = _CALL_S + (gates + 2) * amplitudes * _AMPLITUDE_S / threads + shots * _SHOT_S
        if profile.mid_circuit:
            steps = profile.measurements + profile.resets + profile.conditions
            work *= _LIVE_BRANCHES / 2
            work += steps * (_BRANCH_OP_S * _LIVE_BRANCHES + shots * 20 * _SHOT_S)
        return work

    def max_qubits_in(self, memory_bytes: int, precision: str = "double") -> int:
        """The largest width whose state fits into so much memory."""
        width = 0
        while width < self.max_qubits and (
            _BASE_BYTES + state_bytes(width + 1, precision) <= memory_bytes
        ):
            width += 1
        return width


SMALL_QUBITS = 12  # up to here the statevector engine has a path without plan and threads


def state_bytes(num_qubits: int, precision: str = "double") -> int:
    """Bytes of one statevector."""
    return (16 if precision == "double" else 8) << num_qubits


_ALL_OUTPUTS = ("counts", "probabilities", "statevector", "expectation")

CARDS: tuple[EngineCard, ...] = (
    EngineCard(
        name="statevector",
        module="simulators.statevector.engine:StatevectorEngine",
        outputs=_ALL_OUTPUTS,
        dynamic=True,
        noise=False,
        reproducible=True,
        precisions=("double", "single"),
        max_qubits=40,
        needs=("numba",),
        install="pip install simenv",
        automatic=True,
        summary="all amplitudes, exact; dynamic circuits by branching and merging",
    ),
    EngineCard(
        name="fault",
        module="simulators.fault.engine:FaultEngine",
        outputs=_ALL_OUTPUTS,
        dynamic=True,
        noise=False,
        reproducible=True,
        precisions=("double", "single"),
        max_qubits=40,
        needs=("numba",),
        install="pip install simenv",
        automatic=False,
        summary="misbehaves on request, for drills; else as statevector",
    ),
)


def card(name: str) -> EngineCard | None:
    """The card of that name; None if the catalog has none."""
    return next((entry for entry in CARDS if entry.name == name), None)
