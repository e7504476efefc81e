"""Code cells of a tutorial of Pulser's repository, run with the backends of this project.

    PYTHON pulser_tutorial.py NOTEBOOK

The names of other distributions that a tutorial imports its backends and its connection from have
ours. Other code is the tutorial's own. Cells that use objects of QuTiP are left out. Between cells
the tasks of the environment end, for which a reader would wait.

Prints {"cells", "failed", "seconds"}.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "Agg"
QUTIP = ("to_qobj", "qutip.")
MACHINES = ("FRESNEL_CAN1", "FRESNEL")  # of Pasqal's cloud, in whose place is a device of pulser
SEED = 3


def main(notebook: Path) -> None:
    """Run the cells of a notebook."""
    import matplotlib.pyplot as plt

    import simenv
    from simenv.frontends import pulser as ours

    warnings.simplefilter("ignore")
    module: Any = types.ModuleType("pulser_simulation")
    module.QutipBackendV2, module.QutipConfig = ours.SimenvEmulator, ours.SimenvConfig
    cloud: Any = types.ModuleType("pasqal_cloud")
    cloud.PasqalCloudConnection = lambda **_: ours.SimenvConnection(seed=SEED)
    cloud.RemoteEmuFreeBackend = cloud.RemoteMPSBackend = ours.RemoteSimenvEmulator
    sys.modules.update(pulser_simulation=module, pasqal_cloud=cloud)
    names: dict[str, Any] = dict.fromkeys(("USERNAME", "PROJECT_ID", "PASSWORD"), "")
    names["__name__"] = "__main__"
    count, failed = 0, []
    begin = time.perf_counter()
    cells = json.loads(notebook.read_text())["cells"]
    for source in ("".join(each["source"]) for each in cells if each["cell_type"] == "code"):
        if any(word in source for word in QUTIP):
            continue
        for name in MACHINES:
            source = source.replace(name, "AnalogDevice")
        lines = (line for line in source.splitlines() if not line.startswith(("%", "!")))
        count += 1
        try:
            exec(compile("\n".join(lines), f"cell {count}", "exec"), names)
        except Exception as error:  # noqa: BLE001 - of any code
            failed.append(f"cell {count}: {type(error).__name__}: {error}"[:300])
        plt.close("all")
        with simenv.connect() as client:
            while client.queue()[0]:
                time.sleep(0.02)
    seconds = time.perf_counter() - begin
    print(json.dumps({"cells": count, "failed": failed, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
