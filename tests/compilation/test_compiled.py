"""A traced step against ordinary Python: the same draws, loss, gradients and buffers, for any objective and story."""

import copy
import inspect
import random
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import PARTS, data_of, story_of
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppvae import networks
from ppvae.compilation.compiled import Gradients, NotCompilable
from ppvae.compilation.steps import eager
from ppvae.compilation.tracing import NotTraceable
from ppvae.inference import elbo, objectives
from ppvae.inference.program.checks import hot_loop
from ppvae.models import VAE, assemble, encoders, likelihoods, priors

pytestmark = pytest.mark.usefixtures("two_threads")

TOLERANCE = {torch.float32: 1.2e-5, torch.float64: 1e-12}  # exp of a log-weight of 100 nats: 100 times its rounding
SMALL = {"outer": 2, "particles": 3}
OBJECTIVES = {
    name: partial(
        objective := getattr(objectives, name),
        **{option: size for option, size in SMALL.items() if option in inspect.signature(objective).parameters},
    )
    for name in objectives.__all__
}
DISCRETE = [name for name in OBJECTIVES if name in {"ciwae", "elbo", "enumerated_elbo", "iwae", "miwae", "piwae"}]
DISCRETE += ["renyi", "vimco", "wake_sleep"]


def losses(story, objective):
    """The loss that a fit minimises: of the data, some rows and a warm-up's beta, a tensor."""
    return lambda rows, *data: objective(story, tuple(part.index_select(0, rows) for part in data))


def relative(found, expected):
    return (found - expected).norm().item() / max(expected.norm().item(), 1e-30)


def assert_agree(story, objective, data, dtype=torch.float64, compiled=False, rows=None, steps=2):
    """The story by graph and a copy of it by ordinary Python, some steps from one seed."""
    story = story.to(dtype).train()
    other = copy.deepcopy(story)
    data = tuple(part.to(dtype) if part.is_floating_point() else part for part in data)
    rows = torch.arange(len(data[0])) if rows is None else rows
    gradients = Gradients(losses(story, objective), story)
    with hot_loop():
        torch.manual_seed(3)
        found = [gradients(rows, *data, compiled=compiled) for _ in range(steps)]
        torch.manual_seed(3)
        expected = [eager(losses(other, objective), other, rows, *data) for _ in range(steps)]
    for one, two in zip(found, expected, strict=True):
        assert relative(one, two) <= TOLERANCE[dtype]
    slopes = [parameter.grad for parameter in other.parameters() if parameter.grad is not None]
    least = 1e-1 * torch.stack([slope.norm() for slope in slopes]).norm()  # what should be 0 is as exact as the rest
    for (name, one), two in zip(story.named_parameters(), other.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), name
        assert one.grad is None or (one.grad - two.grad).norm() <= TOLERANCE[dtype] * (two.grad.norm() + least), name
    for (name, one), two in zip(story.named_buffers(), other.named_buffers(), strict=True):
        assert relative(one.double(), two[1].double()) <= TOLERANCE[dtype], name
    return gradients


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: " ".join(parts.values()))
def test_every_part_is_traced(parts):
    if "VonMisesFisher" in parts.values():
        pytest.skip("its draws are accepted or rejected one by one: a fit of it stays eager")
    assert_agree(story_of(**parts), OBJECTIVES["elbo"], (data_of(**parts),), steps=1)


REPRESENTATIVE = [{"prior": "VampPrior", "encoder": "NormalMixture"}, {"likelihood": "OptimalNormal"}]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_traced(objective):
    for parts, dtype in zip(REPRESENTATIVE, (torch.float64, torch.float32), strict=True):
        assert_agree(story_of(**parts), OBJECTIVES[objective], (data_of(**parts),), dtype, steps=1)


@pytest.mark.parametrize("objective", DISCRETE)
def test_discrete_latents_are_traced(objective):
    parts = {"prior": "OneHot learned", "encoder": "OneHotCategorical"}
    assert_agree(story_of(**parts), OBJECTIVES[objective], (data_of(**parts),))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_recurrent_networks_are_traced(dtype):
    torch.manual_seed(0)
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    story = assemble(*parts, shape=(3, 2), latent=2, network=networks.LSTM())
    assert_agree(story, OBJECTIVES["elbo"], (torch.randn(5, 6),), dtype, steps=1)


