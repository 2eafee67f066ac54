"""The recursive story: trees against a search by hand, cells that lose nothing, log-weights as sums of their terms."""

import copy
import math
from functools import partial
from itertools import pairwise, product

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import ppvae
from ppvae import networks
from ppvae.distributions.merge_order import log_orders
from ppvae.inference import elbo, enumerated_elbo, iwae, log_weights
from ppvae.inference.program.codes import reconstruct, sample
from ppvae.inference.program.traces import run
from ppvae.inference.program.weights import draw, log_joint
from ppvae.models import assemble, encoders, likelihoods, priors
from ppvae.models.recursive import recursive
from ppvae.networks.recursive import Cell, GreedyTree, Unfolding

STEPS, FEATURES, LATENT = 5, 3, 2
FAMILY = networks.Recursive(6)


def story_of(
    shape=(STEPS, FEATURES),
    likelihood=likelihoods.Normal,
    latent=LATENT,
    network=FAMILY,
    prior=priors.StandardNormal,
    seed=0,
    sharp=3,
    weight=0.1,
    **options,
):
    torch.manual_seed(seed)
    story = partial(recursive, weight=weight)
    made = assemble(
        prior, likelihood, encoders.PointMass, shape=shape, latent=latent, network=network, story=story, **options
    )
    with torch.no_grad():
        for layer in made.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(sharp)  # large enough for every row to have a tree of its own
    return made


def data_of(rows=20, steps=STEPS, features=FEATURES):
    """Rows of all kinds: of noise, of one value over and over, of zeros, of two values in turn."""
    x = torch.randn(rows, steps, features)
    x[1] = x[1, :1]
    x[2] = 0
    x[3, 2::2], x[3, 3::2] = x[3, 0], x[3, 1]
    return x.flatten(1)


class ByHand:
    """One row at a time, one pair at a time, from the weights alone."""

    def __init__(self, cell):
        self.cell = cell

    def node(self, h):
        h = self.cell.activation(h)
        length = h.norm()
        return h if length < 1e-3 else h / length  # of rectified units all may be zero, or nearly

    def merge(self, left, right):
        return self.node(self.cell.merging.weight @ torch.cat([left, right]) + self.cell.merging.bias)

    def split(self, parent):
        left, right = (self.cell.splitting.weight @ parent + self.cell.splitting.bias).chunk(2)
        return self.node(left), self.node(right)

    def loss(self, left, right):
        found = self.split(self.merge(left, right))
        return (left - found[0]).square().sum() + (right - found[1]).square().sum()

    def climb(self, leaves, order=None):
        """The order, the root and what is lost in all; the greedy order where none is given."""
        nodes, chosen, lost = list(leaves), [], 0.0
        while len(nodes) > 1:
            losses = [self.loss(left, right) for left, right in pairwise(nodes)]
            least = min(losses) + 1e-13  # the leftmost of those that are alike but for rounding
            first = next(place for place, loss in enumerate(losses) if loss <= least)
            at = order[len(chosen)] if order is not None else first
            chosen.append(at)
            lost = lost + losses[at]
            nodes[at : at + 2] = [self.merge(nodes[at], nodes[at + 1])]
        return chosen, nodes[0], lost

    def descend(self, root, order):
        nodes = [root]
        for at in reversed(order):
            nodes[at : at + 1] = self.split(nodes[at])
        return nodes


def leaves_of(tree, row):
    return [ByHand(tree.cell).node(tree.leaf(step)) for step in row.unflatten(-1, tree.shape)]


def orders_of(order):
    """How many orders build the tree of this one, by trying all."""

    def tree(merges):
        nodes = list(range(len(merges) + 1))
        for at in map(int, merges):
            nodes[at : at + 2] = [(nodes[at], nodes[at + 1])]
        return nodes[0]

    every = product(*(range(len(order) - step) for step in range(len(order))))
    return sum(tree(other) == tree(order) for other in every)


