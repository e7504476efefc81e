"""Private environments of this machine, which end with this process.

Invariant: importing this module loads no transport, because the service is started first.
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
from simenv.client import launch
from simenv.client.tasks.progress import StartLine
from simenv.config import Config, EnvironmentPaths
from simenv.errors import ConfigError
from simenv.model import PoolSpec

if TYPE_CHECKING:
    from simenv.client.client import Client


def local(workers: int = 2, slots: int | None = None, **settings: Any) -> Client:
    """Start a private environment and return its client.

    The environment ends with the client: at the end of a `with` block, with `close()`, when nothing
    refers to the client and its tasks any longer, and in any case with this process. A notebook
    keeps it over several cells: `client = simenv.local()`. If this process is killed, the service
    removes the environment's files.

    A start that takes longer than a second shows its progress on stderr, if that is a terminal or a
    notebook's stream.

    `workers`: resident simulators; `slots`: cores that they share, by default all cores available
    to this process; `settings`: fields of `simenv.config.Config`, such as `launcher="mpirun"`,
    `memory_per_slot="512MiB"`, `hosts="node1:2,node2:2"` (default: this machine, also inside an
    allocation). The default of durability is "process", because the files are removed at the end
    anyway. Raises ConfigError, StartFailedError.
    """
    try:
        workers = operator.index(workers)
    except TypeError as error:
        hint = "a whole number"
        raise ConfigError(f"simenv.local: workers={workers!r:.80}", hint=hint) from error
    pool = PoolSpec(min=workers, max=max(1, workers))
    args: dict[str, Any] = {"name": "local", "durability": "process", "pools": (pool,)}
    args |= {"slots": slots or 0, "import_from": config.import_folders()}
    chosen = config.convert({**args, **settings}, source="simenv.local")
    chosen, paths, built = _private(chosen)
    try:
        with StartLine(sys.stderr) as line:
            report = line.report if line.visible else None
            process = launch.start(
                *(chosen, paths), private=True, meanwhile=_load, progress=report, temporary=built
            )
    except BaseException:  # also an interrupt: no folder stays behind
        for folder in built:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    from simenv.client.environments import LocalClient, PrivateService

    service = PrivateService(process, paths.connection, built)
    try:
        return LocalClient(service)
    except BaseException:  # also an interrupt: no service stays behind
        service.end()
        raise


def _private(chosen: Config) -> tuple[Config, EnvironmentPaths, list[Path]]:
    """Return the configuration and paths of a private environment, and the folders to remove at its
    end. With other nodes the home is in SIMENV_HOME, which they can see, and the journal on a local
    disk."""
    has_other_nodes = bool(chosen.hosts or chosen.hostfile)
    base = files.private_folder(config.home_root()) if has_other_nodes else None
    built = [Path(tempfile.mkdtemp(prefix="simenv-local-", dir=base))]
    if has_other_nodes and not chosen.state_dir:
        built.append(Path(tempfile.mkdtemp(prefix="simenv-local-")))
        chosen = msgspec.structs.replace(chosen, state_dir=str(built[-1]))
    state = Path(chosen.state_dir).absolute() if chosen.state_dir else built[0]
    return chosen, EnvironmentPaths(built[0], state), built


def _load() -> None:
    """Import the client while the service starts; the import takes time."""
    from simenv.client import environments  # noqa: F401