class Users(PyroModule):
    """Anyone's story: a constrained parameter, one that nothing uses, dropout, batch normalisation, a local latent."""

    def __init__(self):
        super().__init__()
        self.decode, self.idle = nn.Linear(2, 3), nn.Parameter(torch.ones(2))
        self.encode = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
        self.scale = PyroParam(torch.ones(3), constraint=dist.constraints.positive)

    def model(self, x):
        with pyro.plate("rows", len(x), dim=-1):
            code = pyro.sample("code", dist.Normal(torch.zeros(2).to(x), 1).to_event(1))
            rate = pyro.sample("rate", dist.Gamma(code.new_tensor(2.0), 1.0))
            pyro.sample("seen", dist.Normal(rate.unsqueeze(-1) * self.decode(code), self.scale).to_event(1), obs=x)

    def guide(self, x):
        loc, log_scale = self.encode(x).chunk(2, -1)
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("code", dist.Normal(loc, log_scale.exp()).to_event(1))
            pyro.sample("rate", dist.LogNormal(loc.sum(-1), 1.0))


def test_a_users_story_is_traced_with_dropout_and_buffers_and_a_parameter_that_is_never_used():
    torch.manual_seed(0)
    story = Users()
    gradients = assert_agree(story, OBJECTIVES["iwae"], (torch.randn(9, 3),), rows=torch.tensor([4, 0, 7, 2, 2]))
    assert story.idle.grad is None
    assert len(gradients.graphs) == 1
    moved = {id(buffer) for buffer in next(iter(gradients.graphs.values())).moved}
    assert moved == {id(buffer) for buffer in story.encode[1].buffers()}


def test_a_replaced_buffer_and_a_shared_parameter_are_traced():
    class Drifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(2))
            self.first = nn.Linear(2, 2)
            self.second = self.first

        def forward(self, x):
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
            return self.second(self.first(x - self.mean))

    story = nn.Module()
    story.net = Drifting()
    assert_agree(story, lambda story, batch: story.net(batch[0]).square().mean(), (torch.randn(5, 2),), steps=3)


def test_a_number_of_rows_that_the_data_decide_is_traced():
    net = nn.Linear(2, 1)
    assert_agree(net, lambda net, batch: net(batch[0][batch[0][:, 0] > 0]).square().mean(), (torch.randn(9, 2),))
    gradients = Gradients(lambda x: net(x[x[:, 0] > 0]).square().mean(), net)
    for x in (torch.randn(9, 2).double(), torch.randn(9, 2).double()):
        torch.testing.assert_close(gradients(x, compiled=False), net(x[x[:, 0] > 0]).square().mean().detach())


def test_a_plain_object_is_traced_with_the_networks_that_it_holds():
    networks_ = nn.ModuleDict({"net": nn.Linear(2, 1)})
    gradients = Gradients(lambda x: networks_["net"](x).square().mean(), networks_)
    x = torch.randn(4, 2)
    assert torch.equal(gradients(x, compiled=False), networks_["net"](x).square().mean().detach())


def test_shapes_modes_and_numbers_have_graphs_of_their_own():
    story = VAE(
        priors.StandardNormal(2),
        likelihoods.Normal(networks.mlp(2, [4], 3)),
        encoders.DiagonalNormal(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))),
    )
    gradients = Gradients(lambda *x: elbo(story, x), story)
    with hot_loop():
        for rows in (4, 6, 4):
            gradients(torch.randn(rows, 3), compiled=False)
        assert len(gradients.graphs) == 2
        story.encoder.network[1].p = 0.1
        gradients.refresh()
        gradients(torch.randn(4, 3), compiled=False)
        assert len(gradients.graphs) == 3
        story.eval()
        gradients.refresh()
        gradients(torch.randn(4, 3), compiled=False)
        assert len(gradients.graphs) == 4
        for step in range(4):
            story.encoder.network[1].p = 0.2 + step / 100
            gradients.refresh()
            gradients(torch.randn(4, 3), compiled=False)
        with pytest.raises(NotTraceable, match="holds changes again and again"):
            gradients(torch.randn(5, 3), compiled=False)


