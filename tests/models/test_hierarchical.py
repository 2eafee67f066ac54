"""Hierarchies: a linear-Gaussian one has exact answers, whichever way its guide goes."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppvae import networks
from ppvae.inference import importance, log_weights
from ppvae.inference.program.codes import codes
from ppvae.models import Hierarchical, Ladder, assemble, encoders, likelihoods, priors, stories
from ppvae.models.hierarchical import LayerNormal, product
from ppvae.selfcheck.analytic import affine

DOUBLE = torch.float64


def normal(weight, bias, scale):
    """A module from z to N(weight z + bias, diag scale^2)."""
    outputs = torch.cat([bias, scale.log()])
    return encoders.DiagonalNormal(affine(torch.cat([weight, torch.zeros_like(weight)]), outputs))


class TwoLayers:
    """z2 ~ N(0, I), z1 ~ N(A z2 + a, t^2 I), x ~ N(W z1 + b, c I), with A and W'W diagonal: diagonal posteriors."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        square = torch.randn(4, 4, generator=generator, dtype=DOUBLE)
        self.w = torch.linalg.qr(square)[0][:, :2] * torch.tensor([0.7, 1.3], dtype=DOUBLE)
        self.b = torch.randn(4, generator=generator, dtype=DOUBLE)
        self.a_diagonal, self.a = torch.tensor([1.2, -0.5], dtype=DOUBLE), torch.tensor([0.3, -1.0], dtype=DOUBLE)
        self.t2, self.c = 0.4, 0.2

    @property
    def z1_variance(self):
        return self.a_diagonal.square() + self.t2

    def marginal(self):
        covariance = self.w @ self.z1_variance.diag() @ self.w.T + self.c * torch.eye(4, dtype=DOUBLE)
        return torch.distributions.MultivariateNormal(self.w @ self.a + self.b, covariance)

    def parts(self):
        """The prior, the conditional and the likelihood."""
        t = torch.full((2,), math.sqrt(self.t2), dtype=DOUBLE)
        likelihood = likelihoods.Normal(affine(self.w, self.b), self.c).double()
        likelihood.log_scale.data.fill_(0.5 * math.log(self.c))  # to all digits of float64
        return priors.StandardNormal(2).double(), [normal(self.a_diagonal.diag(), self.a, t)], likelihood

    def bottom_up(self, widen=1.0):
        """q(z1 | x) and q(z2 | z1), the posteriors of the story; or scales that are off."""
        gram = (self.w.T @ self.w).diagonal()
        variance = 1 / (1 / self.z1_variance + gram / self.c)
        weight = variance.unsqueeze(-1) * self.w.T / self.c
        first = normal(weight, variance * self.a / self.z1_variance - weight @ self.b, widen * variance.sqrt())
        variance = 1 / (1 + self.a_diagonal.square() / self.t2)
        weight = (variance * self.a_diagonal / self.t2).diag()
        return [first, normal(weight, -weight @ self.a, widen * variance.sqrt())]

    def messages(self):
        """What x says of z1 alone, N(z1; (W'W)^-1 W'(x - b), c (W'W)^-1), and the posterior of z2."""
        gram = (self.w.T @ self.w).diagonal()
        weight = self.w.T / gram.unsqueeze(-1)
        first = normal(weight, -weight @ self.b, (self.c / gram).sqrt())
        noise = self.t2 * self.w @ self.w.T + self.c * torch.eye(4, dtype=DOUBLE)
        down = self.w * self.a_diagonal  # x ~ N(down z2 + W a + b, noise)
        gain = down.T @ torch.linalg.inv(noise)
        variance = 1 / (1 + (gain @ down).diagonal())
        weight = variance.unsqueeze(-1) * gain
        return [first, normal(weight, -weight @ (self.w @ self.a + self.b), variance.sqrt())]

    def data(self, rows):
        torch.manual_seed(1)
        return self.marginal().sample((rows,))


@pytest.mark.parametrize("way", ["bottom up", "ladder"])
def test_every_log_weight_of_the_exact_guide_is_log_p(way):
    """Down the ladder, the product of the message with p(z1 | z2) is the posterior of z1 given z2 and x."""
    known = TwoLayers()
    ladder = Ladder(*known.parts(), [nn.Identity(), nn.Identity()], known.messages())
    story = Hierarchical(*known.parts(), known.bottom_up()) if way == "bottom up" else ladder
    x = known.data(6)
    log_w = log_weights(story, x, particles=5)
    torch.testing.assert_close(log_w, known.marginal().log_prob(x).expand(5, 6), rtol=0, atol=1e-9)


