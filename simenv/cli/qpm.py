"""`simenv qpm`: what concerns this pool, or anybody's plugin, as a QPM."""

from __future__ import annotations

import typer

from simenv.cli.cutover.command import diff
from simenv.cli.qpm_checking import check

qpm = typer.Typer(help="The pool as a QPM, and anybody's plugin: check, diff.")
qpm.command()(check)
qpm.command()(diff)