def test_a_trace_draws_nothing_and_changes_nothing():
    torch.manual_seed(0)
    story, x = Users(), torch.randn(9, 3)
    story.kept = None
    before, state = copy.deepcopy(story.state_dict()), torch.get_rng_state()

    def loss(x):
        value = elbo(story, (x,))
        story.kept = value
        return value

    with hot_loop():
        Gradients(loss, story).graph(x)
    assert story.kept is None
    assert all(torch.equal(before[name], value) for name, value in story.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Deciding(Users):
    def guide(self, x):
        if x.mean() > 0:  # this line
            super().guide(x)
        super().guide(x)


def test_a_value_that_decides_is_refused_with_its_line():
    source, first = inspect.getsourcelines(Deciding)
    line = first + next(place for place, text in enumerate(source) if "# this line" in text)
    story = Deciding()
    with (
        hot_loop(),
        pytest.raises(NotTraceable, match=rf"known only once it is computed, at .*test_compiled.py:{line}$"),
    ):
        Gradients(lambda *x: elbo(story, x), story).graph(torch.randn(4, 3))


def counts(net, x):
    net.count = getattr(net, "count", 0) + 1
    return net(x).mean() * net.count


def draws_elsewhere(net, x):
    return net(x).mean() * random.random()


def own_generator(net, x):
    return (net(x) * torch.rand(1, generator=torch.Generator().manual_seed(0))).mean()


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (counts, "not the same twice"),
        (draws_elsewhere, "not the same twice"),
        (own_generator, "generator"),
    ],
)
def test_what_no_graph_holds_is_refused(loss, words):
    net = nn.Linear(2, 1)
    with pytest.raises(NotTraceable, match=words):
        Gradients(partial(loss, net), net).graph(torch.randn(4, 2))
    assert not hasattr(net, "count")


def test_what_cannot_be_compiled_says_so_and_moves_nothing(monkeypatch):
    net, x = nn.BatchNorm1d(2), torch.randn(4, 2)

    def broken(module, inputs, options):
        torch.randn(3)
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch._inductor, "compile", broken)
    state = torch.get_rng_state()
    gradients = Gradients(lambda x: net(x).square().mean(), net)
    with pytest.raises(NotCompilable, match="no compiler here"):
        gradients(x)
    assert net.num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), state)
    gradients(x, compiled=False)
    assert net.num_batches_tracked == 1


class Several(nn.Module):
    """Two stories as one, so that one compilation is enough for both."""

    def __init__(self, **parts):
        super().__init__()
        self.story, self.users = story_of(**parts), Users()


@pytest.mark.parametrize(
    ("dtype", "parts", "objectives_"),
    [
        (torch.float32, {"prior": "OneHot", "encoder": "OneHotCategorical"}, ("vimco", "iwae")),
        (torch.float64, {"likelihood": "OptimalNormal"}, ("dreg", "elbo")),
    ],
    ids=["discrete latents float32", "a moving variance float64"],
)
def test_the_compiled_step_is_the_eager_step(dtype, parts, objectives_):
    """Compiled in earnest, beside a story with dropout, batch normalisation and a latent of Gamma's."""
    first, second = (OBJECTIVES[name] for name in objectives_)

    def objective(story, batch):
        return first(story.story, batch) + second(story.users, (torch.cat([batch[0], batch[0][:, :1]], -1),))

    assert_agree(Several(**parts), objective, (torch.randn(6, 2),), dtype, compiled=True, steps=3)


def test_an_old_gradient_of_what_the_loss_does_not_reach_is_gone():
    """An optimiser would go on moving it."""
    net, other = nn.Linear(2, 1), nn.Linear(2, 1)
    both = nn.ModuleList([net, other])
    gradients = Gradients(lambda x: net(x).square().mean(), both)
    for _ in range(2):  # traced, and replayed
        other.weight.grad = torch.ones(1, 2)
        gradients(torch.randn(4, 2), compiled=False)
        assert other.weight.grad is None
        assert net.weight.grad is not None


def test_what_learns_has_a_graph_of_its_own():
    net, x = nn.Linear(2, 1), torch.randn(4, 2)
    gradients = Gradients(lambda x: net(x).square().mean(), net)
    gradients(x, compiled=False)
    net.weight.requires_grad_(False)
    net.weight.grad = None
    gradients.refresh()
    gradients(x, compiled=False)
    assert net.weight.grad is None
    assert net.bias.grad is not None
    assert len(gradients.graphs) == 2
    net.zero_grad()
    net.double()
    gradients(x.double(), compiled=False)
    assert len(gradients.graphs) == 3
