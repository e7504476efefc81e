"""Descriptions of devices of linked modules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import msgspec

from noise_models import library, snapshot
from noise_models.calibration import CalibrationSnapshot
from noise_models.linked import LinkDesign, linked
from simenv import config
from simenv.model.devices import DeviceInfo, DeviceKind, LinkInfo, ModuleInfo


def linked_device(
    modules: int = 2,
    data: int = 3,
    communication: int = 1,
    links: Iterable[tuple[int, int]] | None = None,
) -> DeviceInfo:
    """Modules `a`, `b`... of some qubits each, the last of which are for communication. `links`:
    pairs of modules, all of whose communication qubits are linked by number; None: all pairs."""
    size = data + communication
    parts = [
        ModuleInfo("abcdefgh"[k], tuple(range(k * size, (k + 1) * size)), ())
        for k in range(modules)
    ]
    parts = [ModuleInfo(each.name, each.qubits, each.qubits[data:]) for each in parts]
    chosen = itertools.combinations(range(modules), 2) if links is None else links
    pairs = [
        pair
        for first, second in chosen
        for pair in zip(parts[first].communication, parts[second].communication, strict=True)
    ]
    return DeviceInfo(
        name="duo", kind=DeviceKind.EMULATED, provider="simenv", model="duo", version="1",
        technology="simulator", num_qubits=modules * size, max_shots=1_000, gates=(),
        all_to_all=False, dynamic=True, modules=tuple(parts),
        links=tuple(LinkInfo(pair, 1.0) for pair in pairs),
    )  # fmt: skip


PERFECT = "perfect"
_GATES = ("x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "rz", "cx", "cz", "cp", "crz", "swap")


def perfect(qubits: int) -> CalibrationSnapshot:
    """A device without errors, all of whose qubits are coupled."""
    ideal = library.load("ideal")
    gates = tuple(gate for gate in ideal.native_gates if gate.name in _GATES)
    return msgspec.structs.replace(ideal, num_qubits=qubits, native_gates=gates)


def install_linked(
    name: str, modules: Mapping[str, str], links: int, qubits: int = 6, **link: float
) -> str:
    """Store a device of modules, by the names of their devices; each pair has some links, which end
    at the first qubits of a module that are coupled with others. Return its name. `qubits`: of
    modules that are PERFECT; `link`: fields of all links, whose pairs are perfect otherwise."""
    parts = {
        module: perfect(qubits) if each == PERFECT else library.load(each)
        for module, each in modules.items()
    }
    count = links * (len(parts) - 1)
    ends = {module: iter(_ends(part, count)) for module, part in parts.items()}
    designs = [
        LinkDesign((f"{a}.{next(ends[a])}", f"{b}.{next(ends[b])}"), **{"fidelity": 1.0, **link})
        for a, b in itertools.combinations(parts, 2)
        for _ in range(links)
    ]
    folder = config.devices_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / f"{name}.json").write_bytes(snapshot.dump(linked(name, parts, designs)))
    return name


def _ends(part: CalibrationSnapshot, count: int) -> list[int]:
    """Qubits that are coupled with one that is no end, as every second one of a row is."""
    return list(range(0, 2 * count, 2)) if part.coupling else list(range(count))
