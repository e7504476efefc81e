"""Pools of emulated devices in `simenv up` and `simenv status`."""

from __future__ import annotations

import time

import live
import pytest

from simenv.cli.app import run


def test_pool_of_an_unknown_device_is_named_in_status(capsys: pytest.CaptureFixture[str]) -> None:
    pools = [{"name": "lab", "device": "nowhere", "min": 0, "max": 1}, {"name": "main"}]
    text = "pool lab runs nothing: there is no device 'nowhere'"
    with live.environment(pools=pools) as up:
        deadline = time.monotonic() + live.PATIENCE_S
        shown = ""
        while text not in shown and time.monotonic() < deadline:
            assert run(["status", "--name", up.name]) == 0
            shown = " ".join(capsys.readouterr().out.split())
        assert text in shown
        assert "pool main" not in shown
