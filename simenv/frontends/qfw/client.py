"""For applications that drive any fast QPM through DEFw: `import simenv.frontends.qfw.client`.

Importing it puts a lock around DEFw's sending in this process; without one an application hangs
sooner or later, whatever the service does. Where DEFw is not up yet, call `install` once it is.
"""

from __future__ import annotations

from simenv.frontends.qfw.send_lock import install

__all__ = ["install"]

install()
