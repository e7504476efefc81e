"""OpenQASM 2 to counts, in pure Python: for a few qubits, and stoppable between two gates."""

from __future__ import annotations

import cmath
import math
import random
import re
from collections import Counter

MOST_QUBITS = 12
_H = math.sqrt(0.5)
_STATEMENT = re.compile(r"^(\w+)\s*(?:\((.*)\))?\s+([^()]*)$")
_PLACE = re.compile(r"^(\w+)(?:\[(\d+)\])?$")
_NUMBER = re.compile(r"^[\d.\s+\-*/()epi]*$")


class Unreadable(Exception):
    """This is no circuit, or one with a gate nobody knows."""


class Stopped(Exception):
    """Somebody asked it to stop."""


def u3(theta, phi, lam):
    cos, sin = math.cos(theta / 2), math.sin(theta / 2)
    return [[cos, -cmath.exp(1j * lam) * sin],
            [cmath.exp(1j * phi) * sin, cmath.exp(1j * (phi + lam)) * cos]]  # fmt: skip


def _phase(angle):
    return [[1, 0], [0, cmath.exp(1j * angle)]]


def _rz(angle):
    return [[cmath.exp(-0.5j * angle), 0], [0, cmath.exp(0.5j * angle)]]


_SX = [[(1 + 1j) / 2, (1 - 1j) / 2], [(1 - 1j) / 2, (1 + 1j) / 2]]
_SXDG = [[(1 - 1j) / 2, (1 + 1j) / 2], [(1 + 1j) / 2, (1 - 1j) / 2]]
_FIXED = {
    "id": [[1, 0], [0, 1]], "x": [[0, 1], [1, 0]], "y": [[0, -1j], [1j, 0]],
    "z": [[1, 0], [0, -1]], "h": [[_H, _H], [_H, -_H]], "s": _phase(math.pi / 2),
    "sdg": _phase(-math.pi / 2), "t": _phase(math.pi / 4), "tdg": _phase(-math.pi / 4),
    "sx": _SX, "sxdg": _SXDG,
}  # fmt: skip
_TURNED = {
    "rx": lambda a: u3(a, -math.pi / 2, math.pi / 2), "ry": lambda a: u3(a, 0, 0), "rz": _rz,
    "p": _phase, "u1": _phase, "u2": lambda a, b: u3(math.pi / 2, a, b), "u3": u3, "u": u3,
}  # fmt: skip


def gate(name, angles):
    """The matrix and how many of its qubits are controls."""
    if name in _FIXED:
        return _FIXED[name], 0
    if name in _TURNED:
        return _TURNED[name](*angles), 0
    if name.startswith("cc"):
        return gate(name[2:], angles)[0], 2
    if name == "cu" and len(angles) == 4:
        shift = cmath.exp(1j * angles[3])
        return [[shift * cell for cell in row] for row in u3(*angles[:3])], 1
    if name.startswith("c"):
        return gate(name[1:], angles)[0], 1
    raise Unreadable(f"no gate {name!r}")


