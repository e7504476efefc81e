"""Several QPUs as one device: the union of their snapshots, joined by links.

A module is a QPU; its qubits follow those of the modules before it. A link makes Bell pairs of one
communication qubit of each of two modules, by the native gate `rxx` on their pair, whose error is
that of the pair (Monroe et al., arXiv 1208.0391, for the architecture). Each module keeps its own
native gates: every gate is listed with the qubits on which its module has it, so that no module
gets those of another one. What the data of a module says of all its qubits is written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import permutations
from typing import Annotated, Any

import msgspec

from noise_models import calibration
from noise_models.calibration import (
    LINK_GATE,
    CalibrationSnapshot,
    GateCalibration,
    Link,
    Module,
    NativeGate,
    PauliError,
    QubitCalibration,
)
from noise_models.linked_modules import check_paulis
from noise_models.snapshot import check
from noise_models.strict_json import MAX_QUBITS, SnapshotError

MAX_MODULES = 64
MAX_LINKS = 2_048
MAX_EXPANDED = 150_000  # entries of the gates, couplings and crosstalk of all modules, written out
_NEVER_US = 1e12  # decay of a third level that does not decay, in a machine of two technologies
_END = re.compile(r"([A-Za-z0-9_-]{1,64})\.(\d{1,5})", re.ASCII)
# Two ends with a hyphen between: names of modules may have hyphens too.
LINK_ENDS = re.compile(
    r"([A-Za-z0-9_-]{1,64}\.[^.-]{1,9})-([A-Za-z0-9_-]{1,64}\.[^.-]{1,9})", re.ASCII
)
_MODULE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
Place = tuple[int, ...]


class LinkDesign(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A link between two qubits, such as `a.0` and `b.0`, each by its number in its module. The
    other fields are those of `calibration.Link`."""

    ends: tuple[str, str]
    fidelity: float | None = None
    paulis: tuple[PauliError, ...] = ()
    rate_hz: float | None = None
    herald_ns: float = 0.0
    latency_ns: float = 0.0
    attempts_max: int = 0


class MachineDesign(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="machine",
):
    """QPUs by name, each a device, and the links between them."""

    name: str
    modules: Annotated[dict[str, str], msgspec.Meta(max_length=MAX_MODULES)]
    links: Annotated[tuple[LinkDesign, ...], msgspec.Meta(max_length=MAX_LINKS)] = ()
    format: int = 1


