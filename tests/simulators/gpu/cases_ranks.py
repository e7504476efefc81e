"""Cases over several ranks with a device each, see `among_ranks`: results of one rank."""

from typing import Any

import numpy as np
from arrays import Arrays
from engine_runs import run
from noisy import program
from noisy_runs import run_branched
from patterned import unitary
from random_circuits import random_static

from noise_models.channel import depolarizing
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import PauliSum, Request
from simulators.errors import DeviceLost, EngineError, OutOfMemory, UnknownEngine, Unsupported
from simulators.gpu.engine import GpuEngine
from simulators.statevector.engine import StatevectorEngine
from testbed.host_device import HostDevice


def agree(
    comm: Any, circuit: Circuit, request: Request, noise: NoiseProgram | None = None,
    device: HostDevice | None = None,
) -> None:  # fmt: skip
    """All ranks together have the result of one processor; the first has it, the others None."""
    device = device or HostDevice()
    engine = GpuEngine(device, comm=comm)
    result = run(engine, circuit, request, noise)
    engine.close()
    assert (result is None) == (comm.Get_rank() > 0)
    assert device.launches, "a rank without a part"
    if result is None:
        return
    assert f"{comm.Get_size()} ranks" in result.remark
    expected = run(StatevectorEngine(), circuit, request, noise)
    assert (result.outcomes, result.counts) == (expected.outcomes, expected.counts)
    for name in ("probabilities", "expectations"):
        one, two = (np.frombuffer(getattr(each, name)) for each in (result, expected))
        assert np.allclose(one, two, rtol=0, atol=1e-11), name
    if expected.statevector is not None:
        assert np.allclose(result.statevector, expected.statevector, rtol=0, atol=1e-12)


def case_counts_equal_those_of_one_processor(comm: Any) -> None:
    for n in (15, 17):
        agree(comm, random_static(n, 120, n, n), Request(3000, 5, binding=2))


def case_single_precision_samples_the_same_distribution(comm: Any) -> None:
    circuit = random_static(15, 60, 15, 15)
    result = run(GpuEngine(HostDevice(), comm=comm), circuit, Request(500, 5), precision="single")
    if comm.Get_rank() == 0:
        assert np.frombuffer(result.counts, np.uint32).sum() == 500


def case_exact_outputs_equal_those_of_one_processor(comm: Any) -> None:
    n = 15
    rng = np.random.default_rng(3)
    labels = ["".join(rng.choice(list("IXYZ"), n)) for _ in range(6)]
    labels += ["X" * n, "Y" * n, "Z" * n, "Y" + "I" * (n - 1)]
    sums = (PauliSum(tuple(labels), rng.normal(size=len(labels))), PauliSum(("Y" * n,), np.ones(1)))
    circuit = random_static(n, 80, 4, 0)
    agree(comm, circuit, Request(0, 1, ("expectation", "statevector"), sums))


def case_probabilities_of_some_qubits_equal_those_of_one_processor(comm: Any) -> None:
    arrays = Arrays(15, 4)
    for q in range(15):
        arrays.add("ry", [q], (), [0.3 + q]).add("cx", [q, (q + 1) % 15])
    for k, q in enumerate((14, 2, 13, 7)):
        arrays.add("measure", [q], [k])
    agree(comm, arrays.circuit(), Request(0, 1, ("probabilities",)))


def case_toffoli_from_the_rank_number_applies_in_its_rank_alone(comm: Any) -> None:
    agree_about_controls(comm, "ccx")


def case_swap_from_the_rank_number_applies_in_its_rank_alone(comm: Any) -> None:
    agree_about_controls(comm, "cswap")


def agree_about_controls(comm: Any, gate: str) -> None:
    n, rng, arrays = 14, np.random.default_rng(1), Arrays(14, 14)
    for q in range(n):
        arrays.add("ry", [q], (), [0.3 + q])
    for q in range(5, n - 2):
        for _ in range(2):
            for p in (q, q + 1):
                arrays.add("ry", [p], (), [float(rng.uniform(0, 6))])
            arrays.add("cx", [q, q + 1])
        arrays.add("ry", [q], (), [1.0]).add("ry", [q + 1], (), [1.0])
        arrays.add(gate, [n - 1, q, q + 1])
    engine, request = GpuEngine(HostDevice(), comm=comm), Request(0, 1, ("statevector",))
    result = run(engine, arrays.circuit(), request)
    engine.close()
    if comm.Get_rank() == 0:
        expected = run(GpuEngine(HostDevice()), arrays.circuit(), request)
        assert np.abs(result.statevector - expected.statevector).max() < 1e-13


def case_matrix_on_global_qubits_equals_that_of_one_processor(comm: Any) -> None:
    arrays = Arrays(15, 15)
    for q in range(15):
        arrays.add("ry", [q], (), [0.2 + q])
    arrays.unitary(unitary(32, np.random.default_rng(1)), [14, 13, 3, 12, 0])
    for q in range(15):
        arrays.add("cx", [q, (q + 4) % 15]).add("measure", [q], [q])
    agree(comm, arrays.circuit(), Request(2000, 9))


def case_dynamic_circuit_equals_that_of_one_processor(comm: Any) -> None:
    arrays = Arrays(15, 15)
    for q in range(15):
        arrays.add("ry", [q], (), [0.4 + q]).add("cx", [q, (q + 1) % 15])
    arrays.add("measure", [14], [14]).add("reset", [13]).add("h", [14]).add("measure", [0], [0])
    for q in range(15):
        arrays.add("h", [q]).add("measure", [q], [q])
    agree(comm, arrays.circuit(), Request(300, 4))


