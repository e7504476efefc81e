"""Modules and links of a device, and the origin of logical qubits: checks of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from noise_models import strict_json as checks
from noise_models.calibration import (
    LINK_GATE,
    CalibrationSnapshot,
    GateCalibration,
    Link,
    LogicalOrigin,
    PauliError,
)
from noise_models.strict_json import MAX_QUBITS, NS, Range, SnapshotError, short_repr

MAX_MODULES = 1_000
MAX_LINKS = 100_000
MAX_OPTIONS = 1_000  # characters
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LINK: dict[str, Range] = {
    "fidelity": (0.25, 1.0),  # 1/4: a completely mixed pair
    "rate_hz": (1e-3, 1e12),  # a mean wait of at most 17 minutes
    **dict.fromkeys(("herald_ns", "latency_ns"), NS),
    "attempts_max": (0, 10**12),
}
_LOGICAL: dict[str, Range] = {
    "distance": (1, 1_000),
    "shots": (1, 10**15),
    "physical_qubits": (1, 10**7),
    "round_ns": (1e-3, NS[1]),
    "deadline_ns": NS,
}


def check_paulis(field: str, paulis: Iterable[PauliError], num_qubits: int) -> None:
    """Raise SnapshotError at the first Pauli error of a channel on one or two qubits that is none,
    is there twice, or if their probabilities sum to more than 1."""
    seen: set[str] = set()
    total = 0.0
    for index, each in enumerate(paulis):
        place = f"{field}[{index}]"
        letters = set(each.pauli)
        if len(each.pauli) != num_qubits or not letters <= set("IXYZ") or letters == {"I"}:
            hint = f"{num_qubits} letters I, X, Y or Z, not all I: first letter, first qubit"
            raise SnapshotError(f"{place}.pauli", short_repr(each.pauli), hint=hint)
        checks.check_once(f"{place}.pauli", each.pauli, seen)
        checks.check_range(f"{place}.probability", each.probability, checks.UNIT)
        total += each.probability
    if total > 1.0 + 1e-9:
        hint = "the rest of the probability is that of no error"
        raise SnapshotError(field, f"probabilities sum to {total:.6g}", hint=f"at most 1: {hint}")


def check_modules(snapshot: CalibrationSnapshot) -> None:
    """Raise SnapshotError at the first module or link that does not fit the device."""
    checks.check_entries("modules", snapshot.modules, MAX_MODULES)
    checks.check_entries("links", snapshot.links, MAX_LINKS)
    home: dict[int, int] = {}
    names: set[str] = set()
    for index, module in enumerate(snapshot.modules):
        field = f"modules[{index}]"
        checks.check_text(f"{field}.name", module.name)
        if not module.name or not module.qubits:
            missing = "qubits" if module.name else "name"
            raise SnapshotError(f"{field}.{missing}", "empty", hint=f"give the module {missing}")
        checks.check_once(f"{field}.name", module.name, names)
        checks.check_qubits(f"{field}.qubits", module.qubits, snapshot.num_qubits)
        for qubit in module.qubits:
            if qubit in home:
                text = f"qubit {qubit} is in module {snapshot.modules[home[qubit]].name!r} too"
                raise SnapshotError(f"{field}.qubits", text, hint="a qubit is in one module")
            home[qubit] = index
        outside = sorted(set(module.communication).difference(module.qubits))
        if outside:
            text = f"qubit {outside[0]} is none of module {module.name!r}"
            raise SnapshotError(f"{field}.communication", text, hint="name qubits of the module")
        checks.check_qubits(f"{field}.communication", module.communication, snapshot.num_qubits)
        _check_digest(f"{field}.snapshot", module.snapshot, optional=True)
    if home and len(home) < snapshot.num_qubits:
        lost = next(qubit for qubit in range(snapshot.num_qubits) if qubit not in home)
        hint = "list each qubit in one module, or give no modules"
        raise SnapshotError("modules", f"qubit {lost} is in no module", hint=hint)
    made = {gate.qubits: gate for gate in snapshot.gates if gate.name == LINK_GATE}
    for index, link in enumerate(snapshot.links):
        _check_link(f"links[{index}]", link, snapshot, home)
        _check_link_gate(f"links[{index}]", link, made.get(link.pair))
    if snapshot.links:
        _check_gates(snapshot)
    _check_couplings(snapshot, home)


def _check_link(
    field: str, link: Link, snapshot: CalibrationSnapshot, home: dict[int, int]
) -> None:
    checks.check_qubits(f"{field}.pair", link.pair, snapshot.num_qubits)
    if not home:
        hint = "a link joins two of `modules`"
        raise SnapshotError(f"{field}.pair", "a device without modules", hint=hint)
    first, second = (snapshot.modules[home[qubit]] for qubit in link.pair)
    if first is second:
        text = f"{list(link.pair)} are both in module {first.name!r}"
        raise SnapshotError(f"{field}.pair", text, hint="a link joins two modules")
    for qubit, module in zip(link.pair, (first, second), strict=True):
        if qubit not in module.communication:
            text = f"qubit {qubit} is no communication qubit of module {module.name!r}"
            known = ", ".join(map(str, module.communication)) or "none"
            raise SnapshotError(f"{field}.pair", text, hint=f"communication qubits: {known}")
    if (link.fidelity is None) == (not link.paulis):
        text = "neither fidelity nor paulis" if link.fidelity is None else "fidelity and paulis"
        raise SnapshotError(f"{field}.fidelity", text, hint="give one of fidelity and paulis")
    checks.check_ranges(f"{field}.", link, _LINK)
    check_paulis(f"{field}.paulis", link.paulis, 2)
    if link.attempts_max and not link.herald_ns:
        hint = "give herald_ns, the time of one attempt"
        raise SnapshotError(f"{field}.attempts_max", "attempts that take no time", hint=hint)
    if not snapshot.all_to_all and not {link.pair, link.pair[::-1]} & set(snapshot.coupling):
        text = f"{list(link.pair)} are not coupled"
        raise SnapshotError(f"{field}.pair", text, hint="list the pair in `coupling` too")


def _check_link_gate(field: str, link: Link, gate: GateCalibration | None) -> None:
    """Check that the gate that makes a link's pair has the pair's error."""
    own, place = link.infidelity, f"{LINK_GATE} on {list(link.pair)}"
    if gate is None or gate.error is None:
        text = f"{'no entry' if gate is None else 'no error'} of {place}, which makes the pair"
        hint = (
            f"give `gates` an entry of {LINK_GATE} with these qubits in this order, and its error"
        )
        raise SnapshotError(f"{field}.pair", text, hint=hint)
    if gate.error >= 1.0:
        return  # the link does not work
    if link.paulis != gate.paulis if link.paulis else abs(gate.error - own) > 1e-9:
        stated = "paulis" if link.paulis else "fidelity"
        text = f"not that of {place}, whose error is {gate.error:.6g}"
        hint = "give both the same paulis, or the gate the error 1 - fidelity"
        raise SnapshotError(f"{field}.{stated}", text, hint=hint)


def _check_gates(snapshot: CalibrationSnapshot) -> None:
    """Check that gates on two qubits have entries for pairs alone. One that acts on every
    coupled pair would act across a link without using its pair."""
    wide = {gate.name for gate in snapshot.all_gates if gate.num_qubits == 2}
    listed: dict[str, bool] = dict.fromkeys(wide, False)
    linked = snapshot.linked
    for index, gate in enumerate(snapshot.gates):
        if gate.name not in wide:
            continue
        listed[gate.name] = bool(gate.qubits)
        if not gate.qubits or (gate.name != LINK_GATE and frozenset(gate.qubits) in linked):
            text = f"{gate.name} acts on a link"
            hint = f"list the pairs of {gate.name} inside modules, each with an entry of its own"
            raise SnapshotError(f"gates[{index}].qubits", text, hint=hint)
    lacking = sorted(name for name, each in listed.items() if not each)
    if lacking:
        text = f"no entries of {lacking[0]}, which acts on every coupled pair, links too"
        hint = f"list the pairs of {lacking[0]} inside modules, with error 0 if it has none"
        raise SnapshotError("gates", text, hint=hint)


def _check_couplings(snapshot: CalibrationSnapshot, home: dict[int, int]) -> None:
    """Check that qubits of two modules are coupled by links alone."""
    if snapshot.all_to_all and len(snapshot.modules) > 1:
        hint = "list the pairs of each module, and those of the links"
        raise SnapshotError("all_to_all", f"{len(snapshot.modules)} modules", hint=hint)
    linked: set[frozenset[int]] = set()
    for index, link in enumerate(snapshot.links):
        checks.check_once(f"links[{index}].pair", frozenset(link.pair), linked, str(link.pair))
    for index, pair in enumerate(snapshot.coupling if home else ()):
        if home[pair[0]] != home[pair[1]] and frozenset(pair) not in linked:
            names = " and ".join(repr(snapshot.modules[home[qubit]].name) for qubit in pair)
            text = f"{list(pair)} couples modules {names}, which have no link there"
            raise SnapshotError(f"coupling[{index}]", text, hint="give the pair a link")


def check_logical(origin: LogicalOrigin) -> None:
    """Raise SnapshotError at the first value of a logical device's origin that is out of range."""
    for name in ("code", "decoder", "chip"):
        checks.check_text(f"logical.{name}", getattr(origin, name))
        if not getattr(origin, name):
            raise SnapshotError(f"logical.{name}", "empty", hint="give its name")
    checks.check_text("logical.options", origin.options, MAX_OPTIONS)
    _check_digest("logical.chip_digest", origin.chip_digest)
    checks.check_ranges("logical.", origin, _LOGICAL)
    for value in origin.suppression or ():
        checks.check_range("logical.suppression", value, (math.ulp(0.0), 1e9))
    known: set[int] = set()  # of qubits: no patch can add more than MAX_QUBITS of them
    for index, patch in enumerate(origin.patches):
        place = f"logical.patches[{index}]"
        if len(patch) != origin.physical_qubits:
            hint = f"physical_qubits is {origin.physical_qubits}"
            raise SnapshotError(place, f"{len(patch)} qubits", hint=hint)
        for qubit in patch:
            checks.check_range(place, qubit, (0, MAX_QUBITS - 1))
            checks.check_once(place, qubit, known, str(qubit))


def _check_digest(field: str, digest: str, *, optional: bool = False) -> None:
    if not (_DIGEST.fullmatch(digest) or (optional and not digest)):
        hint = "SHA-256 in 64 digits 0 to 9 and a to f"
        raise SnapshotError(field, short_repr(digest), hint=hint)