@pytest.mark.parametrize("steps", [2, 3, 4, 9])
@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
@pytest.mark.usefixtures("double")
def test_the_tree_is_the_one_that_is_found_by_hand(steps, activation):
    story = story_of((steps, FEATURES), network=networks.Recursive(6, activation))
    x = data_of(60, max(steps, 4))[:, : steps * FEATURES]
    order, pairs, parents = story.tree(x)
    lost = story.tree.cell.loss(pairs, parents).sum(-1)
    for row, (found, root, loss) in enumerate(zip(order.tolist(), parents[:, -1], lost, strict=True)):
        expected = ByHand(story.tree.cell).climb(leaves_of(story.tree, x[row]))
        assert found == expected[0], row
        torch.testing.assert_close(root, expected[1], rtol=0, atol=1e-9)
        torch.testing.assert_close(loss, expected[2], rtol=0, atol=1e-9)
    assert len({tuple(found) for found in order.tolist()}) >= min(math.factorial(steps - 1), 10)


def test_ties_go_to_the_leftmost_whatever_the_batch():
    """In float32 equal pairs lose amounts that differ by rounding, by the place that they have in a batch."""
    story = story_of((12, FEATURES), network=networks.Recursive(33))
    x = torch.randn(50, 12, FEATURES) * (torch.rand(50, 12, 1) < 0.3)  # most steps are blank
    x[0] = 0
    together = story.tree(x.flatten(1)).order
    alone = torch.cat([story.tree(row).order for row in x.flatten(1).split(1)])
    assert torch.equal(together, alone)
    for row in range(len(x)):
        expected, _, _ = ByHand(copy.deepcopy(story.tree.cell).double()).climb(
            leaves_of(copy.deepcopy(story.tree).double(), x[row].flatten().double())
        )
        assert together[row].tolist() == expected


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.usefixtures("double")
def test_the_decoder_undoes_the_merges_from_the_last_to_the_first(outputs):
    cell = Cell(6, nn.Tanh())
    unfolding = Unfolding(cell, LATENT, (STEPS, FEATURES), outputs)
    orders = list(product(range(4), range(3), range(2), range(1)))
    z = 3 * torch.randn(len(orders), LATENT)
    found = unfolding(torch.cat([z, torch.tensor(orders).to(z)], dim=-1))  # (rows, outputs, steps, features)
    for row, order in enumerate(orders):
        hand = ByHand(cell)
        nodes = hand.descend(hand.node(unfolding.root(z[row])), order)
        expected = torch.stack([unfolding.leaf(node).unflatten(-1, (outputs, FEATURES)) for node in nodes], dim=1)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-9)


# Cells that lose nothing. A node keeps the leaves below it at their addresses, "" for itself, "LR" for the right one
# under its left one, and so on: a merge writes L and R before the addresses of its two, and a split reads them back.


def addresses(depth):
    return ["".join(path) for length in range(depth + 1) for path in product("LR", repeat=length)]


def linear(layer, weight):
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()


def write(merging, splitting, depth, k):
    """Merges that write addresses, and splits that read them, with k numbers at each."""
    places = addresses(depth)
    weight = torch.zeros(len(places), 2, len(places))  # parent, side, child
    for child, address in enumerate(places):
        for side, letter in enumerate("LR"):
            if len(address) < depth:
                weight[places.index(letter + address), side, child] = 1
    weight = torch.kron(weight.flatten(1), torch.eye(k))
    linear(merging, weight)
    linear(splitting, weight.T)


