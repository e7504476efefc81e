"""What routing knows of engines, and how engines are found."""

import subprocess
import sys
from pathlib import Path

import pytest
from arrays import Arrays
from external_program import program as external_simulator
from failing import fails
from qiskit.providers.fake_provider import GenericBackendV2

from simulators import catalog, registry
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import bell, feed_forward
from simulators.engine import EngineContext
from simulators.errors import UnknownEngine, Unsupported

ROOT = Path(catalog.__file__).parents[2]


def test_catalog_imports_neither_numpy_nor_numba() -> None:
    code = (
        "import sys, simulators.catalog; print([m for m in ('numpy', 'numba') if m in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "entry",
    [entry for entry in catalog.CARDS if not (entry.calls or entry.pool == "gpu")],
    ids=lambda entry: entry.name,
)
def test_each_card_creates_its_engine(entry: catalog.EngineCard) -> None:
    assert entry.install_hint == ""
    backend = GenericBackendV2(2, seed=1) if entry.pool == "device" else None
    program = external_simulator() if entry.pool == "program" else None
    engine = registry.create(entry.name, EngineContext(backend=backend, program=program))
    assert engine.name == entry.name
    engine.warm_up()


def test_automatic_engines_are_named() -> None:
    automatic = [entry.name for entry in catalog.CARDS if entry.auto is not None]
    assert automatic == [
        "statevector", "stabilizer", "near_clifford", "mps", "contraction", "sweep", "pauli",
        "densitymatrix", "dmt", "gpu", "gpu_sweep", "rydberg", "emu-mps",
    ]  # fmt: skip
    assert [entry.name for entry in catalog.CARDS if not entry.in_default_pool] == [
        "gpu", "gpu_sweep", "hardware", "external", "functions", "fault",
    ]  # fmt: skip
    assert [entry.name for entry in catalog.CARDS if entry.calls] == [
        "transpiler", "detectors", "rydberg", "functions", "emu-mps", "emu-sv", "pulser-simulation",
    ]  # fmt: skip
    assert [entry.name for entry in catalog.CARDS if entry.pool == "functions"] == ["functions"]


def test_cards_have_at_most_20_fields() -> None:
    assert len(catalog.EngineCard.__struct_fields__) <= 20


def test_engines_of_calls_run_no_circuits() -> None:
    fails(Unsupported, "engine 'transpiler' runs no circuits", registry.create, "transpiler")
    assert not {"transpiler", "detectors", "rydberg", "functions"} & set(registry.names())


def test_card_with_missing_modules_has_install_hint() -> None:
    import msgspec

    entry = msgspec.structs.replace(
        catalog.CARDS[0], package=catalog.Package(("numba", "no_such_module"))
    )
    assert entry.install_hint == "pip install simenv"


def test_unknown_engine_is_refused_with_suggestion() -> None:
    assert "statevector" in fails(UnknownEngine, "'statevectr'", registry.create, "statevectr").hint
    assert catalog.card("statevectr") is None


@pytest.mark.parametrize("precision", ["double", "single"])
def test_max_qubits_in_memory_agrees_with_memory_estimate(precision: str) -> None:
    entry = catalog.CARDS[0]
    for width in (5, 20, 30):
        circuit = Arrays(width, 0).circuit()
        need = entry.memory_bytes(profile(circuit), precision)
        assert entry.max_qubits_in(need, precision) == width
        assert entry.max_qubits_in(need - 1, precision) == width - 1
    assert entry.max_qubits_in(2**62) == entry.max_qubits
    assert entry.max_qubits_in(0) == 0


def test_memory_estimate_includes_large_outputs() -> None:
    entry, sizes = catalog.CARDS[0], profile(Arrays(20, 0).circuit())
    counts = entry.memory_bytes(sizes)
    assert entry.memory_bytes(sizes, outputs=("statevector",)) == counts + 2 * 16 * 2**20
    assert entry.memory_bytes(sizes, outputs=("probabilities",)) >= counts + 32 * 2**20


def test_estimates_grow_with_shots_and_branches_and_fall_with_threads() -> None:
    entry = catalog.CARDS[0]
    static, dynamic = profile(bell()), profile(feed_forward())
    assert entry.memory_bytes(dynamic) >= entry.least_memory_bytes(dynamic)
    assert entry.least_memory_bytes(dynamic) > entry.memory_bytes(static)
    assert entry.seconds(static, 10**6) > entry.seconds(static, 10)
    assert entry.seconds(dynamic, 10) > entry.seconds(static, 10)
    wide = profile(Arrays(20, 0).add("h", [0]).circuit())
    assert entry.seconds(wide, 0, 4) < entry.seconds(wide, 0, 1)


def test_options_that_auto_adds_yield_to_those_that_are_given() -> None:
    assert catalog.settings_of("mps", (), auto=True) == (("tolerance", 1e-6),)
    assert catalog.settings_of("mps", (("bond", 8),), auto=True) == (("bond", 8),)
    assert catalog.settings_of("mps", (), auto=False) == ()
    assert catalog.settings_of("statevector", (), auto=True) == ()
