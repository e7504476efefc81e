"""Private environments of this machine, which end with us.

Invariant: importing this loads nothing that speaks to a service: it is started first.
"""

from __future__ import annotations

import operator
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv import config, files
from simenv.client.environments import launch
from simenv.client.tasks.progress import StartLine
from simenv.config import Config, EnvironmentPaths
from simenv.errors import ConfigError
from simenv.model import PoolSpec

if TYPE_CHECKING:
    from simenv.client.client import Client


def local(workers: int = 2, slots: int | None = None, **settings: Any) -> Client:
    """Start a private environment and return its client.

    The environment ends with the client: at the end of a `with` block, with `close()`, when nothing
    refers to the client and its tasks any longer, and with this process in any case. A notebook
    keeps it over several cells: `client = simenv.local()`.

    A start that takes longer than a second is reported on stderr where that is a terminal or a
    notebook's.

    `workers`: resident simulators; `slots`: cores they share, by default all that are ours;
    `settings`: fields of `simenv.config.Config`, such as `launcher="mpirun"`,
    `memory_per_slot="512MiB"`, `hosts="node1:2,node2:2"` (this machine where none are named, also
    inside an allocation). Without a say the durability is "process": what is gone at the end need
    not outlast a power cut. Raises ConfigError, StartFailedError.
    """
    try:
        workers = operator.index(workers)
    except TypeError as error:
        raise ConfigError(
            f"simenv.local: workers={workers!r:.80}", hint="a whole number"
        ) from error
    pool = PoolSpec(min=workers, max=max(1, workers))
    args: dict[str, Any] = {"name": "local", "durability": "process", "pools": (pool,)}
    args |= {"slots": slots or 0, "import_from": config.import_folders()}
    chosen = config.convert({**args, **settings}, source="simenv.local")
    chosen, where, built = _private(chosen)
    try:
        with StartLine(sys.stderr) as line:
            report = line.report if line.visible else None
            process = launch.start(chosen, where, private=True, meanwhile=_load, progress=report)
    except BaseException:
        for folder in built:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    from simenv.client.environments.local_client import LocalClient, PrivateService

    service = PrivateService(process, where.connection, built)
    try:
        return LocalClient(service)
    except BaseException:
        service.end()
        raise


def _private(chosen: Config) -> tuple[Config, EnvironmentPaths, list[Path]]:
    """A private environment's places, and the folders to remove at its end. With nodes of its own
    the home is where they see it, and the journal on a disk of this machine."""
    afar = bool(chosen.hosts or chosen.hostfile)
    base = files.private_folder(config.home_root()) if afar else None
    built = [Path(tempfile.mkdtemp(prefix="simenv-local-", dir=base))]
    if afar and not chosen.state_dir:
        built.append(Path(tempfile.mkdtemp(prefix="simenv-local-")))
        chosen = msgspec.structs.replace(chosen, state_dir=str(built[-1]))
    state = Path(chosen.state_dir).absolute() if chosen.state_dir else built[0]
    return chosen, EnvironmentPaths(built[0], state), built


def _load() -> None:
    """What takes a moment, and is needed when the service is there."""
    from simenv.client.environments import local_client  # noqa: F401
