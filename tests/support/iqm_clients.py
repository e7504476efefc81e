"""IQM's own client in an environment of its own, and a device of IQM's kind: five in a chain."""

import os
import sys
from pathlib import Path

import pytest
from packages import bring

from noise_models import snapshot
from noise_models.importers import import_snapshot
from simenv import config

FOLDER = Path(sys.prefix) / "var" / "iqm"
METRICS = Path(__file__).parents[2] / "examples" / "iqm" / "metrics.json"
DEVICE = "emu_garnet"
QUBITS = 5


def interpreter() -> Path:
    """Python with iqm-client; skips the test where it cannot be had, but not in CI."""
    why = bring("iqm_client.sh", FOLDER)
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)
    return FOLDER / "bin" / "python"


def import_device() -> Path:
    """Import the device as `simenv devices import` does; return its file."""
    built, _ = import_snapshot({METRICS.name: METRICS.read_bytes()}, name=DEVICE)
    path = config.home_root() / "devices" / f"{DEVICE}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(snapshot.dump(built))
    return path