def test_importance_finds_log_p_with_a_guide_that_is_off():
    known = TwoLayers()
    story, x = Hierarchical(*known.parts(), known.bottom_up(widen=1.3)), known.data(6)
    evidence = importance(story, x, particles=4000, progress=False)
    assert ((evidence.estimate - known.marginal().log_prob(x)).abs() < 4 * evidence.standard_error).all()
    assert (evidence.standard_error > 1e-3).all()
    gap = known.marginal().log_prob(x) - evidence.elbo
    expected = 4 * ((1.3**2 - 1) / 2 - math.log(1.3))  # KL of four Normals, each 1.3 times too wide
    assert ((gap - expected).abs() < 4 * evidence.elbo_standard_error).all()


def test_codes_are_the_means_of_all_layers_side_by_side():
    known = TwoLayers()
    x, (first, second) = known.data(6), known.bottom_up()
    z1 = first(x).mean
    found = codes(Hierarchical(*known.parts(), [first, second]), x)
    torch.testing.assert_close(found, torch.cat([z1, second(z1).mean], dim=-1))


def test_a_product_of_normals_has_their_precisions_added_and_their_means_weighted():
    found = product(
        dist.Normal(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1e-3])).to_event(1),
        dist.Normal(torch.tensor([3.0, 5.0]), torch.tensor([0.5, 1e3])).to_event(1),
    )
    precision = 1 / 2.0**2 + 1 / 0.5**2
    mean = (1 / 2.0**2 + 3 / 0.5**2) / precision
    torch.testing.assert_close(found.mean, torch.tensor([mean, 5e-12]), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.stddev, torch.tensor([precision**-0.5, 1e-3]), rtol=1e-6, atol=0)


def test_a_layer_keeps_a_finite_scale_where_an_exponential_would_overflow():
    p = LayerNormal(nn.Identity())(torch.tensor([[0.0, 0.0, 200.0, -200.0]]))
    torch.testing.assert_close(p.stddev, torch.tensor([[200.0001, 0.0001]]))
    assert LayerNormal(nn.Identity())(torch.zeros(1, 2)).stddev.item() == pytest.approx(math.log(2) + 1e-4)


def sizes_of(network):
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


def test_the_two_layers_of_burda_et_al():
    parts = (priors.StandardNormal, likelihoods.Bernoulli, encoders.DiagonalNormal)

    def story(*parts):
        return stories.hierarchical(*parts, above=[50], between=[100, 100])

    network = networks.MLP([200, 200], activation="tanh")
    story = assemble(*parts, shape=(1, 28, 28), latent=100, story=story, network=network)
    assert [sizes_of(encoder) for encoder in story.encoders] == [[784, 200, 200, 200], [100, 100, 100, 100]]
    assert [sizes_of(conditional) for conditional in story.conditionals] == [[50, 100, 100, 200]]
    assert sizes_of(story.likelihood) == [100, 200, 200, 784]
    assert story.prior().event_shape == (50,)
    activations = {type(m) for m in story.modules() if not list(m.children()) and not isinstance(m, nn.Linear)}
    assert activations == {nn.Tanh, priors.StandardNormal}


def test_layers_that_do_not_meet_are_refused():
    known = TwoLayers()
    prior, conditionals, likelihood = known.parts()
    with pytest.raises(ValueError, match="a conditional between every two; got 1 and 1"):
        Hierarchical(prior, conditionals, likelihood, known.bottom_up()[:1])
    with pytest.raises(ValueError, match="at least 1 layer"):
        Hierarchical(prior, [], likelihood, [])
    with pytest.raises(ValueError, match="one network a message, got 1 and 2"):
        Ladder(prior, conditionals, likelihood, [nn.Identity()], known.messages())
    with pytest.raises(ValueError, match="between should hold at least 1 layer"):
        stories.ladder(None, None, None, None, between=[])


def test_a_ladder_of_other_messages_is_refused():
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.PointMass)
    story = assemble(*parts, shape=(3,), latent=2, story=stories.ladder)
    with pytest.raises(ValueError, match="a ladder joins diagonal Normals, such as DiagonalNormal gives; got Delta"):
        log_weights(story, torch.zeros(2, 3))
