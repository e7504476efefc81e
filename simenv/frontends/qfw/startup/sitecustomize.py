"""Lock around DEFw's sending, in each Python process of an active QFw.

`simenv qfw install` puts this folder on PYTHONPATH in QFw's activation, and Python imports
`sitecustomize` at its start. When a process loads the module of DEFw that sends, it gets the lock
(`simenv.frontends.qfw.defw.install`); other processes import nothing of simenv. Python imports one
`sitecustomize` only, so that this one runs the next on `sys.path`. Invariant: no process fails to
start because of this file.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

SENDING = "defw_workers"
FOLDER = Path(__file__).resolve().parent


class SendLockFinder(MetaPathFinder):
    """Finder of SENDING, whose import ends with the installation of the lock."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != SENDING:
            return None
        others = (each for each in sys.meta_path if each is not self)
        specs = (each.find_spec(fullname, path, target) for each in others)
        spec = next((each for each in specs if each is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def executed(module: ModuleType) -> None:
                execute(module)
                _install()

            spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


def _install() -> None:
    try:
        from simenv.frontends.qfw import defw

        defw.install()
    except Exception as error:  # noqa: BLE001 - DEFw works without it, though it may hang
        sys.stderr.write(f"simenv: DEFw sends without a lock: {error!r}\n")


def _run_next() -> None:
    """Run the `sitecustomize` that this one hides."""
    paths = [each for each in sys.path if Path(each).resolve() != FOLDER]
    spec = PathFinder.find_spec(__name__, paths)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


sys.meta_path.insert(0, SendLockFinder())
_run_next()
