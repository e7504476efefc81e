"""Start a worker: `python -P -m simenv.worker`; see `main`."""

from __future__ import annotations

import gc
import os
import sys

NICE = 19  # tasks of several ranks are long: on busy cores small tasks have precedence

if __name__ == "__main__":
    if "--ranks" in sys.argv[:-1] and sys.argv[sys.argv.index("--ranks") + 1] != "1":
        os.nice(NICE)  # before any module is loaded
    gc.disable()  # until all modules are loaded: they are never freed, and a collection takes 0.1 s
    from simenv.worker.main import main

    sys.exit(main())
