"""Licences that simenv_job_submit.lua refuses, run by the library of Lua as slurmctld does."""

import ctypes
import ctypes.util
import json
from pathlib import Path

import pytest

from simenv.frontends import slurm

# Prints the answer of the filter for each option that names licences.
CHUNK = """
slurm = {{ SUCCESS = 0, ERROR = -1, log_user = function() end, log_info = function() end }}
dofile({path})
local job = {{ [{field}] = {value} }}
local answers = {{ simenv_job_submit(job), simenv_job_modify(job, {{ licenses = "other:1" }}) }}
return table.concat(answers, " ")
"""


def evaluated(chunk: str) -> str:
    """Return the string that a chunk of Lua returns."""
    found = (
        path
        for version in ("5.4", "5.3", "5.2", "5.1")
        for path in (ctypes.util.find_library(f"lua{version}"), f"liblua{version}.so.0")
        if path
    )
    for path in found:
        try:
            lua = ctypes.CDLL(path)
            break
        except OSError:
            continue
    else:
        pytest.skip("needs liblua")
    lua.luaL_newstate.restype = ctypes.c_void_p
    lua.lua_tolstring.restype = ctypes.c_char_p
    state = ctypes.c_void_p(lua.luaL_newstate())
    lua.luaL_openlibs(state)
    failed = lua.luaL_loadstring(state, chunk.encode())
    if not failed:
        called = getattr(lua, "lua_pcall", None)
        if called:
            failed = called(state, 0, 1, 0)
        else:
            failed = lua.lua_pcallk(state, 0, 1, 0, ctypes.c_ssize_t(0), None)
    text = lua.lua_tolstring(state, -1, None).decode()
    lua.lua_close(state)
    assert not failed, text
    return str(text)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / slurm.LICENSES).parent.mkdir()
    (folder / slurm.SUBMIT).write_text((slurm.HERE / "spank" / slurm.SUBMIT).read_text())
    return folder


def is_refused(conf: Path, wanted: str, field: str = "licenses") -> bool:
    """Return whether licences are refused, which is the same for a new job and a changed one."""
    words = {"path": str(conf / slurm.SUBMIT), "field": field, "value": wanted}
    chunk = CHUNK.format(**{name: json.dumps(word) for name, word in words.items()})
    new, changed = evaluated(chunk).split()
    assert new == changed
    return new != "0"


def test_before_the_first_sync_no_licence_of_the_file_is_given(conf: Path) -> None:
    assert not is_refused(conf, "fez:2"), "there is no file"
    path = conf / slurm.LICENSES
    path.write_text("# simenv: written by `simenv slurm sync`\n LICENSES = fez:2,Wide_e.x-1:12;m\n")
    for name in ("fez", "fez:1", "other:1,Wide_e.x-1:2", "m"):
        assert is_refused(conf, name)
    assert is_refused(conf, "license/fez=1", "tres_per_job")
    for name in ("other:2", "2", "12"):
        assert not is_refused(conf, name)


def test_after_it_those_of_pools_alone_are_refused(conf: Path) -> None:
    path = conf / slurm.LICENSES
    path.write_text("# simenv pools: fez\nLicenses=matlab:5,fez:2\n")
    assert is_refused(conf, "fez:1")
    assert not is_refused(conf, "matlab:1")
    path.write_text("# simenv pools: \nLicenses=matlab:5\n")
    assert not is_refused(conf, "matlab:1")
