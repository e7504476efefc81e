"""Client modules of the six bindings of revision 2, made from simenv's own tables of methods.

The names and methods are those of the tables; a QFw of revision 2 brings its own modules.

stubs.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from simenv.qpm.contract import BINDINGS, QPMCapability
from simenv.qpm.methods import EXTENSIONS, REVISION2

HEAD = """from defw_remote import BaseRemote


class {name}(BaseRemote):
    def __init__(self, service_info=None, *args, **kwargs):
        super().__init__(service_info=service_info, *args, **kwargs)
"""
TAIL = """

svc_info = {{"name": "{name}", "module": __name__, "description": "{name}", "version": 1.0}}
service_classes = [{name}]


def initialize():
    pass


def uninitialize():
    pass
"""

folder = Path(sys.argv[1])
for binding in BINDINGS:
    methods = [
        f"\n    def {name}(self, *args, **kwargs):\n        pass\n"
        for table in (REVISION2, EXTENSIONS)
        for name in table.get(binding.binding_name, {})
    ]
    text = HEAD.format(name=binding.client_class) + "".join(methods)
    home = folder / binding.client_module
    home.mkdir()
    (home / "__init__.py").write_text(text + TAIL.format(name=binding.client_class))
common = folder / "api_qpm_common"
common.mkdir()
bits = "".join(f"    QPM_CAP_{flag.name} = {int(flag)}\n" for flag in QPMCapability)
(common / "__init__.py").write_text(
    "from enum import IntFlag\n\n\nclass QPMType(IntFlag):\n    QPM_TYPE_HARDWARE = 1\n"
    f"    QPM_TYPE_SIMULATOR = 2\n\n\nclass QPMCapability(IntFlag):\n{bits}"
)
