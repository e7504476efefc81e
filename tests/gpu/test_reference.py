"""A real GPU: states of the engine gpu are those of cuStateVec, an independent library."""

import pytest
from against_custatevec import largest_difference

from bench.circuits import CIRCUITS
from bench.peers.custatevec import NotInstalled
from simulators.gpu.devices.device import Device

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("width", [0, 5])
@pytest.mark.parametrize("n", [8, 14, 20])
@pytest.mark.parametrize("kind", list(CIRCUITS))
def test_states_are_those_of_custatevec(device: Device, kind: str, n: int, width: int) -> None:
    try:
        difference = largest_difference(device, kind, n, width)
    except NotInstalled as error:
        pytest.skip(str(error))
    assert difference < 1e-12
