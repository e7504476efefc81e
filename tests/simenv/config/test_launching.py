"""What launchers are told: nodes, agents, sizes; which word wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from simenv import config
from simenv.errors import ConfigError

NAME = "kept"


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ("512MiB", 2**29), ("512M", 2**29), ("2 GB", 2**31), ("1.5g", 3 * 2**29), ("4096", 4096),
        ("64KiB", 2**16), ("1T", 2**40), (12, 12), (0, 0),
    ],
)  # fmt: skip
def test_sizes_with_units_are_read_in_bytes(told: object, count: int) -> None:
    assert config.size(told, "x") == count


@pytest.mark.parametrize(
    "told", ["", "MiB", "-1", "1e9", "12 parsecs", "5 5", "9999999T", -1, True, 0.5, None]
)
def test_invalid_size_is_refused(told: object) -> None:
    with pytest.raises(ConfigError, match="x = "):
        config.size(told, "x")


def test_sizes_with_units_are_read_from_config_file(tmp_path: Path) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text('memory_per_slot = "512MiB"\nmemory_bytes = "3GiB"\n')
    document = config.load({"name": NAME}, file, {"SIMENV_HOME": str(tmp_path)})
    assert (document.memory_per_slot, document.memory_bytes) == (2**29, 3 * 2**30)


@pytest.mark.parametrize(
    ("values", "said", "hint"),
    [
        ({"launcher": "prt"}, "launcher 'prt' is not known", "did you mean `prte`?"),
        ({"launcher": {"use": "slurm"}}, "launcher 'slurm'", "known: auto, prte, mpirun, local"),
        ({"launcher": {"nodes_per_dvm": -1}}, "nodes_per_dvm = -1 is outside", ""),
        ({"launcher": {"agent": "a\nb"}}, r"launcher.agent = 'a\\nb' is not one line", ""),
        ({"launcher": {"agnt": "x"}}, "agnt", ""),
        ({"hosts": "a:2", "hostfile": "/h"}, "hosts cannot be combined with hostfile", ""),
        ({"hosts": "a:2;b"}, "hosts = 'a:2;b' is not a list", "node1:2,node2:2"),
        ({"hosts": "-o:2"}, "hosts = '-o:2' is not a list", ""),
        ({"memory_per_slot": 1}, "memory_per_slot = 1 is less", "a size such as 512MiB"),
        ({"memory_per_slot": "lots"}, "memory_per_slot = 'lots' is not a size", ""),
    ],
)
def test_invalid_launch_settings_are_refused_with_hint(
    values: dict[str, object], said: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        config.convert(values)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize("hosts", ["a", "node1:2,node2:2", "gpu[07-08,11]:4,login.site", "_x:1"])
def test_valid_host_lists_are_accepted(hosts: str) -> None:
    assert config.convert({"hosts": hosts}).hosts == hosts


def test_launcher_option_keeps_other_launcher_settings_of_config_file(tmp_path: Path) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text('hosts = "a:1"\n[launcher]\nuse = "prte"\nnodes_per_dvm = 4\n')
    environ = {"SIMENV_HOME": str(tmp_path)}
    document = config.load({"name": NAME, "launcher": "mpirun"}, file, environ)
    assert document.launcher == config.Launching("mpirun", nodes_per_dvm=4)


def test_hosts_of_last_start_are_used_unless_hosts_or_hostfile_are_given(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    config.write(config.Config(name=NAME, hosts="a:2,b:2"), folder / "config.json")
    (folder / "journal.db").touch()
    environ = {"SIMENV_HOME": str(tmp_path)}
    assert config.load({"name": NAME}, environ=environ).hosts == "a:2,b:2"
    document = config.load({"name": NAME, "hostfile": "/h"}, environ=environ)
    assert (document.hosts, document.hostfile) == ("", "/h")
    assert config.load({"name": NAME, "hosts": ""}, environ=environ).hosts == ""


def test_relative_hostfile_is_resolved_from_config_file_or_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    file = tmp_path / "site" / "simenv.toml"
    file.write_text('hostfile = "hosts"\n')
    monkeypatch.chdir(tmp_path)
    environ = {"SIMENV_HOME": str(tmp_path)}
    assert config.load({"name": NAME}, file, environ).hostfile == str(tmp_path / "site" / "hosts")
    table = {"name": NAME, "hostfile": Path("mine")}
    assert config.load(table, environ=environ).hostfile == str(tmp_path / "mine")


def test_launch_agent_of_environment_variable_overrides_config_file() -> None:
    settings = config.convert({"launcher": {"agent": "/file"}})
    assert config.launch_agent(settings, {}) == "/file"
    assert config.launch_agent(settings, {"SIMENV_LAUNCH_AGENT": "/here"}) == "/here"
    assert config.launch_agent(config.Config(), {}) == ""
