"""ppvae with compile="never"."""

from peers import ours
from peers.ours import passes, versions

ours.COMPILE = "never"
__all__ = ["passes", "versions"]
