"""Cases that run in all ranks of one mpirun, so that many of them cost one start.

As a library: `outcomes` starts modules of cases (functions `case_*`, each given the communicator)
under mpirun and tells of each what went wrong, "" if nothing. As a program: one of the ranks. Cases
compare alike in all ranks, so that none waits for one that has failed.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np

from simulators.circuit.ir import Circuit, CircuitData
from testbed.ranks import mpirun, rank_environment

WAIT_S = 240.0
_TEXT_BYTES = 8192
_ROOT = Path(__file__).parents[2]


def cases_of(paths: Iterable[Path]) -> dict[str, Callable[[object], None]]:
    """The cases of modules by name, in order."""
    table = {}
    for path in paths:
        cases = vars(_loaded(path))
        table.update({name: cases[name] for name in cases if name.startswith("case_")})
    return dict(sorted(table.items()))


def outcomes(
    paths: Sequence[Path], ranks: int, names: Sequence[str], circuits: Sequence[Circuit] = ()
) -> dict[str, str]:
    """What these cases of modules say over so many ranks; `given` tells them the circuits."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = folder / "report.json"
        packed = [_packed(circuit) for circuit in circuits]
        (folder / "given").write_bytes(msgspec.msgpack.encode(packed))
        argv = [str(mpirun()), "-n", str(ranks), "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
        argv += [
            sys.executable, "-P", "-W", "error", __file__, os.pathsep.join(map(str, paths)),
            str(report),
        ]  # fmt: skip
        argv += names
        support = os.pathsep.join([str(Path(__file__).parent), str(_ROOT)])
        extra = {"PYTHONPATH": support, "SIMENV_TEST_GIVEN": str(folder / "given")}
        process = subprocess.Popen(
            argv, env=rank_environment(folder, extra), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            value, _ = process.communicate(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # which ends the ranks too
            value, _ = process.communicate()
        assert process.returncode == 0, value
        table: dict[str, str] = json.loads(report.read_text())
        return table


def given() -> list[Circuit]:
    """In a rank: the circuits that the test drew."""
    packed = msgspec.msgpack.decode(Path(os.environ["SIMENV_TEST_GIVEN"]).read_bytes())
    return [
        CircuitData(
            fields[0], fields[1], tuple((name, size) for name, size in fields[2]), tuple(fields[3]),
            *fields[4:12], *(tuple(field) for field in fields[12:]),
        ).circuit()
        for fields in packed
    ]  # fmt: skip


def _packed(circuit: Circuit) -> list[object]:
    """The arguments of `CircuitData`."""
    arrays = (circuit.ops, circuit.qubits, circuit.clbits, circuit.params)
    return [
        circuit.num_qubits, circuit.num_clbits, circuit.registers, circuit.table.names,
        circuit.table.rows[:, 1:].astype(np.uint16).tobytes(),
        *(array.tobytes() for array in arrays), circuit.num_slots, circuit.slots.tobytes(),
        circuit.conditions.tobytes(), circuit.constants, circuit.variables, circuit.matrices,
    ]  # fmt: skip


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rank(paths: Sequence[Path], report: Path, names: Sequence[str]) -> None:
    from simulators.compiler import warmup

    warmup.compile_group(Path(os.environ["SIMENV_KERNELS"]))
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    table = {}
    cases = cases_of(paths)
    for name, case in ((name, cases[name]) for name in names):
        text = ""
        try:
            case(world)
        except BaseException:  # noqa: BLE001 reported
            text = f"rank {world.rank}:\n{traceback.format_exc()}"
            sys.stderr.write(f"{name}: {text}\n")  # seen where the others wait for ever
            sys.stderr.flush()
        array, all_ = np.zeros(_TEXT_BYTES, np.uint8), np.zeros((world.size, _TEXT_BYTES), np.uint8)
        packed = text.encode()[-_TEXT_BYTES:]
        array[: len(packed)] = np.frombuffer(packed, np.uint8)
        world.Allgather(array, all_)
        table[name] = all_.tobytes().replace(b"\0", b"").decode(errors="replace")
    if world.rank == 0:
        report.write_text(json.dumps(table))


if __name__ == "__main__":
    _rank([Path(name) for name in sys.argv[1].split(os.pathsep)], Path(sys.argv[2]), sys.argv[3:])
