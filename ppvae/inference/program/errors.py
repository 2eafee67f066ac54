"""What a program cannot be asked for."""


class NoDensity(ValueError):
    """There is no evidence to estimate: the guide is a point mass, or the prior integrates to no number."""
