"""The same loop without `torch.compile`, with Adam as it comes."""

from peers import by_hand
from peers.by_hand import passes, versions

by_hand.COMPILE = by_hand.FUSED = False
__all__ = ["passes", "versions"]
