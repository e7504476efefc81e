"""Send lock for applications that drive a fast QPM through DEFw: `import
simenv.frontends.qfw.client`.

The import puts a lock around DEFw's sending in this process; without it an application hangs sooner
or later, whatever the service does. If DEFw is not up yet, call `install` once it is.
"""

from __future__ import annotations

from simenv.frontends.qfw.defw import install

__all__ = ["install"]

install()
