"""Choice of the emulated device of a submission by its pool or by a preference."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from noise_models import library
from simenv.client.devices.choice import SubmitDevices
from simenv.errors import NotFoundError
from simenv.model.devices import DeviceInfo
from simenv.service.devices.describe import device_info


class _Pools:
    """Pools of which the first has a device without calibration."""

    def __init__(self) -> None:
        snapshot = library.load("superconducting-lattice")
        ready = device_info("ready", snapshot, snapshot.digest.hex())
        broken = msgspec.structs.replace(ready, name="broken", num_qubits=0, problem="no file")
        self._pools = {"broken": broken, "ready": ready}

    def device(self, name: str) -> DeviceInfo:
        if self._pools[name].problem:
            raise NotFoundError("no file", hint="import one")
        return self._pools[name]

    def devices(self) -> Mapping[str, DeviceInfo]:
        return self._pools

    def store(self, document: bytes) -> str:
        raise AssertionError(document)


def test_a_pool_without_calibration_is_refused_with_its_reason() -> None:
    with pytest.raises(NotFoundError, match="no file"):
        SubmitDevices(_Pools())._info_for("", "broken", ())


def test_a_preference_for_emulators_takes_a_pool_with_calibration() -> None:
    info = SubmitDevices(_Pools())._info_for("", "", ("emulator",))
    assert info is not None
    assert info.name == "ready"
