"""Pools as people write them, on a command line and in a file: the same words, one set of rules."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from simenv import config
from simenv.errors import ConfigError
from simenv.model import PoolSpec

WHOLE = PoolSpec("sv", "statevector", 4, 4, 90.0, 8, 2 * 2**30, "gpu*,node7")


def test_workers_auto_is_resolved_once_the_nodes_are_known() -> None:
    result = config.pool_text("g:engine=gpu,workers=auto")
    assert result == PoolSpec("g", "gpu", auto_workers=True)


def test_pool_option_sets_all_fields() -> None:
    text = "sv:engine=statevector,workers=4,ranks=8,memory=2GiB,idle_s=90,nodes=gpu*+node7"
    assert config.pool_text(text) == WHOLE


@pytest.mark.parametrize("nodes", ["gpu*+node7", "gpu*,node7", ["gpu*", "node7"]])
def test_pool_table_in_config_file_equals_pool_option(nodes: object) -> None:
    table = {
        "name": "sv", "engine": "statevector", "workers": 4, "ranks": 8, "memory": "2GiB",
        "idle_s": 90, "nodes": nodes,
    }  # fmt: skip
    assert config.convert({"pools": [table]}).pools == (WHOLE,)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("a", 1, 1),
        ("a:workers=3", 3, 3),
        ("a:workers=0", 0, 1),
        ("a:min=2", 2, 2),
        ("a:max=5", 1, 5),
        ("a:min=0,max=5", 0, 5),
    ],
)
def test_workers_min_and_max_set_pool_size(text: str, least: int, most: int) -> None:
    spec = config.pool_text(text)
    assert (spec.min, spec.max) == (least, most)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:workrs=2", "unknown key 'workrs'"),
        ("a:workers", "'workers' is not understood"),
        ("a:name=b", "'name=b' is not understood"),
        ("a:ranks=2,ranks=4", "ranks is given twice"),
        ("a:device=", "device is empty"),
        ("a:workers=2,max=4", "workers cannot be combined with min or max"),
        ("a:workers=two", "Expected `int`"),
        ("a:min=3,max=2", "min=3, max=2"),
        ("a:workers=1025", "max=1025"),
        ("a:ranks=0", r"ranks = 0 is outside 1 \.\. 4096"),
        ("a:ranks=4097", "ranks = 4097 is outside"),
        ("a:memory=much", "memory = 'much' is not a size"),
        ("a:idle_s=-1", "idle_s = -1"),
        ("a:idle_s=nan", "idle_s = nan"),
        ("a:nodes=gpu[07-08]", r"nodes = 'gpu\[07-08\]' is not"),
        ("a:nodes=-x", "nodes = '-x' is not"),
        ("A:workers=1", "pool name 'A' is not allowed"),
        ("main.x2:workers=1", "pool 'main.x2' has a name of the form that gangs have"),
    ],
)
def test_invalid_pool_option_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.pool_text(text)


def test_misspelt_pool_key_is_refused_with_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        config.convert({"pools": [{"name": "a", "rank": 2}]}, "simenv.toml")
    assert caught.value.message == "simenv.toml: pools[0]: unknown key 'rank'"
    assert caught.value.hint == "did you mean `ranks`?"


def test_hardware_pool_has_provider_and_one_worker() -> None:
    spec = config.pool_text("qpu:engine=hardware,provider=lab.fridge:one")
    assert spec == PoolSpec("qpu", "hardware", 1, 1, provider="lab.fridge:one")
    assert config.pool_text("qpu:engine=hardware,provider=a:b,workers=1,ranks=1").max == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q:engine=hardware", "no provider"),
        ("q:provider=a:b", "engine=any with a provider"),
        ("q:engine=aer,provider=a:b", "engine=aer with a provider"),
        ("q:engine=hardware,provider=a", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=a:b:c", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=a.:b", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=a:b()", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=../a:b", "no MODULE:FACTORY"),
        ("q:engine=hardware,provider=a:b,workers=2", "2 to 2 workers of 1 ranks"),
        ("q:engine=hardware,provider=a:b,workers=0", "0 to 1 workers"),
        ("q:engine=hardware,provider=a:b,ranks=2", "workers of 2 ranks"),
    ],
)
def test_invalid_hardware_pool_option_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.pool_text(text)


def test_import_path_of_first_start_is_used_by_next_start(tmp_path: Path) -> None:
    environ = {"SIMENV_HOME": str(tmp_path), "PYTHONPATH": f"/opt/lab{os.pathsep}lib"}
    document = config.load({"name": "e", "pools": [PoolSpec("main")]}, environ=environ)
    assert document.import_from == (os.getcwd(), "/opt/lab", os.path.abspath("lib"))
    folder = tmp_path / "e"
    folder.mkdir()
    config.write(msgspec.structs.replace(document, import_from=("/there",)), folder / "config.json")
    (folder / "journal.db").touch()
    assert config.load({"name": "e"}, environ=environ).import_from == ("/there",)