def linked(
    name: str, modules: Mapping[str, CalibrationSnapshot], links: Iterable[LinkDesign]
) -> CalibrationSnapshot:
    """Return the snapshot of modules, by name and in their order, with links. A scope of a fit, and
    dates of single values, are left out. Raises SnapshotError."""
    links = tuple(links)
    _check_counts(modules, links)
    firsts, first = {}, 0
    for key, module in modules.items():
        firsts[key] = first
        first += module.num_qubits
    if first > MAX_QUBITS:
        text = f"{first} qubits of {len(modules)} modules"
        raise SnapshotError("modules", text, hint=f"at most {MAX_QUBITS}")
    entries = sum(map(_entries, modules.values()))
    if entries > MAX_EXPANDED:
        text = f"{entries} gates on qubits, couplings and crosstalk of {len(modules)} modules"
        raise SnapshotError("modules", text, hint=f"at most {MAX_EXPANDED}: fewer or smaller ones")
    made = [_link(index, link, modules, firsts) for index, link in enumerate(links)]
    seen: set[frozenset[int]] = set()
    for each, design in zip(made, links, strict=True):
        if frozenset(each.pair) in seen:
            text = f"{'-'.join(design.ends)} is listed twice"
            raise SnapshotError("links", text, hint="one link for each two qubits")
        seen.add(frozenset(each.pair))
    communication: dict[str, set[int]] = {key: set() for key in modules}
    for link in links:
        for end in link.ends:
            key, _, number = end.rpartition(".")
            communication[key].add(int(number))
    for key, module in modules.items():
        _check_module(key, module, communication[key])
    agreed = _agreed(modules)
    parts = [_Shifted(each, firsts[key]) for key, each in agreed.items()]
    result = CalibrationSnapshot(
        name=name,
        num_qubits=first,
        provider=_common(each.provider for each in modules.values()),
        technology=_technology(modules.values()),
        version="1",
        calibrated=max(each.calibrated for each in modules.values()),
        dt_ns=_common_number(each.dt_ns for each in modules.values()),
        max_shots=min((each.max_shots for each in modules.values() if each.max_shots), default=0),
        dynamic=True,
        feed_forward_ns=max(each.feed_forward_ns for each in modules.values()),
        native_gates=_native(modules.values()),
        fractional_gates=_distinct(agreed.values(), "fractional_gates"),
        coupling=(*(pair for part in parts for pair in part.coupling()), *_both(made)),
        qubits=_qubits(modules.values()),
        gates=(*(gate for part in parts for gate in part.gates()), *_link_gates(made)),
        zz=tuple(term for part in parts for term in part.zz()),
        zz_strength=1.0,
        correlated_readout=tuple(each for part in parts for each in part.of("correlated_readout")),
        source_format="simenv",
        coordinates=_coordinates(modules.values()),
        rep_delay_ns=max(each.reset_ns(range(each.num_qubits)) for each in modules.values()),
        overhead_ns=max(each.overhead_ns for each in modules.values()),
        unusable=tuple(qubit for part in parts for qubit in part.numbers("unusable")),
        unmeasured=tuple(qubit for part in parts for qubit in part.numbers("unmeasured")),
        angle_bounds=_angle_bounds(agreed),
        measurements=tuple(each for part in parts for each in part.measurements()),
        measurement_crosstalk=tuple(each for part in parts for each in part.crosstalk()),
        unread=tuple(sorted({field for each in modules.values() for field in each.unread})),
        layers=tuple(layer for part in parts for layer in part.layers()),
        modules=tuple(
            Module(
                key,
                tuple(range(firsts[key], firsts[key] + each.num_qubits)),
                tuple(firsts[key] + qubit for qubit in sorted(communication[key])),
                each.digest.hex(),
            )
            for key, each in modules.items()
        ),
        links=tuple(made),
    )
    check(result)
    return result


def _check_counts(
    modules: Mapping[str, CalibrationSnapshot], links: tuple[LinkDesign, ...]
) -> None:
    if not 2 <= len(modules) <= MAX_MODULES:
        text = f"{len(modules)} modules"
        raise SnapshotError("modules", text, hint=f"2 to {MAX_MODULES}: name=device")
    if not 1 <= len(links) <= MAX_LINKS:
        hint = f"1 to {MAX_LINKS}, such as a.0-b.0 with a fidelity"
        raise SnapshotError("links", f"{len(links)} links", hint=hint)
    for key in modules:
        if not _MODULE.fullmatch(key):
            hint = "letters, digits, _ and -, at most 64"
            raise SnapshotError("modules", f"name {key[:80]!r}", hint=hint)


def _entries(module: CalibrationSnapshot) -> int:
    """Bound of the entries that a module has once what it says of all its qubits is written out."""
    wide, pairs = module.num_qubits, len(module.coupling)
    if module.all_to_all:
        pairs = wide * (wide - 1)
    places = {1: wide, 2: pairs}
    listed = {gate.name for gate in module.gates if gate.qubits}
    defaults = {gate.name for gate in module.gates if not gate.qubits}
    result = len(module.gates) + pairs + len(module.measurement_crosstalk)
    for native in module.all_gates:
        if native.name in defaults or native.name not in listed:
            result += places.get(native.num_qubits, 0)
    if any(not each.qubits for each in module.measurement_crosstalk):
        result += wide * (wide - 1)
    return result