def lossless(steps, k):
    """A story that reconstructs names, 0 to k - 1, of any tree, and what its code holds is the root itself."""
    hidden = k * len(addresses(steps - 1))
    story = story_of((steps, k), latent=hidden, network=networks.Recursive(hidden, "identity"), weight=1.0)
    write(story.tree.cell.merging, story.tree.cell.splitting, steps - 1, k)
    first = torch.eye(hidden)[:k]  # the numbers at ""
    linear(story.tree.leaf, first.T)
    linear(story.encoder.network[-1], torch.eye(hidden))
    unfolding = story.likelihood.network.network
    linear(unfolding.root, torch.eye(hidden))
    linear(unfolding.leaf, first)
    return story


def one_hot(names, k):
    return nn.functional.one_hot(torch.tensor(names), k).to(torch.get_default_dtype()).flatten(1)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("steps", [2, 3, 4, 6])
def test_leaves_come_back_at_their_places_by_any_tree(steps):
    story = lossless(steps, k=steps)
    x = one_hot([list(range(steps))], steps)  # every leaf is another
    hand = ByHand(story.tree.cell)
    for order in product(*(range(steps - 1 - t) for t in range(steps - 1))):
        _, root, lost = hand.climb(leaves_of(story.tree, x[0]), order)
        row = torch.cat([root, torch.tensor(order).to(root)])
        torch.testing.assert_close(story.likelihood(row).mean, x[0], rtol=0, atol=1e-9)
        assert lost < 1e-9


@pytest.mark.usefixtures("double")
def test_every_row_is_reconstructed_by_a_greedy_tree_of_its_own_where_that_loses_nothing():
    """A leaf of name 1 is lost on the left of a merge, one of name 2 on the right: the rest of the tree goes round."""
    story, k = lossless(4, k=3), 3
    with torch.no_grad():
        weight = story.tree.cell.merging.weight
        hidden, places = len(weight), addresses(3)
        weight[k * places.index("L") + 1, 1] = 0
        weight[k * places.index("R") + 2, hidden + 2] = 0
    greedy = {  # by its names, the order for it
        (0, 1, 0, 1): [0, 0, 0],
        (2, 0, 2, 0): [0, 1, 0],
        (0, 2, 2, 0): [2, 1, 0],
        (0, 2, 1, 0): [1, 0, 0],
        (0, 2, 0, 1): [1, 0, 0],
        (0, 0, 2, 0): [0, 1, 0],
    }
    x = one_hot(list(greedy), k)
    trace = pyro.poutine.trace(story.guide).get_trace(x)
    assert trace.nodes["tree"]["value"].tolist() == list(greedy.values())
    torch.testing.assert_close(reconstruct(story, x), x, rtol=0, atol=1e-9)
    assert trace.nodes["merges"]["fn"].log_factor.abs().max() < 1e-9
    other = one_hot([[1, 0, 0, 0]], k)  # a 1 on the very left is lost in any tree
    assert (reconstruct(story, other) - other).abs().max() > 0.1
    assert pyro.poutine.trace(story.guide).get_trace(other).nodes["merges"]["fn"].log_factor > 0.1


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("steps", [2, 3, 4, 5, 6, 8])
def test_the_balanced_tree_reconstructs_any_sequence_with_cells_that_lose_nothing(steps):
    depth = math.ceil(math.log2(steps))
    hidden = FEATURES * len(addresses(depth))
    family = networks.Recursive(hidden, "identity")
    encoder = family.encoder((steps, FEATURES), hidden)
    decoder = family.decoder(hidden, (steps, FEATURES), outputs=1)
    up, down = encoder[0].network, decoder.network
    write(up.merge, down.split, depth, FEATURES)
    first = torch.eye(hidden)[:FEATURES]
    linear(up.leaf, first.T)
    linear(down.leaf, first)
    linear(encoder[-1], torch.eye(hidden))
    linear(down.root, torch.eye(hidden))
    x = torch.randn(7, steps * FEATURES)
    torch.testing.assert_close(decoder(encoder(x)), x, rtol=0, atol=1e-12)


