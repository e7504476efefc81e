"""Links of a device's modules: noise while their pairs are awaited, and times of bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot, Link
from noise_models.channel import Channel
from noise_models.link_waits import WaitPart
from noise_models.strict_json import NoiseError

Awaiting = Callable[[int, Sequence[WaitPart]], Channel | None]


class Network(msgspec.Struct, frozen=True, eq=False):
    """Modules and links of a device. Latencies are from the end of a measurement in one module to a
    gate in another one that depends on it: sums over the links of the shortest way, and not less
    than inside a module."""

    names: tuple[str, ...]  # of the modules
    module: tuple[int, ...]  # of each qubit
    links: tuple[Link, ...]
    between_ns: NDArray[np.float64]  # [modules, modules]; infinite: no links lead there
    # Mean of `NoiseModel.idle` of a qubit over the random time until the last of some waits ends;
    # None: no noise. Raises NoiseError for waits that have no closed form together.
    awaiting: Awaiting

    @property
    def is_random(self) -> bool:
        """True if pairs are awaited for times that differ from shot to shot."""
        return any(link.rate_hz for link in self.links)

    def latency_ns(self, origins: Iterable[int], places: Iterable[int]) -> float:
        """Return the time until bits of some modules are known in others, 0.0 if there are none.
        Raises NoiseError if no links join two of them."""
        longest = 0.0
        places = tuple(places)
        for origin in origins:
            for place in places:
                latency = float(self.between_ns[origin, place])
                if latency == np.inf:
                    text = f"a bit of module {self.names[origin]} is read in module"
                    text += f" {self.names[place]}, and no links join them"
                    raise NoiseError(text, hint="give a link between them")
                longest = max(longest, latency)
        return longest


def network(snapshot: CalibrationSnapshot, awaiting: Awaiting) -> Network | None:
    """Return the modules and links of a device; None: it has none."""
    if not snapshot.modules:
        return None
    size = len(snapshot.modules)
    home = {q: number for number, each in enumerate(snapshot.modules) for q in each.qubits}
    ways = np.full((size, size), np.inf)
    np.fill_diagonal(ways, 0.0)
    for link in snapshot.links:
        a, b = (home[qubit] for qubit in link.pair)
        ways[a, b] = ways[b, a] = min(ways[a, b], link.latency_ns)
    for middle in range(size):  # Floyd and Warshall
        np.minimum(ways, ways[:, middle, None] + ways[None, middle, :], out=ways)
    module = tuple(home[qubit] for qubit in range(snapshot.num_qubits))
    names = tuple(each.name for each in snapshot.modules)
    between_ns = np.maximum(ways, snapshot.feed_forward_ns)
    return Network(names, module, snapshot.links, between_ns, awaiting)
