"""Drift of a pool's device as it is written."""

from __future__ import annotations

import pytest

from simenv.config.drift import DriftSpec, drift_of
from simenv.config.pools import pool_text
from simenv.errors import ConfigError


def test_pairs_become_a_spec() -> None:
    text = "walk:seed=7:every_s=60:spread=0.2:factor=10:outages=9+1/3+2"
    assert drift_of(text, "here") == DriftSpec("walk", 10.0, 7, 60.0, 0.2, ((3.0, 2.0), (9.0, 1.0)))
    assert drift_of("replay", "here") == DriftSpec("replay")


@pytest.mark.parametrize(
    "text",
    [
        "jump",
        "replay:seed=3",
        "walk:seed",
        "walk:seed=1:seed=2",
        "walk:every_s=0",
        "walk:factor=-1",
        "walk:factor=nan",
        "walk:seed=x",
        "walk:outages=5",
        "walk:outages=5+0",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="here: drift"):
        drift_of(text, "here")


def test_drift_and_pace_need_a_device() -> None:
    pool = pool_text("lab:device=chip,pace=true,drift=replay:factor=60")
    assert (pool.pace, pool.drift) == (True, "replay:factor=60")
    for text in ("lab:pace=true", "lab:drift=walk"):
        with pytest.raises(ConfigError, match="without a device"):
            pool_text(text)
