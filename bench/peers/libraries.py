"""The variants of the libraries that run circuits of gates."""

from __future__ import annotations

from bench.peers.aer import Aer
from bench.peers.lightning import Lightning
from bench.peers.process import Variant
from bench.peers.qsim import Qsim
from bench.peers.qulacs import Qulacs

PRECISIONS = (("f64", "double"), ("f32", "single"))
LIBRARIES = (
    Variant("aer f64", Aer),
    Variant("aer f64 1 thread", Aer, threads=1),
    Variant("qulacs f64", Qulacs, (0,)),
    Variant("qulacs f64 1 thread", Qulacs, (0,), 1),
    Variant("qulacs f64 light", Qulacs, (1,)),
    *(Variant(f"qulacs f64 fused {width}", Qulacs, (width,)) for width in (2, 3, 4)),
    *(Variant(f"lightning {bits}", Lightning, (name,)) for bits, name in PRECISIONS),
    *(Variant(f"qsim f32 fused {width}", Qsim, (width,)) for width in (2, 3, 4)),
    *(Variant(f"qsim f32 fused {width}, 1 thread", Qsim, (width,), 1) for width in (3, 4)),
)
