"""Certificate of a device: all experiments as tasks of an environment, compared with claims."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.certify.claims import Claims
from simenv.calibration.certify.compare import (
    DEAD_ERROR,
    LONGEST_US,
    UNCLAIMED,
    ClaimComparison,
    ClaimVerdict,
    compare,
)
from simenv.calibration.experiments.estimators.analysis import NS_PER_US
from simenv.calibration.experiments.estimators.estimates import Estimate
from simenv.calibration.experiments.native import native_set
from simenv.calibration.experiments.procedure import (
    ExperimentResults,
    ExperimentShots,
    Procedure,
    choose,
)
from simenv.calibration.experiments.runner import PoolRunner
from simenv.errors import OptionError
from simenv.model.devices import DeviceInfo, DeviceKind

if TYPE_CHECKING:
    from simenv.client.client import Client

CONFIDENCE = 0.99


class Certificate(msgspec.Struct, frozen=True):
    """Result of all experiments on one device."""

    device: str
    claims: str  # digest of the snapshot whose claims were compared; "": none
    confidence: float
    comparisons: tuple[ClaimComparison, ...]
    circuits: int
    shots: int
    seconds: float
    measured: ExperimentResults
    device_s: float = 0.0  # time on the device; 0.0: unknown

    @property
    def culprits(self) -> list[ClaimComparison]:
        """Quantities outside their bounds, the farthest first."""
        results = [each for each in self.comparisons if each.verdict is ClaimVerdict.OUTSIDE]
        return sorted(results, key=lambda each: -abs(each.relative_deviation))

    @property
    def contradicted(self) -> list[ClaimComparison]:
        """Gate errors below the limit by the snapshot's own T1 and T2 that the counts exclude: the
        limit was compared in their place."""
        return [each for each in self.comparisons if each.contradicts_stated]

    @property
    def unresolved(self) -> list[ClaimComparison]:
        """Quantities whose intervals are wider than their bounds."""
        return [each for each in self.comparisons if each.verdict is ClaimVerdict.UNRESOLVED]

    @property
    def unclaimed(self) -> list[ClaimComparison]:
        """Quantities that a snapshot can claim and this one does not."""
        return [
            each
            for each in self.comparisons
            if each.claimed is None and each.quantity not in UNCLAIMED
        ]

    @property
    def passed(self) -> bool:
        """True if each claim was confirmed."""
        return not self.culprits and not self.unresolved


def device_under_test(client: Client, name: str) -> tuple[DeviceInfo, dict[str, Any]]:
    """Device or pool of a name, and the options of a submit that run circuits on it verbatim.

    Raises NotFoundError, and OptionError for a pool without a device.
    """
    pool = client.devices().get(name)
    if pool is None or pool.problem:
        return client.device(name), {"device": name, "compile": "never"}
    if pool.kind is DeviceKind.HARDWARE:
        return pool, {"pool": name}
    if pool.kind is DeviceKind.EMULATED:
        return pool, {"pool": name, "compile": "never"}
    raise OptionError(
        f"pool {name!r} is an ideal simulator", hint="name a device: simenv devices lists them"
    )


def certify(
    client: Client,
    name: str,
    claims: CalibrationSnapshot | None,
    *,
    qubits: Sequence[int] | None = None,
    seed: int = 0,
    effort: ExperimentShots | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """Measure a device and compare it with the claims; None: no comparison.

    Raises NotFoundError, OptionError, InfeasibleError, and SimenvError of failed tasks.
    """
    begun = time.perf_counter()
    effort = effort or ExperimentShots()
    info, where = device_under_test(client, name)
    tested = choose(info, qubits)
    runner = PoolRunner(client, where, info.max_shots, seed)
    procedure = Procedure(info, tested, runner, seed, effort, progress)
    measured = procedure.run()
    comparisons = compared(info, measured, claims, effort.longest_delay_ns / NS_PER_US)
    return Certificate(
        name, "" if claims is None else claims.digest.hex(), CONFIDENCE, tuple(comparisons),
        runner.circuits, runner.shots, time.perf_counter() - begun, measured, runner.device_s,
    )  # fmt: skip


def compared(
    info: DeviceInfo,
    measured: ExperimentResults,
    claims: CalibrationSnapshot | None,
    longest_us: float = LONGEST_US,
) -> list[ClaimComparison]:
    """Compare all estimates with the claims, gates that do not work included."""
    estimates = [*measured.estimates, *(_dead(info, place) for place in measured.dead)]
    if claims is None:
        return compare(estimates, lambda _: None, CONFIDENCE, longest_us)
    stated_claims = Claims(claims, _half_turn(info))
    result = compare(estimates, stated_claims.value, CONFIDENCE, longest_us)
    return [
        msgspec.structs.replace(each, stated=stated_claims.stated(estimate))
        for each, estimate in zip(result, estimates, strict=True)
    ]


def _half_turn(info: DeviceInfo) -> tuple[str, ...]:
    """Names of the gates of a half turn."""
    gates = native_set(info)
    return (gates.half.name,) if gates.half else (gates.quarter.name,) * 2


def _dead(info: DeviceInfo, place: tuple[int, ...]) -> Estimate:
    gates = native_set(info)
    pair = len(place) == 2 and gates.entangler is not None
    name = gates.entangler.name if pair and gates.entangler else gates.quarter.name
    quantity = "error_2q" if pair else "error_1q"
    return Estimate(quantity, place, max(1.0, DEAD_ERROR), 0.0, gate=name)