def ring(n: int) -> Circuit:
    arrays = Arrays(n, n)
    for q in range(n):
        arrays.add("ry", [q], (), [0.4 + q]).add("cx", [q, (q + 1) % n])
    return arrays.measure(range(n)).circuit()


def case_error_patterns_are_divided_among_ranks(comm: Any) -> None:
    """Each walks its share on its own device, to the counts of one processor."""
    circuit = ring(13)
    noise = program([(k, (k % 13,), depolarizing(0.1, 1)) for k in range(0, 26, 2)])
    engine = GpuEngine(HostDevice(), comm=comm)
    result = run(engine, circuit, Request(200, 9), noise)
    engine.close()
    if result is not None:
        expected = run(StatevectorEngine(), circuit, Request(200, 9), noise)
        assert (result.outcomes, result.counts) == (expected.outcomes, expected.counts)


def case_noise_splits_branches_of_slices_where_few_states_fit(comm: Any) -> None:
    circuit = ring(15)
    noise = program([(3, (1,), depolarizing(0.3, 1)), (27, (13, 14), depolarizing(0.3, 2))])
    engine = GpuEngine(HostDevice(free_bytes=3 * (16 << 15)), comm=comm)
    result = run(engine, circuit, Request(50, 9), noise)
    engine.close()
    if result is not None:
        expected = run_branched(circuit, noise, 50, seed=9)
        assert (result.outcomes, result.counts) == (expected.outcomes, expected.counts)


def case_slice_that_does_not_fit_is_refused_in_all_ranks(comm: Any) -> None:
    """One of them has too little memory."""
    rank = comm.Get_rank()
    device = HostDevice(free_bytes=2**30 if rank else 2**10)
    engine = GpuEngine(device, comm=comm)
    refused = False
    try:
        run(engine, random_static(15, 20, 1, 15), Request(10, 1))
    except OutOfMemory as error:
        refused = "qubits" in error.message
    assert refused
    engine.close()


class PeerDevice(HostDevice):
    """One whose buffers go to other devices directly. `sent`: how many."""

    def __init__(self, comm: Any, *, has_nccl: bool = True, joins: bool = True) -> None:
        super().__init__()
        self._comm = comm
        self._has_nccl, self._joins = has_nccl, joins
        self.sent = 0
        self.is_closed = False

    def has_nccl(self) -> bool:
        return self._has_nccl

    def unique_id(self) -> bytes:
        assert self._comm.Get_rank() == 0, "a group has one identifier"
        return bytes(range(128))

    def join(self, unique_id: bytes, size: int, rank: int) -> "PeerDevice":
        assert unique_id == bytes(range(128))
        assert (size, rank) == (self._comm.Get_size(), self._comm.Get_rank())
        if not self._joins:
            raise DeviceLost("no network")
        return self

    def sendrecv(self, sent: np.ndarray, received: np.ndarray, partner: int) -> None:
        self.sent += 1
        self._comm.Sendrecv(sent, partner, recvbuf=received, source=partner)

    def close(self) -> None:
        self.is_closed = True


def case_amplitudes_go_from_gpu_to_gpu_where_all_ranks_have_nccl(comm: Any) -> None:
    device = PeerDevice(comm)
    agree(comm, random_static(15, 120, 15, 15), Request(3000, 5), device=device)
    assert device.sent
    assert device.is_closed


def case_all_ranks_stage_amplitudes_where_one_has_no_nccl(comm: Any) -> None:
    last = comm.Get_rank() == comm.Get_size() - 1
    for fault in ("has_nccl", "joins"):
        device = PeerDevice(comm, **{fault: not last})
        agree(comm, random_static(15, 120, 15, 15), Request(3000, 5), device=device)
        assert not device.sent
        assert device.is_closed == (fault == "joins" and not last), "who has joined leaves"


class PlacedDevice(HostDevice):
    """On a machine's GPU of this address."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location


def case_ranks_that_share_a_gpu_are_refused_in_all_of_them(comm: Any) -> None:
    """By address and name: instances of a partitioned GPU differ in their names alone."""
    rank = comm.Get_rank()
    for own in (f"0000:{rank:02x}:00.0 0", f"0000:01:00.0 MIG-{rank}"):
        GpuEngine(PlacedDevice(own), comm=comm).close()
    refusal = ""
    try:
        GpuEngine(PlacedDevice(f"0000:{max(1, rank):02x}:00.0 GPU-aaaa"), comm=comm)
    except UnknownEngine as error:
        refusal = error.message
    assert "ranks 0 and 1 have the same GPU" in refusal
    assert "0000:01:00.0 GPU-aaaa" in refusal


def case_gradients_are_refused_with_a_way_out(comm: Any) -> None:
    engine = GpuEngine(HostDevice(), comm=comm)
    arrays = Arrays(15, 0)
    for q in range(15):
        arrays.add("ry", [q], (), [0.0])
        arrays.free(q)
        arrays.add("cx", [q, (q + 1) % 15])
    sums = (PauliSum(("Z" * 15,), np.ones(1)),)
    circuit = arrays.circuit()
    request = Request(0, 1, ("expectation", "gradient"), sums, np.ones((1, 15)))
    caught: EngineError | None = None
    try:
        run(engine, circuit, request)
    except Unsupported as error:
        caught = error
    assert caught is not None
    assert "ranks=1" in caught.hint, (caught, caught.hint)
