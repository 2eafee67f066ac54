"""An ascent of every datum's own ELBO: its noise, and what it is left with."""

import pytest
import torch

from ppvae.inference.posteriors.ascent import EVERY, HELD_OUT, ascend


def climbed(elbo, steps=EVERY, draws=4, size=1, seed=0, tolerance=None, lr=0.1):
    """Where two data end that start at 0, and all of the noise that their ELBO was shown."""
    place, shown = torch.zeros(2, size, dtype=torch.float64, requires_grad=True), []

    def spied(noise):
        shown.append(noise.clone())
        return elbo(place, noise)

    for _ in ascend([place], spied, size, steps, draws, lr, seed, tolerance):
        pass
    return place.detach(), shown


def hill(place, noise):
    return -(place - 1).square().sum(-1) + 0 * noise.sum()


def test_noise_that_judges_is_none_that_a_step_has_seen():
    """An ELBO that is looked at with the noise of the steps would be judged by what it was fitted to."""
    _, shown = climbed(hill, draws=HELD_OUT, size=3, tolerance=0.0)
    looks = [number for number, noise in enumerate(shown) if torch.equal(noise, shown[0])]
    assert looks == [0, EVERY + 1]  # before the first step and after so many, the same every time
    steps = torch.stack([noise for number, noise in enumerate(shown) if number not in looks])
    assert not torch.isin(shown[0], steps).any()
    assert len(steps.unique()) == steps.numel()


def test_noise_is_mirrored_where_an_ascent_may_end_and_plain_where_it_may_not():
    for tolerance, mirrored in ((0.0, True), (None, False)):
        noise = climbed(hill, draws=8, size=2, tolerance=tolerance)[1][1][:, 0]
        assert noise.shape == (8, 2)
        assert torch.equal(noise[:4], -noise[4:]) == mirrored
        exact = torch.allclose(noise.T @ noise / 8, torch.eye(2).double(), atol=1e-12)
        assert exact == mirrored


@pytest.mark.parametrize(("tolerance", "kept"), [(0.0, True), (None, False)])
def test_a_datum_is_left_with_its_best_where_looks_are_taken(tolerance, kept):
    """The gradient points up where the ELBO falls: every later look is worse than the first."""
    found, _ = climbed(lambda place, noise: (place - 2 * place.detach()).sum(-1) + 0 * noise.sum(), tolerance=tolerance)
    assert (found == 0).all() == kept
    assert kept or (found > 0.1).all()


def test_the_ascent_ends_with_the_last_datum_to_arrive():
    """A sixth of the steps without a gain is enough, beyond the first third, which are taken in any case."""
    _, shown = climbed(lambda place, noise: 0 * (place.sum(-1) + noise.sum()), steps=600, tolerance=0.01)
    steps = sum(len(noise) == 4 for noise in shown)
    assert steps == 200 + 100
    _, shown = climbed(
        lambda place, noise: place.sum(-1) * torch.tensor([0.0, 1.0]) + 0 * noise.sum(), 600, tolerance=0.01
    )
    assert sum(len(noise) == 4 for noise in shown) > 500  # of a datum that goes on rising
