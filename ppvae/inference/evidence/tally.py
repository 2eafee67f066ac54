"""The figures of a datum's log-weights, block by block: nothing is kept but sums and the largest."""

import math

import torch
from torch import Tensor

from ppvae.inference.evidence.tail import SMALLEST, tail_of, tail_size
from ppvae.inference.program.weights import delta_method


class Tally:
    """Running reductions of log-weights: `add` blocks, `(particles, batch)` nats, then ask for `figures`.

    Memory grows with the square root of the particles: k-hat is of the largest alone.

    Args:
        particles: how many there will be in all, K.
    """

    def __init__(self, particles: int):
        self.particles, self.count = particles, 0
        self.kept = tail_size(particles) + 1 if tail_size(particles) >= SMALLEST else 1

    def add(self, log_w: Tensor) -> "Tally":
        log_w = log_w.double()
        total, squares = log_w.logsumexp(0), (2 * log_w).logsumexp(0)
        largest = log_w.topk(min(self.kept, len(log_w)), dim=0).values
        smallest = log_w.min(0).values
        if not self.count:
            self.centre = log_w.mean(0).nan_to_num(0.0, 0.0, 0.0)  # of what is added up, so that no digits are lost
            self.first = self.second = torch.zeros_like(self.centre)
            self.total, self.squares, self.largest, self.smallest = total, squares, largest, smallest
        else:
            self.total, self.squares = self.total.logaddexp(total), self.squares.logaddexp(squares)
            both = torch.cat([self.largest, largest])
            self.largest = both.topk(min(self.kept, len(both)), dim=0).values
            self.smallest = torch.minimum(self.smallest, smallest)
        off = log_w - self.centre
        self.first, self.second = self.first + off.sum(0), self.second + off.square().sum(0)
        self.count += len(log_w)
        return self

    def figures(self) -> Tensor:
        """In the order of `evidence.COLUMNS`: `(7, batch)`."""
        if self.count != self.particles:
            raise ValueError(f"a tally of {self.particles} particles has been given {self.count}")
        count = torch.full_like(self.total, self.count)
        ess = self.effective_sample_size()
        return torch.stack([self.log_mean_exp(), self.standard_error(), ess, self.pareto_k(), *self.elbo(), count])

    def log_mean_exp(self) -> Tensor:
        return self.total - math.log(self.count)

    def effective_sample_size(self) -> Tensor:
        return torch.exp(2 * self.total - self.squares)

    def standard_error(self) -> Tensor:
        """Of `log_mean_exp`."""
        return delta_method(self.count, self.effective_sample_size())

    def pareto_k(self) -> Tensor:
        return tail_of(self.largest, self.smallest, self.count).k

    def elbo(self) -> tuple[Tensor, Tensor]:
        """The mean and its standard error."""
        mean = self.centre + self.first / self.count
        if self.count == 1:
            return mean, torch.full_like(mean, torch.inf)
        spread = (self.second - self.first.square() / self.count).clamp_min(0) / (self.count - 1)
        return mean, (spread / self.count).sqrt()


def reduce(log_w: Tensor) -> Tensor:
    """Log-weights, `(particles, batch)`, to their figures in the order of `evidence.COLUMNS`: `(7, batch)`."""
    return Tally(len(log_w)).add(log_w).figures()
