"""States of a run are freed when it ends: nothing that holds them is in a cycle of references."""

import gc

import pytest
from arrays import Arrays
from noisy_runs import bit

from simulators.simulate import simulate

HOLDERS = (
    "simulators.dynamic.interpreter", "simulators.statevector.dynamic.",
    "simulators.statevector.execute", "simulators.densitymatrix.execute",
    "simulators.tensornetwork.mps.",
)  # fmt: skip


@pytest.mark.parametrize("engine", ["statevector", "densitymatrix", "mps"])
def test_a_run_leaves_no_state_to_garbage_collection(engine: str) -> None:
    arrays = Arrays(3, 3).add("h", [0]).add("measure", [0], [0])
    arrays.begin(bit(0)).add("x", [1]).add("end").add("h", [1])
    circuit = arrays.measure(range(3)).circuit()
    simulate(circuit, shots=20, seed=3, engine=engine)  # what is made once
    gc.collect()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        simulate(circuit, shots=20, seed=4, engine=engine)
        gc.collect()
        types = {type(each) for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert {each for each in types if each.__module__.startswith(HOLDERS)} == set()
