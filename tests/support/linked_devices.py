"""Descriptions of devices of linked modules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

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
