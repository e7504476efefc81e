"""Circuits of checks: known results, long runs, and outages of a backend.

Circuits with known results are OpenQASM 2 text. `LongCircuit` finds one that keeps a plugin busy
for about a second, once per target. The speed of a plugin is not known beforehand: each try is at
most some tens of times longer than the previous one, which bounds the search. On a busy host a
short circuit may seem long: it is lengthened when that is noticed. `Commands` are an outage of a
plugin's backend, by commands that the user supplies.
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
from collections.abc import Callable
from typing import Any

from simenv.qpm_check.target import CheckFailed, CheckSkipped

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
BELL = HEAD + "qreg q[2];\ncreg c[2];\nh q[0];\ncx q[0],q[1];\nmeasure q -> c;\n"
UNREADABLE = HEAD + "qreg q[2];\ncreg c[2];\nnonsense q[0];\nmeasure q -> c;\n"
NO_QASM = "this is not qasm"
FIRST_BIT = HEAD + "qreg q[3];\ncreg c[3];\nx q[0];\nmeasure q -> c;\n"  # 001
FIRST_BIT_QPY = (  # the same in QPY 13, base64
    "UUlTS0lUDQIGAQAAAAAAAAABcHEAAWYACAAAAAMAAAADAAAAAAAAAAIAAAACAAAAAAAAAAQAAAAAYwAAAAAAAAAAe31x"
    "AQAAAAMAAQFxAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAACYwEAAAADAAEBYwAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAgAA"
    "AAAAAAAAAAUAAAAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAWEdhdGVxAAAAAAAHAAAAAAAAAAEAAAABAAAAAAAA"
    "AAAAAAAAAAAAAAAAAE1lYXN1cmVxAAAAAGMAAAAAAAcAAAAAAAAAAQAAAAEAAAAAAAAAAAAAAAAAAAAAAAAATWVhc3Vy"
    "ZXEAAAABYwAAAAEABwAAAAAAAAABAAAAAQAAAAAAAAAAAAAAAAAAAAAAAABNZWFzdXJlcQAAAAJjAAAAAgAAAP//////"
    "/////////wAAAAAAAAAA"
)
CROSSED = HEAD + "qreg q[3];\ncreg c[3];\nx q[0];\nmeasure q[0] -> c[2];\n"  # 100
REGISTERS = (  # '10 001': b is the last declared
    HEAD + "qreg q[5];\ncreg a[3];\ncreg b[2];\nx q[0];\nx q[4];\n"
    "measure q[0] -> a[0];\nmeasure q[1] -> a[1];\nmeasure q[2] -> a[2];\n"
    "measure q[3] -> b[0];\nmeasure q[4] -> b[1];\n"
)
AMPLITUDES = HEAD + "qreg q[3];\nx q[0];\nh q[2];\n"  # indices 1 and 5
_NONE = ("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg")
_GATES = (
    *(f"{name} q[0];" for name in _NONE),
    *(f"{name}(0.3) q[0];" for name in ("rx", "ry", "rz", "p", "u1")),
    "u2(0.1,0.2) q[0];", "u3(0.1,0.2,0.3) q[0];", "u(0.1,0.2,0.3) q[0];",
    *(f"{name} q[0],q[1];" for name in ("cx", "cy", "cz", "ch", "swap", "csx")),
    *(f"{name}(0.3) q[0],q[1];" for name in ("cp", "cu1", "crx", "cry", "crz", "rxx", "rzz")),
    "cu3(0.1,0.2,0.3) q[0],q[1];", "cu(0.1,0.2,0.3,0.4) q[0],q[1];",
    "ccx q[0],q[1],q[2];", "cswap q[0],q[1],q[2];", "reset q[0];",
)  # fmt: skip
EVERY_GATE = HEAD + "qreg q[3];\ncreg c[3];\n" + "\n".join(_GATES) + "\nmeasure q -> c;\n"
DEFINED = (  # gates that a host's compiler defines in the text
    HEAD + "gate cs a,b { p(pi/4) a; cx a,b; p(-pi/4) b; cx a,b; p(pi/4) b; }\n"
    "gate flip(t) a { rx(t) a; }\n"
    "qreg q[2];\ncreg c[2];\nflip(pi) q[0];\ncs q[0],q[1];\nmeasure q -> c;\n"  # 01
)
PULSER = "pulser-abstract"  # format of a pulse sequence, as pulser-core writes it


def _sequence() -> str:
    """Sequence of 500 ns that excites the first of three atoms, which are too far from one another
    to interact: 100, the first atom as the first character."""
    constant = {"kind": "constant", "duration": 500}
    pulse = {
        "op": "pulse", "channel": "laser", "protocol": "min-delay", "phase": 0.0,
        "post_phase_shift": 0.0, "amplitude": {**constant, "value": 2 * math.pi},
        "detuning": {**constant, "value": 0.0},
    }  # fmt: skip
    target = {"op": "target", "channel": "laser", "target": 0}
    atoms = [{"name": f"a{k}", "x": 100.0 * (k - 1), "y": 0.0} for k in range(3)]
    document = {
        "version": "1", "name": "checked", "register": atoms,
        "channels": {"laser": "rydberg_local"}, "variables": {}, "operations": [target, pulse],
        "measurement": None,
        "device": "MockDevice",
    }  # fmt: skip
    return json.dumps(document)


FIRST_ATOM = {"format": PULSER, "data": _sequence()}
NO_SEQUENCE = {"format": PULSER, "data": '{"version": "1", "register": []}'}


def number(value: int, bits: int) -> str:
    """Circuit that prepares `value` in `bits` bits and measures it: one outcome, different for each
    value."""
    flips = [f"x q[{place}];" for place in range(bits) if value >> place & 1]
    return "\n".join([f"{HEAD}qreg q[{bits}];", f"creg c[{bits}];", *flips, "measure q -> c;\n"])


def key(value: int, bits: int) -> str:
    """Outcome of `number`."""
    return format(value, f"0{bits}b")


def one_qubit_gates(qubits: int, layers: int) -> int:
    """Number of one-qubit gates of `layered`."""
    return 2 * layers * qubits


def layered(qubits: int, layers: int) -> str:
    """Circuit of `layers` layers on all qubits that no optimizer simplifies or splits: each qubit
    is entangled with its lower and upper neighbour in turn. The phases between h and cx keep the
    state from staying a product, which a matrix product state holds in next to no time."""
    lines = [f"qreg q[{qubits}];", f"creg c[{qubits}];"]
    pairs = [
        "".join(f"cx q[{a}],q[{a + 1}];" for a in range(first, qubits - 1, 2)) for first in (0, 1)
    ]
    lines += [f"h q;t q;{pairs[layer % 2]}" for layer in range(layers)]
    return HEAD + "\n".join([*lines, "measure q -> c;"]) + "\n"


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
        return one_qubit_gates(self._qubits, round(self._layers)) * self.shots

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
                    f"{MOST_SHOTS} shots took {ENOUGH * self._wanted_s:g} s here (the last "
                    f"{took_s:.2f} s): nothing can be caught while it runs; --long FILE names a "
                    "circuit that takes about a second"
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
            record = try_circuit(self._circuit(), self.shots)
            ended, began = record.get("completion_time", 0.0), record.get("exec_time", 0.0)
            took_s = min(took_s, float(ended) - float(began))
            if took_s < ENOUGH * self._wanted_s:
                break
        return took_s

    def _circuit(self) -> str:
        return layered(self._qubits, round(self._layers))


LIMIT_S = 120.0


class Commands:
    """A `target.Outage` of two commands. Each runs to its end, without a shell; CheckFailed if it
    fails."""

    def __init__(self, kill: str, start: str) -> None:
        self._kill, self._start = kill, start

    def begin(self) -> None:
        _run(self._kill)

    def end(self) -> None:
        _run(self._start)


def _run(command: str) -> None:
    try:
        done = subprocess.run(
            shlex.split(command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CheckFailed(f"{command}: {error}") from error
    if done.returncode != 0:
        raise CheckFailed(f"{command}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
