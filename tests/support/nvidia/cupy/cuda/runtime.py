"""See `cupy`."""

import os

from cupy.site_constants import GPUS


class CUDARuntimeError(RuntimeError):
    """Raised as CuPy's."""


def described() -> list[str]:
    """UUID, model, MiB and capability of the GPU that is visible."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    entries = [each.split(",") for each in GPUS.split(";")]
    return next(entry for entry in entries if entry[0].startswith(visible))


class _Room:
    def __init__(self) -> None:
        self.total = int(described()[2]) << 20
        self.used = 0


memory = _Room()


def memGetInfo() -> tuple[int, int]:  # noqa: N802  # CUDA's name
    return memory.total - memory.used, memory.total


def getDeviceProperties(number: int) -> dict[str, bytes]:  # noqa: N802  # CUDA's name
    assert number == 0
    return {"name": described()[1].encode()}


def deviceGetPCIBusId(number: int) -> str:  # noqa: N802  # CUDA's name
    """The place of the GPU in the list of all."""
    assert number == 0
    uuids = [each.split(",")[0] for each in GPUS.split(";")]
    return f"0000:{uuids.index(described()[0]):02x}:00.0"


def deviceSynchronize() -> None:  # noqa: N802  # CUDA's name
    """Launches have ended when they return."""
