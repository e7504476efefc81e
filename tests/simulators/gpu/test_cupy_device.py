"""The device by CuPy, over a stand-in for CuPy that runs the kernels of g++, see `nvidia_site`."""

import os
import subprocess
import sys
from pathlib import Path

from nvidia_site import MODEL, install_cupy, place_machine_code

ROOT = Path(__file__).parents[3]
# Of a CuPy whose streams can record, or refuse to: bits of launches and of replays.
PROGRAM = """
import sys
from pathlib import Path
import cupy
import numpy as np
from cupy.cuda import nccl
from gpu_bits import repeated_bits
from testbed.host_device import HostDevice
from simulators.gpu.devices.cupy_device import CupyDevice

def refuse(*arguments):
    raise cupy.cuda.runtime.CUDARuntimeError("operation not permitted when stream is capturing")

if sys.argv[1] == "refused at its end":
    whole = cupy.cuda.Stream.end_capture
    cupy.cuda.Stream.end_capture = lambda stream: refuse(whole(stream))
elif sys.argv[1] == "refused":
    cupy.cuda.Stream.begin_capture = refuse
device = CupyDevice(Path(sys.argv[2]))
assert device.has_nccl()
nccl.NcclCommunicator = refuse
assert not device.has_nccl(), "it cannot join, not even alone"
for precision in ("double", "single"):
    assert repeated_bits(device, precision) == repeated_bits(HostDevice(), precision)
for size in (0, 1, 999):
    numbers = np.arange(size, dtype=np.uint8)
    assert device.download_bytes(device.upload(numbers)) == numbers.tobytes()
assert bytes(1) == b"\\0", "no object of others was written to"
print(cupy.cuda.Graph.launches)
"""


def replays(folder: Path, how: str) -> str:
    """Graphs that were started by the program."""
    gpus = f"GPU-aaaa,{MODEL}"
    install_cupy(folder / "packages", gpus)
    place_machine_code(folder / "kernels")
    places = [folder / "packages", ROOT, ROOT / "tests" / "support"]
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, str(folder / "kernels")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)),
             "CUDA_VISIBLE_DEVICES": "GPU-aaaa"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_repeated_sweeps_are_replayed_from_a_graph(library: Path, tmp_path: Path) -> None:
    assert replays(tmp_path, "captured") == "6"


def test_device_that_captures_no_graph_launches_each_sweep(library: Path, tmp_path: Path) -> None:
    assert replays(tmp_path / "begin", "refused") == "0"
    assert replays(tmp_path / "end", "refused at its end") == "0"
