"""What was observed, and from where."""

from ppvae.data.datasets import Dataset, load

__all__ = ["Dataset", "load"]
