"""What a channel is drawn from, against plain numpy."""

import numpy as np
import patterned
import pytest
import reference

from simulators.engine import RunControl, ThreadPool
from simulators.statevector.state import BlockExecutor, State
from simulators.statevector.trajectories.states import reduced
from simulators.trajectories.noise_table import operators


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
@pytest.mark.parametrize("qubits", [(0,), (6,), (13,), (2, 9), (9, 2), (0, 1), (13, 12)])
def test_kraus_probabilities_of_density_are_norms(qubits: tuple[int, ...], dtype: str) -> None:
    random = np.random.default_rng(3)
    raw = random.normal(size=2**14) + 1j * random.normal(size=2**14)
    amplitudes = (raw / np.linalg.norm(raw)).astype(dtype)
    size = 1 << len(qubits)
    result = patterned.channel(size, 3, random)
    sets = operators([[patterned.unitary(2, random)], result])
    entries = []
    for threads in (1, 3):
        control = RunControl()
        with ThreadPool(threads, control) as thread_pool:
            entries.append(
                reduced(BlockExecutor(thread_pool, control), State(amplitudes.copy()), qubits)
            )
    np.testing.assert_array_equal(*entries)
    state = amplitudes.astype(complex)
    norms = [np.linalg.norm(reference.apply(state, each, qubits)) ** 2 for each in result]
    np.testing.assert_allclose(sets.probs(1, entries[0]), norms, atol=1e-12)
