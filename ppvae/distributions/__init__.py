"""Distributions that neither Pyro nor PyTorch has. Import each from its own file."""
