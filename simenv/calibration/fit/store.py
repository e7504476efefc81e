"""HDF5 files of fits: components, their values by date window, intervals, and scores."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit.calibrate import FittedDevice
from simenv.result_files import writer

FORMAT = 1


def save(path: Path, fitted: FittedDevice) -> None:
    """Write a fit by rename. Datasets: `values` [components] (logarithms of factors, radians),
    `unknowns` [columns] (standard normal by the prior), `low` and `high` [columns]; with windows,
    `window_begin_s` [windows] and `window_unknowns` [windows, columns]. All belong to the fit; the
    device is `share` of the way to it. Names are JSON in the attributes.

    Raises StoreError.
    """
    arrays: dict[str, NDArray[np.float64]] = {
        "values": fitted.values,
        "unknowns": fitted.latent,
        "low": fitted.interval[0],
        "high": fitted.interval[1],
    }
    if fitted.windows:
        arrays["window_begin_s"] = np.array([window.begin_s for window in fitted.windows])
        arrays["window_unknowns"] = np.array([window.latent for window in fitted.windows])
    attributes: dict[str, str | int | float] = {
        "format": FORMAT,
        "kind": "simenv-fit",
        "device": fitted.snapshot.name,
        "base": fitted.base,
        "prior": fitted.prior.text,
        "share": fitted.share,
        "snapshot": fitted.snapshot.digest.hex(),
        "source": fitted.snapshot.source_digest,
        "components": msgspec.json.encode(fitted.components).decode(),
        "columns": msgspec.json.encode(fitted.columns).decode(),
        "scores": msgspec.json.encode(fitted.scores).decode(),
        "held_out": msgspec.json.encode(fitted.held_out).decode(),
        "scope": msgspec.json.encode(fitted.scope).decode(),
        "left_out": msgspec.json.encode(fitted.observed.left_out).decode(),
    }
    entries = {name: np.ascontiguousarray(array, "<f8") for name, array in arrays.items()}
    writer.write(path, entries, attributes)
