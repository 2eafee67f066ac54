"""KL warm-up: what beta is after so many epochs, and what has none to raise."""

from functools import partial

import pytest
import torch

from ppvae.inference import elbo, free_bits, iwae, mean_field_elbo
from ppvae.inference.objectives.warming import warmed
from ppvae.selfcheck.analytic import LinearGaussian


@pytest.mark.parametrize("objective", [elbo, mean_field_elbo, free_bits])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_beta_rises_in_a_line_to_its_value_and_stays_there(objective, beta):
    at = warmed(objective if beta == 1 else partial(objective, beta=beta), warm_up=4, epochs=10)
    gone = torch.tensor([0.0, 0.5, 1.0, 3.0, 4.0, 4.5, 10.0])
    found = torch.stack([at(epochs).keywords["beta"] for epochs in gone])  # a tensor: an input of a compiled step
    torch.testing.assert_close(found, beta * torch.tensor([0.0, 0.125, 0.25, 0.75, 1.0, 1.0, 1.0]))


def test_a_loss_on_the_way_is_the_one_of_its_beta():
    known = LinearGaussian()
    x, story = known.data(4), known.story(widen=1.5, shift=0.3)
    losses = []
    for objective in (
        warmed(partial(elbo, particles=3), 2, 5)(torch.tensor(1.0)),
        partial(elbo, particles=3, beta=0.5),
    ):
        torch.manual_seed(3)
        losses.append(objective(story, x))
    torch.testing.assert_close(*losses)


def test_without_a_warm_up_the_objective_is_left_as_it_is():
    assert warmed(iwae, warm_up=0, epochs=3)(torch.tensor(1.0)) is iwae


@pytest.mark.parametrize(
    ("objective", "warm_up", "words"),
    [
        (elbo, -1, "warm_up should be at least 0, got -1"),
        (elbo, 11, "no longer than the run, got warm_up 11 in 10 epochs: .* at most 10"),
        (partial(partial(iwae), particles=3), 2, "with a beta to raise, got iwae: such as elbo"),
        (lambda story, data, beta: beta, 2, "with a beta to raise, got <lambda>"),  # of no value to rise to
    ],
)
def test_what_cannot_be_warmed_up_is_refused(objective, warm_up, words):
    with pytest.raises(ValueError, match=words):
        warmed(objective, warm_up, epochs=10)
