"""An environment with something to see on each view of the web page, and a gateway in front."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pulser
from gateway_stand_in import gateway_of
from litestar.types import ControllerRouterHandler
from logical_devices import store_logical
from qiskit import QuantumCircuit
from waiting import until

import simenv
from noise_models import library as profiles
from noise_models.snapshot import dump
from simenv import library
from simenv.client.client import Client
from simenv.config import convert
from simenv.config.paths import devices_folder
from simenv.gateway import metrics, native, page
from simenv.gateway.app import session_routes
from simenv.gateway.context import Gateway
from simenv.model.devices import date_name, wall_clock_s

DEVICE, SLOW, LOGICAL = "refreshed", "trapped-ions", "encoded"
DATES = ("2026-03-01T06:00:00+00:00", "2026-03-02T06:00:00+00:00")  # of its snapshots
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "lattice", "device": DEVICE, "min": 1, "max": 1},
    {"name": "paced", "device": SLOW, "min": 1, "max": 1, "pace": True},
]


class Shown(NamedTuple):
    """`noisy`: id of an ended task on the device; `lost`: of a long one that has lost an attempt
    with its worker; `waiting`: of one behind it; `pulses`: of a pulse sequence."""

    url: str
    client: Client
    noisy: str
    lost: str
    waiting: str
    pulses: str

    @property
    def paths(self) -> dict[str, str]:
        """Path of one page of each view."""
        return {
            "overview": "/ui/", "run": "/ui/run", "tasks": "/ui/tasks",
            "task": f"/ui/tasks/{self.noisy}", "waiting": f"/ui/tasks/{self.waiting}",
            "lost": f"/ui/tasks/{self.lost}", "devices": "/ui/devices",
            "device": "/ui/devices/lattice", "nodes": "/ui/nodes", "usage": "/ui/usage",
            "events": "/ui/events", "logical": f"/ui/devices/{LOGICAL}",
            "pulses": f"/ui/tasks/{self.pulses}",
        }  # fmt: skip


def routes(gateway: Gateway) -> list[ControllerRouterHandler]:
    session, *_ = session_routes(gateway)  # type: ignore[arg-type]  # it has no tokens to sign in by
    return [session, *(route for part in (native, metrics, page) for route in part.routes(gateway))]


def slow() -> QuantumCircuit:
    """Hours on a paced device with 10,000 shots, and next to nothing to compute."""
    circuit = QuantumCircuit(1)
    circuit.delay(1, 0, "s")
    circuit.measure_all()
    return circuit


def ghz(qubits: int = 3) -> QuantumCircuit:
    return library.ghz(qubits).circuit


def sequence() -> Any:
    """Pulses of two channels on six atoms, one of which moves among them."""
    register = pulser.Register.rectangle(2, 3, spacing=6.0, prefix="q")
    result = pulser.Sequence(register, pulser.MockDevice)
    result.declare_channel("global", "rydberg_global")
    result.declare_channel("local", "rydberg_local", initial_target="q0")
    amplitude, detuning = pulser.BlackmanWaveform(500, 6.0), pulser.RampWaveform(500, -12.0, 12.0)
    result.add(pulser.Pulse(amplitude, detuning, 0.0), "global")
    result.add(pulser.Pulse.ConstantPulse(100, 3.0, 0.0, 0.0), "local")
    result.target("q4", "local")
    result.add(pulser.Pulse.ConstantPulse(100, 2.0, -1.0, 1.5), "local")
    return result


def refreshed() -> None:
    """Store a device as its refreshes leave it: the first snapshot has half of the T1."""
    folder = devices_folder()
    (folder / f"{DEVICE}.d").mkdir(parents=True, exist_ok=True)
    base = profiles.load("superconducting-lattice")
    for date, factor in zip(DATES, (0.5, 1.0), strict=True):
        qubits = tuple(
            msgspec.structs.replace(each, t1_us=factor * each.t1_us, t2_us=factor * each.t2_us)
            for each in base.qubits
        )
        body = dump(msgspec.structs.replace(base, name=DEVICE, calibrated=date, qubits=qubits))
        name = date_name(wall_clock_s(date))
        (folder / f"{DEVICE}.d" / f"{name}.json").write_bytes(body)
    (folder / f"{DEVICE}.json").write_bytes(body)


@contextmanager
def shown(folder: Path) -> Iterator[Shown]:
    refreshed()
    store_logical(LOGICAL, 8, chip="superconducting-square", distance=3)
    pools = convert({"pools": POOLS}, source="test").pools
    with simenv.local(slots=3, pools=pools) as client:
        noisy = client.submit(ghz(4), shots=4_000, seed=1, device=DEVICE, pool="lattice")
        client.submit(ghz(), shots=100, seed=2, name="small").wait()
        noisy.wait()
        pulses = client.submit(sequence(), shots=500, seed=3, name="atoms").id
        paced = {"device": SLOW, "pool": "paced"}
        [victim] = [each.pid for each in client.workers() if each.pool == "paced"]
        os.kill(victim, signal.SIGSTOP)  # it would have computed the task before it is seen
        long = client.submit(slow(), shots=10_000, name="long", **paced)
        waiting = client.submit(ghz(), shots=100, name="behind", **paced)
        until(  # or the service has ended the worker before it was seen
            lambda: (
                any(each.task == long.id for each in client.workers())
                or client.tasks([long.id])[0].attempt == 2
            )
        )
        with suppress(ProcessLookupError):  # the service has ended it, for its silence
            os.kill(victim, signal.SIGKILL)
        until(lambda: client.tasks([long.id])[0].attempt == 2)
        client.record_device_figure("lattice", "certified", 0.96)
        client.record_device_figure("lattice", "score", 0.93)
        with gateway_of(client, folder, routes) as gateway:
            yield Shown(gateway.url, client, noisy.id, long.id, waiting.id, pulses)
