"""An engine of another distribution is listed, routed to and run without a change elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from failing import fails
from third_party_engine import FOLDER

from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simenv.service.queries.engines import engines_view
from simulators import catalog, registry
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import bell, ghz
from simulators.engine import EngineContext
from simulators.errors import UnknownEngine, Unsupported

POOLS = (PoolSpec("main"),)
LIMITS = ClusterLimits(4, 16 * 2**30, 10**6, 2**34, 1, 1)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distribution is on the path, with its metadata."""
    monkeypatch.syspath_prepend(FOLDER)
    catalog.engine_cards.cache_clear()
    engines_view.cache_clear()
    yield
    catalog.engine_cards.cache_clear()
    engines_view.cache_clear()


@pytest.mark.usefixtures("installed")
def test_the_engine_is_listed_and_auto_chooses_it_where_its_card_ranks_first() -> None:
    assert "dense" in [view.name for view in engines_view(POOLS, LIMITS)]
    considered = engine_choice.candidates(profile(bell()), TaskOptions(), POOLS, LIMITS)
    assert considered[0].engine == "dense"
    assert considered[0].route is not None
    wider = engine_choice.candidates(profile(ghz(5)), TaskOptions(), POOLS, LIMITS)
    able = [each.engine for each in wider if each.route is not None]
    assert (able[0], able[-1]) == ("statevector", "dense")
    assert (
        engine_choice.choose(profile(ghz(5)), TaskOptions(engine="dense"), POOLS, LIMITS).engine
        == "dense"
    )


@pytest.mark.usefixtures("installed")
def test_the_engine_runs_in_one_rank_and_takes_no_backend() -> None:
    class TwoRanks:
        def Get_size(self) -> int:  # noqa: N802
            return 2

    for context in (EngineContext(comm=TwoRanks()), EngineContext(backend=object())):
        fails(Unsupported, "", registry.create, "dense", context)


def test_without_its_distribution_the_engine_is_unknown() -> None:
    fails(UnknownEngine, "", registry.create, "dense")


@pytest.mark.usefixtures("installed")
def test_entry_point_of_no_card_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[simenv.engines]\nbroken = dense_engine:DenseEngine\n")
    monkeypatch.syspath_prepend(tmp_path)
    catalog.engine_cards.cache_clear()
    fails(Unsupported, "'broken'", catalog.engine_cards)
    monkeypatch.undo()
