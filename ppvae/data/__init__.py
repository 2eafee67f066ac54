"""What was observed, and from where."""

from ppvae.data.datasets import Dataset, load_dataset

__all__ = ["Dataset", "load_dataset"]