def terms(story, x):
    """log N(x; decoder(z, tree), v) + log N(z; 0, I) - log (n - 1)!, and what the merges lose, by hand: `(batch,)`."""
    hand, unfolding = ByHand(story.tree.cell), story.likelihood.network.network
    scale, log_w, lost = story.likelihood.log_scale.exp(), [], []
    for row in x:
        order, root, loss = hand.climb(leaves_of(story.tree, row))
        z = story.encoder.network[-1](root)
        leaves = [unfolding.leaf(node) for node in hand.descend(hand.node(unfolding.root(z)), order)]
        log_p = dist.Normal(torch.cat(leaves), scale).log_prob(row).sum() + dist.Normal(0.0, 1.0).log_prob(z).sum()
        log_w.append(log_p - math.log(math.factorial(len(order))) + math.log(orders_of(order)))
        lost.append(loss)
    return torch.stack(log_w), torch.stack(lost)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("steps", [2, 5])
def test_every_log_weight_is_the_sum_of_its_terms_and_the_elbo_has_the_merges_too(steps):
    story, x = story_of((steps, FEATURES), weight=0.7), data_of(8, max(steps, 4))[:, : steps * FEATURES]
    expected, lost = terms(story, x)
    assert (lost > 0.01).all()
    for particles in (1, 3):
        log_w = log_weights(story, x, particles=particles)
        torch.testing.assert_close(log_w, expected.expand(particles, -1), rtol=0, atol=1e-9)
        assert iwae(story, x, particles=particles).item() == pytest.approx(
            (0.7 * lost - expected).mean().item(), abs=1e-9
        )
        for objective in (elbo, enumerated_elbo):
            hand = -(expected - 0.7 * lost).mean()
            assert objective(story, x, particles=particles).item() == pytest.approx(hand.item(), abs=1e-9)
    trained = [parameter for parameter in story.parameters() if parameter.requires_grad]
    by_hand = torch.autograd.grad(hand, trained)
    pyros = Trace_ELBO().differentiable_loss(story.model, story.guide, x) / len(x)
    for loss in (elbo(story, x), pyros):
        torch.testing.assert_close(torch.autograd.grad(loss, trained), by_hand, rtol=0, atol=1e-9)


