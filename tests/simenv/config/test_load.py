"""Which word about an environment wins, and what is said of one that cannot be used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from simenv import config, files
from simenv.config import filesystems
from simenv.errors import ConfigError
from simenv.model import PoolSpec

NAME = "kept"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment that was up with settings of its own, and has a journal."""
    folder = tmp_path / NAME
    folder.mkdir()
    pool = PoolSpec(min=2, max=2)
    outcome = config.Config(name=NAME, durability="power", pools=(pool,), slots=3, faults="x:1")
    config.write(outcome, folder / "config.json")
    (folder / "journal.db").touch()
    return {"SIMENV_HOME": str(tmp_path)}


def test_settings_of_last_start_are_used_except_fault_injection(home: dict[str, str]) -> None:
    document = config.load({"name": NAME, "slots": 1}, environ=home)
    assert (document.durability, document.slots, document.pools[0].min) == ("power", 1, 2)
    assert document.faults == ""


def test_settings_of_last_start_without_journal_are_used_only_with_resume(
    home: dict[str, str],
) -> None:
    (Path(home["SIMENV_HOME"]) / NAME / "journal.db").unlink()
    assert config.load({"name": NAME}, environ=home).slots == 0
    assert config.load({"name": NAME, "resume": True}, environ=home).slots == 3


def test_named_config_file_replaces_settings_of_last_start(
    home: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "own.toml"
    file.write_text("silent_s = 3.0\n")
    document = config.load({"name": NAME}, file, home)
    assert (document.durability, document.slots, document.silent_s) == ("accepted", 0, 3.0)


@pytest.mark.parametrize(("age_s", "slots"), [(100, 3), (-100, 4)])
def test_simenv_toml_is_used_only_if_edited_since_last_start(
    home: dict[str, str], age_s: int, slots: int
) -> None:
    file = Path(home["SIMENV_HOME"]) / NAME / "simenv.toml"
    file.write_text("slots = 4\n")
    start_s = file.with_name("config.json").stat().st_mtime
    os.utime(file, (start_s - age_s, start_s - age_s))
    assert config.load({"name": NAME}, environ=home).slots == slots


def test_error_in_options_is_attributed_to_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^options: durability 'foo' is not known"):
        config.load({"durability": "foo"}, environ={"SIMENV_HOME": str(tmp_path)})


def test_home_folder_that_cannot_be_made_is_refused_with_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot make the folder") as caught:
        files.private_folder(tmp_path / "file" / "home")
    assert "SIMENV_HOME" in caught.value.hint


def test_retention_limits_are_read_from_config_file(tmp_path: Path) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text("[history]\nkeep_days = 7\n[results]\nkeep_gib = 2.5\n")
    document = config.load({"name": NAME}, file, {"SIMENV_HOME": str(tmp_path)})
    assert (document.history.keep_days, document.results.keep_gib) == (7.0, 2.5)
    assert (config.Config().history.keep_days, config.Config().results.keep_gib) == (30.0, 20.0)


@pytest.mark.parametrize(
    "values",
    [
        {"history": {"keep_days": -1.0}},
        {"results": {"keep_gib": 0.0}},
        {"history": {"keep_day": 3.0}},
        {"results": {"keep_gib": float("nan")}},
    ],
)
def test_invalid_retention_limit_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="keep_"):
        config.convert(values)


def test_journal_is_on_scratch_if_home_is_on_network_filesystem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(
        filesystems, "kind_of", lambda folder: "nfs4" if folder.is_relative_to(home) else "ext4"
    )
    environ = {"SIMENV_HOME": str(home), "SIMENV_SCRATCH": str(scratch)}
    where = config.places(config.Config(name=NAME), environ)
    assert where.home == home / NAME
    assert where.state.parent == scratch / f"simenv-{os.getuid()}"
    other = {**environ, "SIMENV_HOME": str(home / "other")}
    assert config.places(config.Config(name=NAME), other).state != where.state
    forced = config.Config(name=NAME, network_state=True)
    assert config.places(forced, environ).state == home / NAME
    named = config.Config(name=NAME, state_dir=str(tmp_path / "here"))
    assert config.places(named, environ).state == tmp_path / "here"


def test_simenv_service_is_path_or_name_of_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def named(value: str) -> Path | None:
        return config.service_file({"SIMENV_SERVICE": value, "SIMENV_HOME": "/home/x"})

    assert named("lab") == Path("/home/x/lab/connection.json")
    assert named("key.simenv") == tmp_path / "key.simenv"
    assert named("/a/lab") == Path("/a/lab")
    assert named("./lab") == tmp_path / "lab"
    (tmp_path / "lab").touch()
    assert named("lab") == tmp_path / "lab"
    assert named("") is None


@pytest.mark.parametrize("program", ["", "/opt/defw/bin/defwp"])
def test_executable_that_is_not_python_is_refused_unless_simenv_python_is_set(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.interpreter({}) == sys.executable
    monkeypatch.setattr(sys, "executable", program)
    assert config.interpreter({"SIMENV_PYTHON": "/usr/bin/p"}) == "/usr/bin/p"
    with pytest.raises(ConfigError, match="set SIMENV_PYTHON"):
        config.interpreter({})


def test_link_named_python_to_other_program_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "python3"
    link.symlink_to(tmp_path / "defwp")
    monkeypatch.setattr(sys, "executable", str(link))
    with pytest.raises(ConfigError, match="which is not Python"):
        config.interpreter({})


@pytest.mark.parametrize("value", ["1" + "0" * 5_000, "[" * 500 + "]" * 500], ids=["long", "deep"])
def test_file_that_python_cannot_parse_is_refused(tmp_path: Path, value: str) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text(f"[policies.main]\ncredits = {value}\n")
    with pytest.raises(ConfigError, match=r"simenv\.toml: "):
        config.load({}, file)
    with pytest.raises(ConfigError, match="not an address"):
        config.convert({"listen": f"tcp://localhost:{value}"})
