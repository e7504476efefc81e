"""The environment's own user on another machine that sees her home: the connection file suffices.

The other machine is this one under another name: a copy of the file says that the service runs
elsewhere, and names a folder of sockets that is not there.
"""

from collections.abc import Iterator
from pathlib import Path

import live
import msgspec
import numpy as np
import pytest

import simenv
from simenv.client import environments
from simenv.config import ConnectionFile, OwnerEndpoint
from simenv.errors import KeyRefusedError, NoServiceError
from simenv.wire.keyfiles import new_pair

BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '
WIDE = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[17]; h q; t q; h q;'


@pytest.fixture
def environment() -> Iterator[live.Live]:
    with live.environment(listen="tcp://127.0.0.1:0") as up:
        yield up


def seen_elsewhere(environment: live.Live, folder: Path, **changes: object) -> Path:
    """The connection file as another machine reads it."""
    path = folder / "connection.json"
    result = environments.read(environment.home / "connection.json")
    changed = msgspec.structs.replace(result, node="elsewhere", sockets="/nowhere", **changes)
    path.touch(0o600)
    path.write_bytes(msgspec.json.encode(changed))
    return path


@pytest.mark.usefixtures("no_leaks")
def test_owner_on_other_machine_connects_with_connection_file_and_has_all_rights(
    environment: live.Live, tmp_path: Path
) -> None:
    """She may do everything, and sees what she submitted on the service's machine."""
    outcome = seen_elsewhere(environment, tmp_path)
    with environment.client() as result, simenv.connect(service=outcome) as far:
        task = result.submit(BELL + "measure q->c;", seed=5)
        assert far.task(task.id).result().counts == task.result().counts
        wide = far.run(WIDE, outputs=("statevector",), shots=None)  # travels as a file
        assert np.vdot(wide.statevector, wide.statevector).real == pytest.approx(1.0)
        assert far.keys.listed() == []
        assert far.scale("main", 1).least == 1
        assert [info.owner for info in far.tasks([task, wide.task])] == ["", ""]
        far.shutdown(now=True)
    environment.wait_dead(environments.read(outcome).pid)


def test_owner_elsewhere_continues_after_restart(environment: live.Live, tmp_path: Path) -> None:
    result = seen_elsewhere(environment, tmp_path)
    with simenv.connect(service=result) as far:
        first = far.run(BELL + "measure q->c;", seed=5)
        environments.down(environment.name)
        environment.up()
        assert far.run(BELL + "measure q->c;", seed=5).counts == first.counts


def test_stale_key_in_connection_file_is_refused(environment: live.Live, tmp_path: Path) -> None:
    own = environments.read(environment.home / "connection.json").own
    assert own is not None
    pair = new_pair()
    stale = OwnerEndpoint(own.address, own.server_key, pair.public, pair.secret)
    result = seen_elsewhere(environment, tmp_path, own=stale)
    with pytest.raises(KeyRefusedError, match="does not know the key in"):
        simenv.connect(service=result)


def test_connecting_from_other_machine_without_listener_is_refused(tmp_path: Path) -> None:
    with live.environment() as up:
        result = seen_elsewhere(up, tmp_path)
        assert msgspec.json.decode(result.read_bytes(), type=ConnectionFile).own is None
        with pytest.raises(NoServiceError, match="listens for no other machine"):
            simenv.connect(service=result)