class Circuit:
    """A text that was read: `operations` are (name, angles, qubits), measurements among them."""

    def __init__(self, text):
        self.qubits = 0
        self.registers = []
        self.operations = []
        self._at, self._clbits, self._defined = {}, {}, {}
        try:
            self._read(text)
        except (ValueError, KeyError, IndexError, TypeError, SyntaxError, ZeroDivisionError) as bad:
            raise Unreadable(f"not OpenQASM 2: {bad!r}") from bad
        if not 0 < self.qubits <= MOST_QUBITS:
            raise Unreadable(f"{self.qubits} qubits; 1 to {MOST_QUBITS} can be run")

    def _read(self, text):
        if "OPENQASM 2" not in text[:200]:
            raise Unreadable("no OpenQASM 2")
        text = re.sub(r"//[^\n]*", "", text)
        for name, angles, value, body in re.findall(
            r"gate\s+(\w+)\s*(?:\(([^)]*)\))?([^{]*)\{([^}]*)\}", text
        ):
            self._defined[name] = (_split(angles), _split(value), body.split(";"))
        text = re.sub(r"gate\s+\w+[^{]*\{[^}]*\}", "", text)
        for statement in text.split(";"):
            self._statement(statement.strip())

    def _statement(self, text):
        if not text or text.startswith(("OPENQASM", "include", "barrier")):
            return
        if text.startswith(("qreg", "creg")):
            name, size = re.match(r"[qc]reg\s+(\w+)\[(\d+)\]", text).groups()
            if text[0] == "q":
                self._at[name] = range(self.qubits, self.qubits + int(size))
                self.qubits += int(size)
            else:
                first = sum(count for _, count in self.registers)
                self._clbits[name] = range(first, first + int(size))
                self.registers.append((name, int(size)))
            return
        if text.startswith("measure"):
            what, where = text[7:].split("->")
            pairs = zip(_places(what, self._at), _places(where, self._clbits), strict=True)
            self.operations += [("measure", (), pair) for pair in pairs]
            return
        name, angles, value = _STATEMENT.match(text).groups()
        lists = [_places(each, self._at) for each in value.split(",")]
        for turn in range(max(map(len, lists))):
            qubits = [each[turn if len(each) > 1 else 0] for each in lists]
            self._gate(name, [_value(angle, {}) for angle in _split(angles)], qubits)

    def _gate(self, name, angles, qubits):
        if name in self._defined:
            names, places, body = self._defined[name]
            values, where = (
                dict(zip(names, angles, strict=True)),
                dict(zip(places, qubits, strict=True)),
            )
            for line in filter(None, map(str.strip, body)):
                inner, result, value = _STATEMENT.match(line).groups()
                self._gate(inner, [_value(angle, values) for angle in _split(result)],
                           [where[each] for each in _split(value)])  # fmt: skip
        elif name in ("swap", "cswap"):
            *controls, a, b = qubits
            for pair in ((a, b), (b, a), (a, b)):
                self._gate("c" * (len(controls) + 1) + "x", [], [*controls, *pair])
        elif name in ("rxx", "rzz"):
            around = "h" if name == "rxx" else "id"
            for each in qubits:
                self._gate(around, [], [each])
            self._gate("cx", [], qubits)
            self._gate("rz", angles, qubits[1:])
            self._gate("cx", [], qubits)
            for each in qubits:
                self._gate(around, [], [each])
        elif name == "reset":
            self.operations.append((name, (), tuple(qubits)))
        else:
            matrix, controls = gate(name, angles)
            if len(qubits) != controls + 1:
                raise Unreadable(f"{name} of {len(qubits)} qubits")
            self.operations.append((name, matrix, tuple(qubits)))

    def counted(self):
        """Gates of one and two qubits, measurements."""
        gates = [len(qubits) for name, _, qubits in self.operations
                 if name not in ("measure", "reset")]  # fmt: skip
        return (
            gates.count(1),
            sum(size > 1 for size in gates),
            sum(name == "measure" for name, _, _ in self.operations),
        )


def run(circuit, shots, stop, draws=random):
    """Counts and amplitudes before the measurements; Stopped where `stop` is set meanwhile."""
    state = [0j] * (1 << circuit.qubits)
    state[0] = 1 + 0j
    measured = []
    for name, matrix, qubits in circuit.operations:
        if stop.is_set():
            raise Stopped
        if name == "measure":
            measured.append(qubits)
        elif name == "reset":
            _reset(state, qubits[0])
        else:
            _apply(state, matrix, qubits)
    weights = [abs(each) ** 2 for each in state]
    bits = sum(size for _, size in circuit.registers)
    counts = Counter()
    for index, times in Counter(draws.choices(range(len(state)), weights, k=shots)).items():
        word = ["0"] * bits
        for qubit, clbit in measured:
            word[clbit] = str(index >> qubit & 1)
        counts[_key("".join(word), circuit.registers)] += times
    return dict(counts), state


def _apply(state, matrix, qubits):
    *controls, target = qubits
    mask, step = sum(1 << one for one in controls), 1 << target
    (a, b), (c, d) = matrix
    for low in range(len(state)):
        if not low & step and low & mask == mask:
            one, two = state[low], state[low | step]
            state[low], state[low | step] = a * one + b * two, c * one + d * two


def _reset(state, qubit):
    step = 1 << qubit
    for low in range(len(state)):
        if not low & step:
            state[low] = math.hypot(abs(state[low]), abs(state[low | step]))
            state[low | step] = 0j


def _key(word, registers):
    parts, first = [], 0
    for _, size in registers:
        parts.append(word[first : first + size][::-1])
        first += size
    return " ".join(reversed(parts))


def _split(text):
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _places(text, registers):
    name, index = _PLACE.match(text.strip()).groups()
    return list(registers[name]) if index is None else [registers[name][int(index)]]


def _value(text, names):
    for name, value in names.items():
        text = re.sub(rf"\b{name}\b", f"({value!r})", text)
    if not _NUMBER.match(text):
        raise Unreadable(f"no angle: {text!r}")
    total = re.sub(r"pi", repr(math.pi), text).replace(" ", "")
    return _sum(total)


def _sum(text):
    """Products and sums of numbers, with signs and brackets."""
    text = text.replace("--", "+").replace("+-", "-")
    if text.startswith("(") and text.endswith(")") and text.find(")") == len(text) - 1:
        return _sum(text[1:-1])
    for sign in "*/":
        if sign in text:
            left, right = text.rsplit(sign, 1)
            return _sum(left) * _sum(right) if sign == "*" else _sum(left) / _sum(right)
    return float(text.strip("()"))
