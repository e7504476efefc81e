"""States of a walk: a canonical chain with its waiting gates."""

from __future__ import annotations

from simulators.chain.product_state import MatrixProductState, truncation_of
from simulators.tensornetwork.mps.canonical_chain import CanonicalChain
from simulators.tensornetwork.mps.gate_fusion import GateFusion


class ChainNode:
    """State with its waiting gates; a copy shares the immutable tensors."""

    def __init__(self, chain: CanonicalChain, fusion: GateFusion | None = None) -> None:
        self.chain = chain
        self.fusion = GateFusion(chain.apply) if fusion is None else fusion.copy(chain.apply)

    def copy(self) -> ChainNode:
        """Independent copy."""
        return ChainNode(self.chain.copy(), self.fusion)

    def state(self) -> MatrixProductState:
        """State with all gates; converts the node's own chain to its canonical form."""
        self.fusion.flush()
        chain = self.chain
        chain.move_center(0)
        return MatrixProductState(tuple(chain.tensors), chain.sites, truncation_of(chain.fidelity))