def _link(
    index: int,
    link: LinkDesign,
    modules: Mapping[str, CalibrationSnapshot],
    firsts: Mapping[str, int],
) -> Link:
    """Check a link, and return it with the numbers of its qubits in the machine."""
    field = f"links[{index}]"
    places = [_end(field, end, modules) for end in link.ends]
    label = "-".join(link.ends)
    if places[0][0] == places[1][0]:
        text = f"{label} joins module {places[0][0]!r} with itself"
        raise SnapshotError(field, text, hint="the two ends of a link are in two modules")
    if (link.fidelity is None) == (not link.paulis):
        text = f"{label} needs one of fidelity and paulis"
        raise SnapshotError(field, text, hint="fidelity=0.97, for example")
    if link.fidelity is not None and not 0.25 <= link.fidelity <= 1.0:
        text = f"{label} has the fidelity {link.fidelity!r:.40}"
        raise SnapshotError(field, text, hint="0.25 (no entanglement left) to 1")
    if link.rate_hz is not None and not 0.0 < link.rate_hz < float("inf"):
        hint = "above 0; without a rate, pairs are there when they are needed"
        raise SnapshotError(field, f"{label} has the rate {link.rate_hz!r:.40} /s", hint=hint)
    if link.paulis:
        check_paulis(f"{field}.paulis of {label}", link.paulis, 2)
    pair = tuple(firsts[key] + number for key, number in places)
    return Link(
        pair=(pair[0], pair[1]),
        fidelity=link.fidelity,
        paulis=link.paulis,
        rate_hz=link.rate_hz,
        herald_ns=link.herald_ns,
        latency_ns=link.latency_ns,
        attempts_max=link.attempts_max,
    )


def _end(field: str, end: str, modules: Mapping[str, CalibrationSnapshot]) -> tuple[str, int]:
    found = _END.fullmatch(end)
    if found is None:
        hint = "MODULE.QUBIT, such as a.0"
        raise SnapshotError(field, f"end {end[:80]!r} is no qubit of a module", hint=hint)
    key, number = found[1], int(found[2])
    if key not in modules:
        hint = f"modules: {', '.join(list(modules)[:12])}"
        raise SnapshotError(field, f"end {end!r}: there is no module {key!r}", hint=hint)
    module = modules[key]
    if number >= module.num_qubits:
        hint = f"0 to {module.num_qubits - 1}"
        raise SnapshotError(field, f"end {end!r}: module {key!r} has no qubit {number}", hint=hint)
    if number in module.unusable:
        text = f"end {end!r}: qubit {number} of module {key!r} does not work"
        raise SnapshotError(field, text, hint="simenv devices show lists the qubits that do")
    return key, number


def _check_module(key: str, module: CalibrationSnapshot, communication: set[int]) -> None:
    """Raise SnapshotError for a module that lacks what operations over links need."""
    field = f"modules[{key}]"
    if module.modules:
        text = f"{module.name} consists of modules itself"
        raise SnapshotError(field, text, hint="join all modules in one machine")
    if not module.dynamic:
        text = f"{module.name} has no measurements and conditions inside a circuit"
        raise SnapshotError(field, text, hint="Bell pairs need them; choose a dynamic device")
    usable = set(range(module.num_qubits)).difference(module.unusable, communication)
    if communication and not usable:
        text = f"all usable qubits of {module.name} are communication qubits"
        raise SnapshotError(field, text, hint="leave at least one for data")
    if module.all_to_all:
        return
    pairs = module.coupled
    for qubit in sorted(communication):
        if not any(qubit in pair and usable.intersection(pair) for pair in pairs):
            text = f"communication qubit {qubit} of {module.name} has no gate with a data qubit"
            raise SnapshotError(field, text, hint="choose one that is coupled with others")


def _common(texts: Iterable[str]) -> str:
    found = dict.fromkeys(texts)
    return next(iter(found)) if len(found) == 1 else ""


def _common_number(numbers: Iterable[float]) -> float:
    found = set(numbers)
    return found.pop() if len(found) == 1 else 0.0


def _technology(modules: Iterable[CalibrationSnapshot]) -> calibration.Technology:
    found = {each.technology for each in modules}
    return found.pop() if len(found) == 1 else ""


def _native(modules: Iterable[CalibrationSnapshot]) -> tuple[NativeGate, ...]:
    link = NativeGate(LINK_GATE, 2, 1)
    found = _distinct(modules, "native_gates")
    return (*(gate for gate in found if gate.name != LINK_GATE), link)


