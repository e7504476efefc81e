"""Search for a circuit that keeps a plugin busy for about a second, once per target.

The speed of a plugin is not known beforehand. Each try is at most some tens of times longer than
the previous one, which bounds the search. On a busy host a short circuit may seem long: it is
lengthened when that is noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from simenv.qpm_check.contract.outcomes import CheckSkipped
from simenv.qpm_check.harness import circuits

TryCircuit = Callable[[str, int], dict[str, Any]]  # OpenQASM 2 and shots to the record of the run

WANTED_S = 1.0
ENOUGH = 0.4  # share of the wanted time that is long enough
AGAIN = 3  # runs that must all be long enough
FIRST_LAYERS = 20.0
MOST_LAYERS = 200  # the text of more layers takes as long to parse as to run
MOST_GROWTH = 20.0
MOST_STEPS = 3  # largest growth at a time, in steps of two qubits
LEAST_QUBITS, MOST_QUBITS = 2, 22
MORE_SHOTS, MOST_SHOTS = 16, 32_768


class LongCircuit:
    """A long circuit for one target. `circuit`: the author's, if given; `max_qubits`: largest width
    that is tried."""

    def __init__(
        self, circuit: str = "", max_qubits: int = MOST_QUBITS, wanted_s: float = WANTED_S
    ) -> None:
        self._given = circuit
        self.max_qubits = max_qubits
        self._wanted_s = wanted_s
        self._qubits, self._layers = LEAST_QUBITS, FIRST_LAYERS
        self.shots = 1
        self._fits = LEAST_QUBITS  # width of the widest circuit that has run
        self._found = False
        self._why = ""

    def text(self, try_circuit: TryCircuit) -> str:
        """OpenQASM 2 text of the circuit. Raises CheckSkipped if none was found."""
        if self._given:
            return self._given
        if self._why:
            raise CheckSkipped(self._why)
        if not self._found:
            self._find(try_circuit)
        return self._circuit()

    def gates(self, try_circuit: TryCircuit) -> int:
        """Number of one-qubit gates of `text` in all shots. Raises CheckSkipped if the author
        gave the circuit."""
        self.text(try_circuit)
        if self._given:
            raise CheckSkipped("the gates of the long circuit that was given are not known")
        return circuits.one_qubit_gates(self._qubits, round(self._layers)) * self.shots

    def lengthen(self) -> bool:
        """Lengthen a circuit that was too short. False if no longer one is possible."""
        if self._given or self._why or not self._found:
            return False
        return self._grow(2 * self._layers)

    def _find(self, try_circuit: TryCircuit) -> None:
        while True:
            try:
                took_s = self._took_s(try_circuit)
            except Exception:
                if not self._narrow():
                    raise
                continue  # the target is not that wide
            self._fits = self._qubits
            if took_s >= ENOUGH * self._wanted_s:
                self._found = True
                return
            growth = min(MOST_GROWTH, self._wanted_s / max(took_s, 1e-4))
            if not self._grow(self._layers * growth, growth):
                self._why = (
                    f"no circuit of up to {self.max_qubits} qubits, {MOST_LAYERS} layers and "
                    f"{MOST_SHOTS} shots took "
                    f"{ENOUGH * self._wanted_s:g} s here (the last {took_s:.2f} s): "
                    "nothing can be caught while it runs"
                )
                raise CheckSkipped(self._why)

    def _grow(self, layers: float, factor: float = 1.0) -> bool:
        """Choose the next circuit to try, about `factor` times as long. False if there is none."""
        if self._layers < MOST_LAYERS:
            self._layers = min(float(MOST_LAYERS), max(layers, self._layers + 1))
            return True
        room = (self.max_qubits - self._qubits) // 2
        if room > 0:  # a gate works on four times the amplitudes of two qubits less
            steps = max(1, min(room, MOST_STEPS, math.floor(math.log(max(1.0, factor), 4))))
            self._qubits += 2 * steps
            self._layers = MOST_LAYERS / 4
            return True
        if self.shots < MOST_SHOTS:  # for a machine, or a simulator that runs shot by shot
            self.shots = min(MOST_SHOTS, self.shots * MORE_SHOTS)
            return True
        return False

    def _narrow(self) -> bool:
        """Return to a narrower circuit after a refusal of the width. False if the width was not the
        reason."""
        if self._qubits == self._fits or self.shots > 1 or self._layers > MOST_LAYERS / 4:
            return False
        self.max_qubits = self._qubits - 2
        self._qubits, self._layers = self._fits, float(MOST_LAYERS)
        return self._grow(self._layers)

    def _took_s(self, try_circuit: TryCircuit) -> float:
        """Shortest time of AGAIN runs, s; a single run if the first was too short."""
        took_s = float("inf")
        for _ in range(AGAIN):
            took_s = min(took_s, _seconds(try_circuit(self._circuit(), self.shots)))
            if took_s < ENOUGH * self._wanted_s:
                break
        return took_s

    def _circuit(self) -> str:
        return circuits.layered(self._qubits, round(self._layers))


def _seconds(record: dict[str, Any]) -> float:
    ended, began = record.get("completion_time", 0.0), record.get("exec_time", 0.0)
    return float(ended) - float(began)
