"""The peer cuStateVec: prototypes, matrices and their fusion, on a stand-in with its C interface.

What the stand-in declares is compared with NVIDIA's header where a wheel brings that.
"""

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from against_custatevec import largest_difference
from nvidia_site import FOLDER, require_gcc
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

from bench.circuits import CIRCUITS, wide_circuit
from bench.harness.report import Report
from bench.peers import custatevec
from bench.peers.base import Gate
from bench.peers.custatevec import MatrixGate, fused, gate_by_gate
from testbed.host_device import HostDevice

SOURCE = FOLDER / "custatevec.c"
N = 6
# Of C parameters, as ctypes has them; enums are int.
C_TYPES = {
    "custatevecHandle_t": ctypes.c_void_p,
    "custatevecHandle_t*": ctypes.POINTER(ctypes.c_void_p),
    "custatevecStatus_t": ctypes.c_int,
    "cudaDataType_t": ctypes.c_int,
    "custatevecMatrixLayout_t": ctypes.c_int,
    "custatevecComputeType_t": ctypes.c_int,
    "uint32_t": ctypes.c_uint32,
    "int32_t": ctypes.c_int32,
    "int32_t*": ctypes.POINTER(ctypes.c_int32),
    "size_t": ctypes.c_size_t,
    "size_t*": ctypes.POINTER(ctypes.c_size_t),
    "void*": ctypes.c_void_p,
    "char*": ctypes.c_char_p,
}


def headers() -> list[Path]:
    """What declares the functions: the stand-in, and the header of a wheel."""
    places = [Path(folder) / "cuquantum" / "include" / "custatevec.h" for folder in sys.path]
    return [SOURCE, *(place for place in places if place.exists())]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    require_gcc()
    folder = tmp_path_factory.mktemp("wheel")
    target = folder / "cuquantum" / "lib" / custatevec.LIBRARY
    target.parent.mkdir(parents=True)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", target, SOURCE], check=True)
    return custatevec.load([str(folder)])


def c_type(text: str) -> object:
    return C_TYPES[re.sub(r"\s+", "", re.sub(r"\bconst\b", "", text))]


@pytest.mark.parametrize("path", headers(), ids=lambda path: path.name)
def test_prototypes_are_those_that_c_declares(path: Path) -> None:
    text = path.read_text()
    for name, (result, parameters) in custatevec.PROTOTYPES.items():
        match = re.search(rf"((?:const )?\w+\*?)\s+{name}\(([^)]*)\)\s*[;{{]", text)
        assert match is not None, name
        declared = [re.sub(r"\w+$", "", one.strip()) for one in match[2].split(",") if one.strip()]
        assert c_type(match[1]) is result, name
        assert [c_type(each) for each in declared] == list(parameters), name


@pytest.mark.parametrize("path", headers(), ids=lambda path: path.name)
def test_constants_are_those_that_c_declares(path: Path) -> None:
    """Those of cudaDataType_t are in a header of CUDA, which the stand-in quotes."""
    names = {
        "CUSTATEVEC_STATUS_SUCCESS": custatevec.SUCCESS,
        "CUSTATEVEC_MATRIX_LAYOUT_ROW": custatevec.LAYOUT_ROW,
        "CUSTATEVEC_COMPUTE_32F": custatevec.COMPUTE_32F,
        "CUSTATEVEC_COMPUTE_64F": custatevec.COMPUTE_64F,
    }
    if path == SOURCE:
        names |= {"CUDA_C_32F": custatevec.CUDA_C_32F, "CUDA_C_64F": custatevec.CUDA_C_64F}
    text = path.read_text()
    for name, value in names.items():
        match = re.search(rf"\b{name}\s*=\s*(\(1U << (\d+)U\)|\d+)", text)
        assert match is not None, name
        assert value == (1 << int(match[2]) if match[2] else int(match[1])), name