def _distinct(modules: Iterable[CalibrationSnapshot], field: str) -> tuple[NativeGate, ...]:
    found: dict[str, NativeGate] = {}
    for gate in (gate for each in modules for gate in getattr(each, field)):
        if found.setdefault(gate.name, gate) != gate:
            text = f"gate {gate.name} has another number of qubits or parameters in two modules"
            raise SnapshotError(field, text, hint="modules whose gates agree")
    return tuple(found.values())


def _agreed(modules: Mapping[str, CalibrationSnapshot]) -> dict[str, CalibrationSnapshot]:
    """The modules without the fractional gates that are native, or have other limits, in another
    one: a device has one kind of gate under a name."""
    natives = {gate.name for each in modules.values() for gate in each.native_gates}
    kinds: dict[str, set[object]] = {}
    for each in modules.values():
        limits = {limit.gate: limit.bounds_rad for limit in each.angle_bounds}
        for gate in each.fractional_gates:
            kinds.setdefault(gate.name, set()).add((gate, limits.get(gate.name, ())))
    left_out = {name for name, each in kinds.items() if name in natives or len(each) > 1}
    return {key: _without(each, left_out) for key, each in modules.items()}


def _without(module: CalibrationSnapshot, names: Set[str]) -> CalibrationSnapshot:
    names = names & {gate.name for gate in module.fractional_gates}
    return msgspec.structs.replace(
        module,
        fractional_gates=tuple(g for g in module.fractional_gates if g.name not in names),
        gates=tuple(gate for gate in module.gates if gate.name not in names),
        angle_bounds=tuple(each for each in module.angle_bounds if each.gate not in names),
    )


def _qubits(modules: Iterable[CalibrationSnapshot]) -> tuple[QubitCalibration, ...]:
    """Qubits of all modules, with the decay of the third level that their technology gives where
    the machine has no common one."""
    modules = tuple(modules)
    is_mixed = not _technology(modules)
    result: list[QubitCalibration] = []
    for each in modules:
        own = each.qubits or (QubitCalibration(),) * each.num_qubits
        if is_mixed and each.leaks:
            own = tuple(
                msgspec.structs.replace(q, leaked_t1_us=each.leaked_t1_us(q) or _NEVER_US)
                for q in own
            )
        result += own
    return tuple(result) if any(each != QubitCalibration() for each in result) else ()


def _coordinates(modules: Iterable[CalibrationSnapshot]) -> tuple[tuple[float, float], ...]:
    """Places in a drawing: the modules side by side. () if a module has none."""
    result: list[tuple[float, float]] = []
    left = 0.0
    for each in modules:
        if not each.coordinates:
            return ()
        low = min(x for x, _ in each.coordinates)
        result += [(x - low + left, y) for x, y in each.coordinates]
        left = max(x for x, _ in result) + 3.0
    return tuple(result)


def _angle_bounds(
    modules: Mapping[str, CalibrationSnapshot],
) -> tuple[calibration.AngleBounds, ...]:
    """Limits of angles that hold for each module: those of a gate are the same in all modules that
    have it, and the gate of links has none."""
    having: dict[str, dict[tuple[tuple[float, float], ...], str]] = {}
    for key, each in modules.items():
        bounds = {limit.gate: limit.bounds_rad for limit in each.angle_bounds}
        for gate in each.all_gates:
            having.setdefault(gate.name, {})[bounds.get(gate.name, ())] = key
    result = []
    for name, found in having.items():
        if len(found) > 1 or (name == LINK_GATE and () not in found):
            text = f"the angles of {name} have other limits in module {list(found.values())[-1]!r}"
            hint = "a device limits the angles of a gate everywhere alike"
            raise SnapshotError("angle_bounds", text, hint=hint)
        (limits,) = found
        if limits:
            result.append(calibration.AngleBounds(name, limits))
    return tuple(result)


def _both(links: Iterable[Link]) -> list[tuple[int, int]]:
    return [pair for link in links for pair in (link.pair, link.pair[::-1])]


