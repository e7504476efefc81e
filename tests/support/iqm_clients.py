"""IQM's own client in an environment of its own, and a device of IQM's kind: five in a chain."""

import os
import sys
from pathlib import Path

import msgspec
import pytest
from packages import bring

from noise_models import snapshot
from noise_models.importers import import_snapshot
from noise_models.linked import LinkDesign, linked
from simenv import config

FOLDER = Path(sys.prefix) / "var" / "iqm"
METRICS = Path(__file__).parents[2] / "examples" / "iqm" / "metrics.json"
DEVICE, LINKED = "emu_garnet", "emu_duo"
QUBITS = 5


def interpreter() -> Path:
    """Python with iqm-client; skips the test where it cannot be had, but not in CI."""
    why = bring("vendor_client.sh", "iqm", FOLDER)
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)
    return FOLDER / "bin" / "python"


def import_device() -> list[Path]:
    """Import the device as `simenv devices import` does, and two of them with measurements inside
    circuits that a link joins; return the files."""
    built, _ = import_snapshot({METRICS.name: METRICS.read_bytes()}, name=DEVICE)
    module = msgspec.structs.replace(built, dynamic=True)
    link = LinkDesign(("a.4", "b.0"), fidelity=0.97, rate_hz=1e5)
    joined = linked(LINKED, {"a": module, "b": module}, [link])
    folder = config.home_root() / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, each in ((DEVICE, built), (LINKED, joined)):
        paths.append(folder / f"{name}.json")
        paths[-1].write_bytes(snapshot.dump(each))
    return paths
