"""Optimisers of a fit: on paths that are known in closed form, beside torch's own loop, resumed, and refused."""

import copy
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppvae
from ppvae import networks
from ppvae.inference import elbo
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.training import optimizers
from ppvae.training.fit import NotFinite, begin, run


class Mean(nn.Module):
    """x ~ N(mean, 1): -ELBO is (mean - average of x)^2 / 2 and a constant, a quadratic of one parameter."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(self.mean, 1.0), obs=x)

    def guide(self, x):
        pass


X = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)  # on average 3


def fitted(optimizer, **options):
    """Where the mean is after ten steps of the whole data."""
    story = Mean()
    ppvae.fit(story, X, optimizer=optimizer, batch_size=4, progress=False, **{"epochs": 10, **options})
    return story.mean.item()


def test_gradient_descent_goes_the_way_that_is_known():
    """Each step leaves 1 - lr of the distance: mean_t - 3 = (1 - lr)^t (mean_0 - 3)."""
    assert fitted(torch.optim.SGD, lr=0.1) == pytest.approx(3 + 2 * 0.9**10, rel=1e-12)


def test_momentum_goes_the_way_that_is_known():
    """v <- m v + d, d <- d - lr v is a product with a matrix, of d the distance: its tenth power is the way."""
    lr, momentum = 0.1, 0.9
    step = torch.tensor([[momentum, 1.0], [-lr * momentum, 1 - lr]], dtype=torch.float64)  # of (v, d)
    _, distance = torch.linalg.matrix_power(step, 10) @ torch.tensor([0.0, 2.0], dtype=torch.float64)
    found = fitted(partial(torch.optim.SGD, momentum=momentum), lr=lr)
    assert found == pytest.approx(3 + distance.item(), rel=1e-12)


def test_clip_and_schedule_are_heeded():
    """The gradient is 2 at first and clipped to 0.5; the step size falls along half a wave."""
    rates = [0.05 * (1 + math.cos(math.pi * t / 10)) for t in range(10)]
    found = fitted(torch.optim.SGD, lr=0.1, clip=0.5, schedule="cosine")
    assert found == pytest.approx(5 - 0.5 * sum(rates), rel=1e-5)  # torch adds 1e-6 to the norm


def test_decoupled_weight_decay_is_that_of_the_paper():
    """Loshchilov & Hutter 2019, algorithm 2, https://arxiv.org/abs/1711.05101"""
    lr, decay, (beta1, beta2), eps = 0.1, 0.3, (0.9, 0.999), 1e-8
    mean, first, second = 5.0, 0.0, 0.0
    for t in range(1, 11):
        gradient = mean - 3
        first, second = beta1 * first + (1 - beta1) * gradient, beta2 * second + (1 - beta2) * gradient**2
        corrected = first / (1 - beta1**t), second / (1 - beta2**t)
        mean -= lr * (corrected[0] / (corrected[1] ** 0.5 + eps) + decay * mean)
    assert fitted(partial(torch.optim.AdamW, weight_decay=decay), lr=lr) == pytest.approx(mean, rel=1e-6)


def binary_story():
    torch.manual_seed(0)
    encoder = encoders.DiagonalNormal(networks.mlp(5, [8], 4))
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(networks.mlp(2, [8], 5)), encoder).double()


def binary_data():
    generator = torch.Generator().manual_seed(1)
    return torch.bernoulli(torch.full((40, 5), 0.5, dtype=torch.float64), generator=generator)


def test_a_fit_is_torchs_own_loop():
    """AdamW of a VAE, whole batches: the same draws from the same seed, stepped by hand."""
    story, by_hand, x = binary_story(), binary_story(), binary_data()
    ppvae.fit(story, x, optimizer=torch.optim.AdamW, lr=1e-2, epochs=5, batch_size=40, seed=3, progress=False)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-2)
    order = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    for _ in range(5):
        optimizer.zero_grad()
        elbo(by_hand, x[torch.randperm(40, generator=order)]).backward()
        optimizer.step()
    for one, other in zip(story.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


NAMES = optimizers.__all__
STEPS = {"data": binary_data(), "objective": elbo, "batch_size": 16, "clip": 1.0, "schedule": "cosine"}


@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_fit_is_the_eager_one(name):
    eager, replayed = binary_story(), binary_story()
    for story, way in ((eager, "eager"), (replayed, "replayed")):
        training = begin(story, lr=1e-2, optimizer=getattr(optimizers, name))
        training.way = way
        list(run(training, epochs=3, **STEPS))
    for one, other in zip(eager.parameters(), replayed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert not torch.equal(next(eager.parameters()), next(binary_story().parameters()))


@pytest.mark.parametrize(
    "make", [partial(torch.optim.SGD, momentum=0.9), pytest.param(torch.optim.AdamW, marks=pytest.mark.soak)]
)
def test_a_compiled_fit_is_the_eager_one(make):
    stories = binary_story(), binary_story()
    for story, compile in zip(stories, ("never", "always"), strict=True):
        ppvae.fit(story, STEPS["data"], optimizer=make, batch_size=16, epochs=3, compile=compile, progress=False)
    for one, other in zip(*(story.parameters() for story in stories), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_fit_goes_on_to_the_last_bit(name, tmp_path):
    make = getattr(optimizers, name)
    stories = [binary_story().float() for _ in range(3)]
    unbroken, first, second = (begin(story, lr=1e-2, optimizer=make) for story in stories)
    steps = STEPS | {"data": binary_data().float(), "schedule": "constant"}
    list(run(unbroken, epochs=4, **steps))
    list(run(first, epochs=2, **steps))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    list(run(second, epochs=2, **steps))
    for one, other in zip(stories[0].parameters(), stories[2].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_step_too_long_leaves_the_last_good_parameters():
    story = Mean()
    with pytest.raises(NotFinite, match="keeps the last good parameters"):
        ppvae.fit(story, X, optimizer=torch.optim.SGD, lr=1e200, batch_size=4, progress=False)
    assert math.isfinite(story.mean.item())


def gives_none(parameters, lr):
    return None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("SGD", r"function of \(parameters, lr\), .*got an object of str: functools.partial"),
        (torch.optim.SGD(Mean().parameters(), lr=0.1), "got an object of SGD: "),
        (gives_none, "gives_none gives an object of NoneType"),
        (torch.optim.LBFGS, "LBFGS wants a loss that it can call"),
        (partial(torch.optim.SGD, momentum=-1.0), "optimizer SGD could not be made: Invalid momentum value: -1.0"),
        (partial(torch.optim.SGD, lr=0.1), "SGD could not be made: TypeError: .*multiple values for argument 'lr'"),
        (partial(torch.optim.SGD, speed=2), "SGD could not be made: TypeError: .*unexpected keyword argument 'speed'"),
    ],
)
def test_what_makes_no_optimiser_is_refused_in_one_line(make, words):
    story = Mean()
    with pytest.raises(ValueError, match=words) as caught:
        ppvae.fit(story, X, optimizer=make, progress=False)
    assert "\n" not in str(caught.value)
    assert story.mean.item() == 5


@pytest.mark.parametrize("arguments", [{"betas": (0.5, 0.7)}, {"eps": 0.1}, {"weight_decay": 0.1}])
def test_adam_with_arguments_is_torchs(arguments):
    ours, torchs = binary_story(), binary_story()
    for story, make in ((ours, optimizers.Adam), (torchs, partial(torch.optim.Adam, fused=True))):
        list(run(begin(story, lr=1e-2, optimizer=partial(make, **copy.deepcopy(arguments))), epochs=3, **STEPS))
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(one, other)