def exact(n: int, gates: list[Gate]) -> np.ndarray:
    circuit = QuantumCircuit(n)
    for name, qubits, angles in gates:
        getattr(circuit, name)(*angles, *qubits)
    return np.asarray(Statevector(circuit).data)


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("width", [0, 2, 3, 5])
@pytest.mark.parametrize("kind", list(CIRCUITS))
def test_states_match_circuit(kind: str, width: int, precision: str, library: ctypes.CDLL) -> None:
    """`width`: of fused matrices; 0: gate by gate, with controls."""
    gates = wide_circuit(kind, N, 3)
    matrices = fused(gates, width) if width else gate_by_gate(gates)
    device = HostDevice()
    peer = custatevec.CuStateVec(device, precision, library)
    state = custatevec.zero_state(device, N, precision)
    peer.prepared(N, matrices)(state)
    peer.close()
    assert np.allclose(state, exact(N, gates), 0, 1e-12 if precision == "double" else 1e-5)


@pytest.mark.parametrize("kind", list(CIRCUITS))
def test_engine_on_the_host_device_agrees_with_it(kind: str, library: ctypes.CDLL) -> None:
    """As `-m gpu` compares it with the library itself."""
    assert largest_difference(HostDevice(), kind, 8, 3, library) < 1e-12


def test_fusion_makes_fewer_and_wider_matrices() -> None:
    gates = wide_circuit("volume", 10, 1)
    counts = {width: len(fused(gates, width)) for width in (2, 3, 5)}
    assert counts[5] < counts[3] < counts[2] < len(gates)
    for width in counts:
        assert max(len(each.targets) for each in fused(gates, width)) == width
        for each in fused(gates, width):
            size = 1 << len(each.targets)
            assert each.matrix.shape == (size, size)
            assert np.allclose(each.matrix @ each.matrix.conj().T, np.eye(size))


def test_failed_call_is_reported_with_the_librarys_words(library: ctypes.CDLL) -> None:
    peer = custatevec.CuStateVec(HostDevice(), "double", library)
    assert peer.version == "1.15.0"
    wide = MatrixGate(np.eye(8, dtype=np.complex128), (0, 1, 2))
    with pytest.raises(custatevec.CustatevecError, match=r"wrong parameter \(3\)"):
        peer.prepared(2, [wide])
    peer.close()


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="the library may be here")
def test_missing_library_is_reported_as_not_installed(tmp_path: Path) -> None:
    with pytest.raises(custatevec.NotInstalled, match="not installed: libcustatevec") as caught:
        custatevec.load([str(tmp_path)])
    assert "pip install custatevec-cu13" in str(caught.value)
    broken = tmp_path / "cuquantum" / "lib" / custatevec.LIBRARY
    broken.parent.mkdir(parents=True)
    broken.write_text("no library")
    with pytest.raises(custatevec.NotInstalled, match=r"not installed: .*(header|too short)"):
        custatevec.load([str(tmp_path)])


def test_peers_not_installed_are_reported_unjudged(capsys: pytest.CaptureFixture[str]) -> None:
    from bench.peers import on_gpu

    report = Report("gpu", "peers")
    peers = on_gpu.Peers(HostDevice(), 1, lambda work: 1.0)
    on_gpu.compare(report, peers, 8, lambda kind, n, precision: 1.0, lambda kind, n: 1.0)
    figures = {figure.key: figure.value for figure in report.figures}
    if importlib.util.find_spec("cuquantum") is None:
        assert figures["qft_custatevec"] is figures["volume_custatevec"] is None
        assert "cuStateVec is not installed" in capsys.readouterr().out
    assert figures["qsim_cuda"] is None, "the wheel has no CUDA backend"


def test_peers_are_judged_by_their_best_fusion(library: ctypes.CDLL) -> None:
    from bench.peers import on_gpu

    seconds = iter([8.0, 4.0, 2.0, 8.0, 2.0, 4.0])
    report = Report("gpu", "peers")

    def clock(work: object) -> float:
        work()  # type: ignore[operator]
        return next(seconds)

    peers = on_gpu.Peers(HostDevice(), 1, clock, library)
    on_gpu.compare(report, peers, 8, lambda kind, n, precision: 1.0, lambda kind, n: 1.0)
    figures = {figure.key: figure.value for figure in report.figures}
    assert (figures["qft_custatevec"], figures["volume_custatevec"]) == (0.5, 0.5)