class Widened(nn.Module):
    """A user's encoder around that of a story."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        return dist.Normal(self.encoder(x).mean, 0.5).to_event(1)


def test_an_encoder_can_be_swapped_after_a_fit():
    story, x = story_of(), data_of()
    ppvae.fit(story, x, epochs=2, progress=False)
    story.encoder = Widened(story.encoder)
    latents, log_q, *_ = draw(story, x, particles=4)
    z, tree = latents["z"], latents["tree"]
    assert (z.shape, tree.shape) == ((4, 20, 2), (4, 20, 4))
    assert z.std(0).min() > 0
    torch.testing.assert_close(log_q, story.encoder(x).log_prob(z) - log_orders(tree))
    p = story.likelihood(torch.cat([z, tree], dim=-1))
    by_hand = p.log_prob(x) + dist.Normal(0.0, 1.0).log_prob(z).sum(-1) - math.log(24)
    torch.testing.assert_close(log_joint(story, x, latents), by_hand)
    for k in range(4):
        alone = story.likelihood(torch.cat([z[k], tree[k]], dim=-1)).log_prob(x)
        torch.testing.assert_close(p.log_prob(x)[k], alone)


def test_a_heavier_weight_makes_merges_that_lose_less():
    lost = {}
    for weight in (0.0, 3.0):
        story, x = story_of(sharp=1, weight=weight), data_of()
        ppvae.fit(story, x, epochs=60, lr=1e-2, progress=False)
        lost[weight] = story.tree.cell.loss(*story.tree(x)[1:]).sum(-1).mean().item()
    assert lost[3.0] < 0.5 * lost[0.0]


@pytest.mark.parametrize(
    ("shape", "likelihood"),
    [
        ((2, 1), likelihoods.Normal),
        ((STEPS, FEATURES), partial(likelihoods.Normal, learned=True)),
        ((1, 4, 3), likelihoods.HeteroscedasticNormal),
    ],
    ids=["two steps", "a sequence", "an image"],
)
class TestContract:
    def test_fit_lowers_the_loss_and_every_figure_stays_finite(self, shape, likelihood):
        story, x = story_of(shape, likelihood, sharp=1), data_of(20, 12, math.prod(shape))[:, : math.prod(shape)]
        history = ppvae.fit(story, x, valid=x, epochs=40, lr=1e-2, progress=False)
        assert sum(history.loss[-5:]) < sum(history.loss[:5])
        assert history.valid[-1] < history.valid[0]
        assert log_weights(story, x[:1], particles=3).isfinite().all()
        assert reconstruct(story, x).shape == sample(story, x, means=True).shape == x.shape
        assert sample(story, x[:1], means=True).shape == x[:1].shape

    def test_the_gradient_reaches_every_parameter(self, shape, likelihood):
        for objective in (elbo, iwae, enumerated_elbo):
            story, x = story_of(shape, likelihood), data_of(20, 12, math.prod(shape))[:, : math.prod(shape)]
            objective(story, x, particles=2).backward()
            for name, parameter in story.named_parameters():
                assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name

    def test_plain_svi_trains_every_parameter(self, shape, likelihood):
        story, x = story_of(shape, likelihood), data_of(20, 12, math.prod(shape))[:, : math.prod(shape)]
        before = {name: parameter.clone() for name, parameter in story.named_parameters()}
        SVI(story.model, story.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
        for name, parameter in story.named_parameters():
            assert torch.equal(parameter, before[name]) != parameter.requires_grad, name

    def test_generation_is_the_model_without_its_observation(self, shape, likelihood):
        story, features = story_of(shape, likelihood), math.prod(shape)
        assert pyro.poutine.uncondition(story.model)(torch.empty(9, features)).shape == (9, features)


def test_a_figure_of_one_datum_does_not_depend_on_the_rest_of_its_batch():
    story, x = story_of(), data_of()
    together = log_weights(story, x)
    alone = torch.cat([log_weights(story, x[row : row + 1]) for row in range(len(x))], dim=1)
    torch.testing.assert_close(alone, together)
    torch.testing.assert_close(log_weights(story, x.flip(0)).flip(1), together)


def test_the_model_draws_its_trees_alike_and_its_data_by_them():
    story = story_of((3, FEATURES))
    trace = run(story.model, (torch.zeros(50, 9),), particles=40)
    tree = trace.nodes["tree"]["value"]
    assert tree.shape == (40, 50, 2)
    assert abs(tree[..., 0].mean().item() - 0.5) < 4 * 0.5 / math.sqrt(2000)
    z = torch.randn(LATENT)
    left, right = (story.likelihood(torch.cat([z, torch.tensor([at, 0.0])])).mean for at in (0.0, 1.0))
    assert (left - right).abs().max() > 0.01


@pytest.mark.parametrize("program", ["model", "guide"])
def test_either_program_names_every_parameter_to_pyro(program):
    story = story_of()
    trace = pyro.poutine.trace(getattr(story, program)).get_trace(data_of())
    assert len(trace.param_nodes) == sum(parameter.requires_grad for parameter in story.parameters())


def test_a_tree_is_marked_as_no_code():
    story = story_of()
    assert pyro.poutine.trace(story.guide).get_trace(data_of()).nodes["tree"]["infer"]["code"] is False


def test_levels_are_scaled_at_the_leaves():
    x = torch.randint(0, 17, (6, 8, 8)).float().flatten(1)
    options = {"maximum": 16, "likelihood": likelihoods.Binomial, "sharp": 1}
    levels = story_of((1, 8, 8), input_scale=1 / 16, **options)
    unit = story_of((8, 8), **options)
    assert torch.equal(levels.tree(x).order, unit.tree(x / 16).order)
    torch.testing.assert_close(levels.encoder(x).mean, unit.encoder(x / 16).mean)
    history = ppvae.fit(levels, x, epochs=20, lr=1e-2, progress=False)
    assert history.loss[-1] < history.loss[0]
    torch.testing.assert_close(levels.tree.shape, (8, 8))


def test_what_goes_up_and_what_goes_down_share_one_cell_in_a_copy_and_a_file_too(tmp_path):
    story, x = story_of(), data_of()
    other = copy.deepcopy(story)
    for made in (story, other):
        assert made.tree.cell is made.likelihood.network.network.cell is made.encoder.network[0].tree.cell
    assert other.tree.cell is not story.tree.cell
    torch.save(story.state_dict(), tmp_path / "weights.pt")
    again = story_of(seed=1)
    assert not torch.equal(log_weights(again, x), log_weights(story, x))
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(log_weights(again, x), log_weights(story, x))


def test_float64_all_the_way():
    story, x = story_of().double(), data_of().double()
    assert log_weights(story, x).dtype == elbo(story, x).dtype == torch.float64
    assert sample(story, x, means=True).dtype == torch.float64
    for program in (story.model, story.guide):
        assert pyro.poutine.trace(program).get_trace(x).nodes["tree"]["value"].dtype == torch.float64


def test_any_leading_dimensions():
    story, x = story_of(), data_of().unflatten(0, (2, 2, 5))
    climbed = story.tree(x)
    assert [tuple(part.shape) for part in climbed] == [(2, 2, 5, 4), (2, 2, 5, 4, 2, 6), (2, 2, 5, 4, 6)]
    torch.testing.assert_close(story.encoder(x[1, 0]).mean, story.encoder(x).mean[1, 0])


def test_the_family_says_its_own_size_and_start_and_hidden_is_for_the_others():
    story = story_of(network=networks.Recursive(7, "relu", "xavier"), sharp=1)
    assert story.tree.leaf.out_features == story.likelihood.network.network.leaf.in_features == 7
    assert isinstance(story.tree.cell.activation, nn.ReLU)
    linears = [layer for layer in story.modules() if isinstance(layer, nn.Linear)]
    assert all((layer.bias == 0).all() for layer in linears)
    torch.manual_seed(0)
    plain = recursive(
        priors.StandardNormal,
        likelihoods.Normal,
        encoders.PointMass,
        ppvae.models.Sizes((STEPS, FEATURES), LATENT, networks.MLP([5])),
        hidden=9,
    )
    assert plain.tree.leaf.out_features == 9


def test_blank_steps_and_biases_at_zero_leave_gradients_small():
    """A leaf of zeros has no direction, nor has what is merged of such leaves."""
    story = story_of((9, FEATURES), network=networks.Recursive(6, initialisation="orthogonal"), sharp=1)
    x = torch.randn(4, 9, FEATURES)
    x[:, :5] = 0
    assert (story.tree(x.flatten(1)).parents[:, 0] == 0).all()
    elbo(story, x.flatten(1)).backward()
    assert all(parameter.grad.norm() < 1e3 for parameter in story.parameters() if parameter.requires_grad)
    history = ppvae.fit(story, x.flatten(1), epochs=20, lr=1e-2, progress=False)
    assert history.loss[-1] < history.loss[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: story_of((8,)),
            r"the recursive story takes data of shape \(steps, features\).*at least 2, .*, got \(8,\)",
        ),
        (lambda: story_of((1, 3)), r"with steps at least 2, .*, got \(1, 3\)"),
        (lambda: story_of((3, 4, 4)), r"got \(3, 4, 4\)"),
        (lambda: story_of(weight=-1.0), r"weight should be finite and not negative, got -1\.0"),
        (lambda: GreedyTree((3, 2), 1, nn.Tanh()), "hidden should be at least 2, .*, got 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