def _link_gates(links: Iterable[Link]) -> Iterator[GateCalibration]:
    """Yield the gates that make the links' pairs, in both orders of their qubits. The infidelity of
    a depolarizing gate is the same for each state, so it is that of the pair."""
    for link in links:
        error = None if link.paulis else link.infidelity
        turned = tuple(
            msgspec.structs.replace(each, pauli=each.pauli[::-1]) for each in link.paulis
        )
        for pair, paulis in ((link.pair, link.paulis), (link.pair[::-1], turned)):
            yield GateCalibration(LINK_GATE, pair, error=error, duration_ns=0.0, paulis=paulis)


class _Shifted:
    """The data of a module with the numbers of its qubits in the machine."""

    def __init__(self, module: CalibrationSnapshot, first: int) -> None:
        self._module, self._first = module, first

    def _moved(self, qubits: Place) -> Any:
        return tuple(self._first + qubit for qubit in qubits)

    def numbers(self, field: str) -> Place:
        """Return a field that is a list of qubits."""
        result: Place = self._moved(getattr(self._module, field))
        return result

    def of(self, field: str) -> Iterator[Any]:
        """Yield the entries of a field, each of which has `qubits`."""
        for each in getattr(self._module, field):
            yield msgspec.structs.replace(each, qubits=self._moved(each.qubits))

    def coupling(self) -> Iterator[tuple[int, int]]:
        """Yield the coupled pairs."""
        for pair in self._pairs():
            yield self._moved(pair)

    def _pairs(self) -> tuple[tuple[int, int], ...]:
        module = self._module
        if not module.all_to_all:
            return module.coupling
        return tuple(permutations(range(module.num_qubits), 2))

    def gates(self) -> Iterator[GateCalibration]:
        """Yield an entry for each place of each gate."""
        module = self._module
        defaults = {gate.name: gate for gate in module.gates if not gate.qubits}
        listed: dict[str, set[Place]] = {gate.name: set() for gate in module.all_gates}
        for gate in module.gates:
            if gate.qubits:
                listed.setdefault(gate.name, set()).add(gate.qubits)
                yield msgspec.structs.replace(gate, qubits=self._moved(gate.qubits))
        usable = [q for q in range(module.num_qubits) if q not in module.unusable]
        singles: list[Place] = [(qubit,) for qubit in usable]
        pairs: list[Place] = [
            pair for pair in self._pairs() if not set(pair).intersection(module.unusable)
        ]
        for native in module.all_gates:
            default = defaults.get(native.name)
            if default is None and listed[native.name]:
                continue  # acts on the listed qubits alone
            entry = default or GateCalibration(native.name)
            places: Sequence[Place] = {1: singles, 2: pairs}.get(native.num_qubits, ())
            for place in places:
                if place not in listed[native.name]:
                    yield msgspec.structs.replace(entry, qubits=self._moved(place))

    def zz(self) -> Iterator[calibration.ZZCoupling]:
        """Yield the ZZ rates that act."""
        for pair, rate_khz in self._module.acting_zz_khz.items():
            yield calibration.ZZCoupling(self._moved(pair), rate_khz)

    def measurements(self) -> Iterator[calibration.MeasurementCalibration]:
        """Yield the measurement instructions with names of their own."""
        for each in self._module.measurements:
            yield msgspec.structs.replace(each, qubit=self._first + each.qubit)

    def crosstalk(self) -> Iterator[calibration.MeasurementCrosstalk]:
        """Yield what measurements do to other qubits, an entry for each two of the module."""
        module = self._module
        listed = {each.qubits for each in module.measurement_crosstalk}
        for each in module.measurement_crosstalk:
            places: Iterable[Place] = (each.qubits,)
            if not each.qubits:
                others = permutations(range(module.num_qubits), 2)
                places = (pair for pair in others if pair not in listed)
            for place in places:
                yield msgspec.structs.replace(each, qubits=self._moved(place))

    def layers(self) -> Iterator[calibration.LayerCalibration]:
        """Yield the layers of gates with learned errors."""
        for layer in self.of("layers"):
            gates = (
                msgspec.structs.replace(each, qubits=self._moved(each.qubits))
                for each in layer.gates
            )
            generators = (
                msgspec.structs.replace(each, qubits=self._moved(each.qubits))
                for each in layer.generators
            )
            yield msgspec.structs.replace(layer, gates=tuple(gates), generators=tuple(generators))
