"""An environment with something to see on each view of the web page, and a gateway in front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway_stand_in import gateway_of
from litestar.types import ControllerRouterHandler
from qiskit import QuantumCircuit

import simenv
from simenv import library
from simenv.client.client import Client
from simenv.config import convert
from simenv.gateway import metrics, native, page
from simenv.gateway.context import Gateway

DEVICE, SLOW = "superconducting-lattice", "trapped-ions"
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "lattice", "device": DEVICE, "min": 1, "max": 1},
    {"name": "paced", "device": SLOW, "min": 1, "max": 1, "pace": True},
]


class Shown(NamedTuple):
    """`noisy`: id of an ended task on the device; `waiting`: of one behind a long one."""

    url: str
    client: Client
    noisy: str
    waiting: str

    @property
    def paths(self) -> dict[str, str]:
        """Path of one page of each view."""
        return {
            "overview": "/ui/",
            "tasks": "/ui/tasks",
            "task": f"/ui/tasks/{self.noisy}",
            "waiting": f"/ui/tasks/{self.waiting}",
            "devices": "/ui/devices",
            "device": "/ui/devices/lattice",
            "nodes": "/ui/nodes",
            "usage": "/ui/usage",
            "events": "/ui/events",
        }


def routes(gateway: Gateway) -> list[ControllerRouterHandler]:
    return [route for part in (native, metrics, page) for route in part.routes(gateway)]


def slow() -> QuantumCircuit:
    """Hours on a paced device with 10,000 shots, and next to nothing to compute."""
    circuit = QuantumCircuit(1)
    circuit.delay(1, 0, "s")
    circuit.measure_all()
    return circuit


def ghz(qubits: int = 3) -> QuantumCircuit:
    return library.ghz(qubits).circuit


@contextmanager
def shown(folder: Path) -> Iterator[Shown]:
    pools = convert({"pools": POOLS}, source="test").pools
    with simenv.local(slots=3, pools=pools) as client:
        noisy = client.submit(ghz(4), shots=4_000, seed=1, device=DEVICE, pool="lattice")
        client.submit(ghz(), shots=100, seed=2, name="small").wait()
        noisy.wait()
        paced = {"device": SLOW, "pool": "paced"}
        client.submit(slow(), shots=10_000, name="long", **paced)
        waiting = client.submit(ghz(), shots=100, name="behind", **paced)
        with gateway_of(client, folder, routes) as gateway:
            yield Shown(gateway.url, client, noisy.id, waiting.id)
