"""A provider's factory in a worker: found, called once, and never the worker's own end without a
word."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import machines
import pytest
from failing import fails

from simenv.errors import ConfigError
from simenv.model.devices import DeviceKind
from simenv.worker.hardware import HardwareSession, create_engine
from simulators.hardware.engine import HardwareEngine


@pytest.fixture(autouse=True)
def same_path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("machines:absent", "machines:absent: ConnectionError: the machine room is locked"),
        ("machines:nothing", "TypeError: it returned a NoneType, no BackendV2"),
        ("machines:nobody", "AttributeError: "),
        ("no_such_lab:one", "ModuleNotFoundError: No module named 'no_such_lab'"),
    ],
)
def test_failing_provider_raises_config_error_with_its_cause(provider: str, said: str) -> None:
    assert "\n" not in str(fails(ConfigError, said, create_engine, provider, ""))


def test_module_that_is_not_found_is_named_with_the_folders_that_were_searched() -> None:
    said = "No module named 'no_such_lab', neither in the packages nor in /lab, /opt"
    fails(ConfigError, said, create_engine, "no_such_lab:one", f"/lab{os.pathsep}/opt")


def test_import_path_of_user_does_not_shadow_installed_modules(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('in the way')")
    (tmp_path / "lab_of_mine.py").write_text("import json\nfrom machines import noisy as one\n")
    result = HardwareSession.of("lab_of_mine:one", f"/nowhere:{tmp_path}", "my-qpu-0")
    assert (sys.path[-2:], result.engine.backend.num_qubits) == (["/nowhere", str(tmp_path)], 5)


def test_device_description_is_reported_once_per_change() -> None:
    result = HardwareSession.of("machines:noisy", "", "my-qpu-0")
    first = result.changed_info()
    assert (first.name, first.kind, first.model) == (
        "my-qpu", DeviceKind.HARDWARE, "generic_backend_5q"
    )  # fmt: skip
    assert (first.num_qubits, first.directed, len(first.coupling)) == (5, False, 8)
    assert len(first.qubits) == 5
    assert result.changed_info() is None
    result.engine.backend._target = machines.ideal().target
    assert result.changed_info().all_to_all
    assert result.changed_info() is None


def test_failing_warmup_raises_config_error_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def cold(_: object) -> None:
        raise RuntimeError("no\ntarget")

    monkeypatch.setattr(HardwareEngine, "warm_up", cold)
    fails(ConfigError, "noisy: RuntimeError: no target", create_engine, "machines:noisy", "")
