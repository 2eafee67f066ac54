"""Networks: any leading dimensions, shapes as asked for, each family against the same by hand."""

import math
from dataclasses import replace
from functools import partial
from math import prod

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from torch import nn

import ppvae
from ppvae import networks
from ppvae.base import Architecture
from ppvae.inference import elbo
from ppvae.models import assemble, encoders, likelihoods, priors
from ppvae.networks.recursive import levels

FAMILIES = {
    "MLP": networks.MLP([7, 5], "tanh"),
    "GatedMLP": networks.GatedMLP([7, 5]),
    "Convolutional": networks.Convolutional([3, 4], hidden=[6]),
    "PooledConvolutional": networks.PooledConvolutional([3, 4], pool="average"),
    "GatedConvolutional": networks.GatedConvolutional([3, 4], hidden=[6], activation="tanh"),
    "Residual": networks.Residual([3, 4], activation="elu"),
    "LSTM": networks.LSTM(6, layers=2),
    "Recursive": networks.Recursive(6),
}
IMAGES = ["Convolutional", "PooledConvolutional", "GatedConvolutional", "Residual"]
SHAPES = {name: (2, 5, 6) if name in IMAGES else (5, 3) for name in FAMILIES}


def test_every_family_is_tested():
    families = {name for name in networks.__all__ if hasattr(getattr(networks, name), "decoder")}
    assert families == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
class TestFamilies:
    def halves(self, name, **changes):
        """The two networks and how many inputs each takes."""
        family, shape = replace(FAMILIES[name], **changes), SHAPES[name]
        return (family.encoder(shape, 2), prod(shape)), (family.decoder(3, shape, 2), 3)

    @pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,), (2, 0)])
    def test_any_leading_dimensions(self, name, leading):
        for (network, inputs), outputs in zip(self.halves(name), (2, 2 * prod(SHAPES[name])), strict=True):
            assert network(torch.randn(*leading, inputs)).shape == (*leading, outputs)

    def test_no_datum_sees_another(self, name):
        for network, inputs in self.halves(name):
            x = torch.randn(4, 3, inputs)
            together = network(x)
            for i, j in [(0, 0), (3, 1)]:
                torch.testing.assert_close(together[i, j], network(x[i, j]))

    def test_the_gradient_reaches_every_parameter(self, name):
        for network, inputs in self.halves(name):
            network(torch.randn(20, inputs)).square().sum().backward()
            for label, parameter in network.named_parameters():
                assert parameter.grad.abs().sum() > 0, label

    def test_float64_all_the_way(self, name):
        for network, inputs in self.halves(name):
            assert network.double()(torch.randn(2, inputs).double()).dtype == torch.float64

    def test_outputs_lie_side_by_side(self, name):
        """The last layer's rows of the second output made constant: the second half of the output is that constant."""
        features, (_, (network, _)) = prod(SHAPES[name]), self.halves(name)
        last = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
        last = next(layer for layer in last[::-1] if len(layer.bias) % 2 == 0 and features * 2 % len(layer.bias) == 0)
        half = len(last.bias) // 2
        with torch.no_grad():
            (last.weight[:, half:] if isinstance(last, nn.ConvTranspose2d) else last.weight[half:]).zero_()
            last.bias[half:] = 7.0
        first, second = network(torch.randn(4, 3)).chunk(2, -1)
        assert (second == 7).all()
        assert (first != 7).all()

    @pytest.mark.parametrize("initialisation", ["xavier", "kaiming", "orthogonal", "normal"])
    def test_every_initialisation_leaves_a_network_that_works(self, name, initialisation):
        import dataclasses

        family = dataclasses.replace(FAMILIES[name], initialisation=initialisation)
        for network, inputs in [
            (family.encoder(SHAPES[name], 2), prod(SHAPES[name])),
            (family.decoder(3, SHAPES[name], 2), 3),
        ]:
            assert network(torch.randn(4, inputs)).isfinite().all()
            assert all((p == 0).all() for label, p in network.named_parameters() if "bias" in label)

    def test_a_short_fit_lowers_the_loss(self, name):
        shape = SHAPES[name]
        parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
        story = assemble(*parts, shape=shape, latent=2, network=FAMILIES[name])
        x = torch.randn(40, 1) * torch.linspace(0, 2, prod(shape)) + 0.1 * torch.randn(40, prod(shape))
        torch.manual_seed(1)  # the same draws, and many: one draw's noise is as large as a slow family's gain
        before = elbo(story, x, particles=100)
        ppvae.fit(story, x, epochs=15, batch_size=20, lr=1e-2, progress=False)
        torch.manual_seed(1)
        assert elbo(story, x, particles=100) < before

    def test_built_from_the_command_line(self, name):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--network", type=Architecture)
        size = "channels=[5]" if name in IMAGES else "hidden=[5]" if "MLP" in name else "hidden=5"
        options = parser.parse_args([f"--network=ppvae.networks.{name}", f"--network.{size}"])
        family = parser.instantiate(options).network
        assert type(family) is type(FAMILIES[name])
        assert family.encoder(SHAPES[name], 2)(torch.zeros(prod(SHAPES[name]))).shape == (2,)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [(8, 8), (1, 28, 28), (3, 7, 10), (1, 1), (1, 5)])
@pytest.mark.parametrize("options", [{}, {"stride": 3, "kernel": 5}, {"stride": 1, "kernel": 1}])
def test_an_image_of_any_size_comes_back_whole(name, shape, options):
    family = getattr(networks, name)(channels=[2, 3, 2], **options)
    assert family.encoder(shape, 4)(torch.zeros(2, prod(shape))).shape == (2, 4)
    assert family.decoder(4, shape, 3)(torch.zeros(2, 4)).shape == (2, 3 * prod(shape))


def layers_of(network, *kinds):
    return [layer for layer in network.modules() if isinstance(layer, kinds)]


class TestAgainstTheSameByHand:
    x = torch.randn(4, 2 * 5 * 6, generator=torch.Generator().manual_seed(0))
    image = x.view(4, 2, 5, 6)

    def test_strided_convolutions_and_back(self):
        family = networks.Convolutional([3, 4], hidden=[6])
        encoder, decoder = family.encoder((2, 5, 6), 2), family.decoder(2, (2, 5, 6), 1)
        one, two, dense, out = layers_of(encoder, nn.Conv2d, nn.Linear)
        h = F.conv2d(self.image, one.weight, one.bias, stride=2, padding=1).relu()
        h = F.conv2d(h, two.weight, two.bias, stride=2, padding=1).relu()
        torch.testing.assert_close(encoder(self.x), out(dense(h.flatten(1)).relu()))
        z = torch.randn(4, 2)
        dense, top, two, one = layers_of(decoder, nn.ConvTranspose2d, nn.Linear)
        h = top(dense(z).relu()).relu().view(4, 4, 2, 2)
        h = F.conv_transpose2d(h, two.weight, two.bias, stride=2, padding=1, output_padding=(0, 0))[..., :3, :3].relu()
        h = F.conv_transpose2d(h, one.weight, one.bias, stride=2, padding=1, output_padding=(0, 1))
        torch.testing.assert_close(decoder(z), h.flatten(1))

    def test_a_far_pixel_is_out_of_sight(self):
        convolution = networks.Convolutional([3]).encoder((2, 5, 6), 2).network[0]
        other = self.image.clone()
        other[:, :, 4, 5] += 1
        changed = (convolution(other) != convolution(self.image)).any(dim=(0, 1))
        assert not changed[:2, :2].any()
        assert changed[2, 2]

    def test_pooled_convolutions(self):
        family = networks.PooledConvolutional([3])
        encoder, decoder = family.encoder((2, 5, 6), 2), family.decoder(2, (2, 5, 6), 1)
        one, out = layers_of(encoder, nn.Conv2d, nn.Linear)
        h = F.conv2d(self.image, one.weight, one.bias, padding=1).relu()
        rows = [h[:, :, i : i + 2].amax(2) for i in (0, 2, 4)]
        h = torch.stack([torch.stack([row[..., j : j + 2].amax(-1) for j in (0, 2, 4)], -1) for row in rows], 2)
        torch.testing.assert_close(encoder(self.x), out(h.flatten(1)))
        z = torch.randn(4, 2)
        top, one = layers_of(decoder, nn.Conv2d, nn.Linear)
        small = top(z).relu().view(4, 3, 3, 3)
        large = small[:, :, [i * 3 // 5 for i in range(5)]]  # the nearest pixel, rounded down
        large = large[..., [j * 3 // 6 for j in range(6)]]
        torch.testing.assert_close(decoder(z), F.conv2d(large, one.weight, one.bias, padding=1).flatten(1))

    def test_gated_layers(self):
        encoder = networks.GatedConvolutional([3], activation="tanh").encoder((2, 5, 6), 2)
        value, gate, out = layers_of(encoder, nn.Conv2d, nn.Linear)
        v, g = (F.conv2d(self.image, c.weight, c.bias, stride=2, padding=1) for c in (value, gate))
        torch.testing.assert_close(encoder(self.x), out((v.tanh() * g.sigmoid()).flatten(1)))
        encoder = networks.GatedMLP([8]).encoder((2, 5, 6), 2)
        value, gate, out = layers_of(encoder, nn.Linear)
        joined = F.linear(self.x, torch.cat([value.weight, gate.weight]), torch.cat([value.bias, gate.bias]))
        torch.testing.assert_close(encoder(self.x), out(F.glu(joined)))

    def test_residual_blocks(self):
        encoder = networks.Residual([3], blocks=2).encoder((2, 5, 6), 2)
        a, b, shortcut, c, d, out = layers_of(encoder, nn.Conv2d, nn.Linear)
        assert shortcut.kernel_size == (1, 1)
        h = F.conv2d(self.image, a.weight, a.bias, stride=2, padding=1).relu()
        skip = F.conv2d(self.image[:, :, ::2, ::2], shortcut.weight, shortcut.bias)
        h = (skip + F.conv2d(h, b.weight, b.bias, padding=1)).relu()
        h = (h + F.conv2d(F.conv2d(h, c.weight, c.bias, padding=1).relu(), d.weight, d.bias, padding=1)).relu()
        torch.testing.assert_close(encoder(self.x), out(h.flatten(1)))

    def test_an_lstm_that_reads(self):
        encoder = networks.LSTM(6).encoder((5, 12), 2)
        (lstm,), (out,) = layers_of(encoder, nn.LSTM), layers_of(encoder, nn.Linear)
        h, c = torch.zeros(4, 6), torch.zeros(4, 6)
        for x in self.x.view(4, 5, 12).unbind(1):
            h, c = cell(lstm, x, h, c)
        torch.testing.assert_close(encoder(self.x), out(h))

    def test_an_lstm_that_unrolls(self):
        decoder = networks.LSTM(6).decoder(2, (5, 3), outputs=2)
        (lstm,), (start, out) = layers_of(decoder, nn.LSTM), layers_of(decoder, nn.Linear)
        z = torch.randn(4, 2)
        h, c = start(z).chunk(2, -1)
        steps = []
        for _ in range(5):
            h, c = cell(lstm, z, h, c)
            steps.append(out(h))
        first, second = (torch.cat([step.chunk(2, -1)[k] for step in steps], -1) for k in (0, 1))
        torch.testing.assert_close(decoder(z), torch.cat([first, second], -1))

    def test_every_layer_of_an_lstm_has_a_start_of_its_own(self):
        decoder = networks.LSTM(6, layers=2).decoder(2, (1, 3), outputs=1)
        (lstm,), (start, out) = layers_of(decoder, nn.LSTM), layers_of(decoder, nn.Linear)
        z = torch.randn(4, 2)
        h0, h1, c0, c1 = start(z).chunk(4, -1)
        first, _ = cell(lstm, z, h0, c0)
        second, _ = cell(lstm, first, h1, c1, layer=1)
        torch.testing.assert_close(decoder(z), out(second))

    @pytest.mark.parametrize("steps", [2, 3, 4, 5, 6, 7])
    def test_a_tree_that_merges(self, steps):
        encoder = networks.Recursive(6).encoder((steps, 3), 2)
        leaf, merge, out = layers_of(encoder, nn.Linear)
        x = torch.randn(4, steps, 3)
        a, *rest = (leaf(x[:, i]).tanh() for i in range(steps))

        def m(left, right):
            return merge(torch.cat([left, right], -1)).tanh()

        def three(a, b, c):
            return m(m(a, b), c)

        def four(a, b, c, d):
            return m(m(a, b), m(c, d))

        by_hand = {
            2: m,
            3: three,
            4: four,
            5: lambda a, b, c, d, e: m(four(a, b, c, d), e),
            6: lambda a, b, c, d, e, f: m(four(a, b, c, d), m(e, f)),
            7: lambda a, b, c, d, e, f, g: m(four(a, b, c, d), three(e, f, g)),
        }
        torch.testing.assert_close(encoder(x.flatten(1)), out(by_hand[steps](a, *rest)))

    @pytest.mark.parametrize("steps", [2, 3, 4, 5, 6, 7])
    def test_a_tree_that_splits(self, steps):
        decoder = networks.Recursive(6).decoder(2, (steps, 3), outputs=2)
        root, split, leaf = layers_of(decoder, nn.Linear)
        z = torch.randn(4, 2)

        def leaves(node, count):
            """Left below a node as many as the largest power of two that leaves something for the right."""
            if count == 1:
                return [leaf(node)]
            left = 2 ** math.ceil(math.log2(count) - 1)
            a, b = split(node).tanh().chunk(2, -1)
            return leaves(a, left) + leaves(b, count - left)

        nodes = leaves(root(z).tanh(), steps)
        expected = torch.cat([node.chunk(2, -1)[k] for k in (0, 1) for node in nodes], -1)
        torch.testing.assert_close(decoder(z), expected)


def cell(lstm, x, h, c, layer=0):
    """One step of one layer, as Hochreiter & Schmidhuber (and Gers et al., for the forget gate) write it."""
    weights = [getattr(lstm, f"{kind}_l{layer}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    i, f, g, o = (x @ weights[0].T + h @ weights[1].T + weights[2] + weights[3]).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def test_a_tree_is_balanced():
    for leaves in range(1, 70):
        assert len(levels(leaves)) == 1 + math.ceil(math.log2(leaves))


def test_a_network_acts_on_the_last_dimension():
    network = networks.mlp(3, [7, 5], 2, activation=torch.nn.Tanh)
    x = torch.randn(4, 6, 3)
    torch.testing.assert_close(network(x)[2, 1], network(x[2, 1]))
    assert [type(layer).__name__ for layer in network] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    assert isinstance(networks.mlp(3, [], 2)[0], torch.nn.Linear)
    assert len(networks.mlp(3, [], 2)) == 1


def test_a_scale_is_kept_with_the_weights_and_not_learnt():
    scale = networks.Scale(0.25)
    assert torch.equal(scale(torch.tensor([8.0])), torch.tensor([2.0]))
    assert list(scale.parameters()) == []
    again = networks.Scale(1.0)
    again.load_state_dict(scale.state_dict())
    assert again.factor == 0.25


class TestInitialisation:
    @pytest.mark.parametrize(("name", "variance"), [("xavier", 2 / 500), ("kaiming", 2 / 200), ("normal", 0.02**2)])
    def test_weights_have_the_variance_of_the_paper(self, name, variance):
        for layer in (nn.Linear(200, 300), nn.Conv2d(8, 12, 5), nn.ConvTranspose2d(8, 12, 5)):
            networks.initialise(layer, name)
            weight = layer.weight.detach()
            error = weight.square().std() / math.sqrt(weight.numel())
            fans = variance if name != "kaiming" or isinstance(layer, nn.Linear) else 2 / (8 * 25)
            assert (weight.square().mean() - fans).abs() < 4 * error
            assert (layer.bias == 0).all()

    def test_an_lstms_gates_start_one_by_one(self):
        lstm = networks.initialise(nn.LSTM(200, 300), "xavier")
        for gate in lstm.weight_ih_l0.detach().chunk(4):
            assert gate.abs().max() == pytest.approx(math.sqrt(6 / 500), rel=1e-2)
        lstm = networks.initialise(nn.LSTM(3, 5), "orthogonal")
        for gate in lstm.weight_hh_l0.detach().chunk(4):
            torch.testing.assert_close(gate @ gate.T, torch.eye(5), atol=1e-5, rtol=0)

    def test_orthogonal_maps_keep_lengths(self):
        for layer in (nn.Linear(6, 4), nn.Conv2d(6, 4, 1), nn.ConvTranspose2d(6, 4, 1)):
            weight = networks.initialise(layer, "orthogonal").weight.detach().flatten(1)
            weight = weight.T if isinstance(layer, nn.ConvTranspose2d) else weight
            torch.testing.assert_close(weight @ weight.T, torch.eye(4), atol=1e-5, rtol=0)

    def test_the_default_is_pytorchs(self):
        torch.manual_seed(0)
        expected = nn.Linear(3, 2)
        torch.manual_seed(0)
        network = networks.MLP([]).encoder((3,), 2)
        assert torch.equal(network[0].weight, expected.weight)


class TestOutputBias:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_the_output_starts_around_the_bias(self, name):
        network = FAMILIES[name].decoder(3, SHAPES[name], 2)
        bias, z = torch.randn(2 * prod(SHAPES[name])), torch.randn(4, 3)
        expected = network(z)
        if isinstance(network, nn.Sequential):
            expected = expected - network[-1].bias.detach()
        moved = networks.set_output_bias(network, bias)
        torch.testing.assert_close(moved(z), expected + bias)
        assert sum(p.numel() == bias.numel() and p.dim() == 1 for p in moved.parameters()) == 1
        moved(z).sum().backward()
        assert all(p.grad is not None for p in moved.parameters())

    @pytest.mark.parametrize(
        ("likelihood", "x"),
        [
            (likelihoods.Bernoulli, torch.eye(4)[[0, 1, 1, 2, 2, 2, 2, 2]]),
            (partial(likelihoods.Binomial, total_count=5), 5 * torch.eye(4)[[0, 0, 1, 2, 3]]),
            (likelihoods.Normal, torch.arange(12.0).view(3, 4)),
        ],
    )
    def test_a_story_starts_at_the_mean_of_the_data(self, likelihood, x):
        parts = (priors.StandardNormal, likelihood, encoders.DiagonalNormal)
        sizes = {"shape": (4,), "latent": 2, "network": networks.MLP([])}
        story = assemble(*parts, **sizes, x=x, output_bias=True)
        torch.testing.assert_close(story.likelihood(torch.zeros(2)).mean, x.mean(0), atol=1.01e-3, rtol=0)
        empty = assemble(*parts, **sizes, output_bias=True)  # of the same build, for weights to be loaded into
        empty.load_state_dict(story.state_dict())

    def test_a_likelihood_that_has_no_such_bias_is_refused(self):
        class Laplace(nn.Module):
            def __init__(self, network):
                super().__init__()

        parts = (priors.StandardNormal, Laplace, encoders.DiagonalNormal)
        with pytest.raises(ValueError, match=r"output_bias needs a likelihood .*; Laplace has none"):
            assemble(*parts, shape=(4,), latent=2, output_bias=True)

    def test_its_type_is_the_networks(self):
        network = networks.Convolutional([2]).decoder(3, (4, 4), 1).double()
        assert networks.set_output_bias(network, torch.zeros(16))(torch.zeros(3).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: networks.MLP([0]), "MLP: every one of hidden should be at least 1, got \\[0\\]"),
        (lambda: networks.MLP(activation="reul"), "MLP: activation should be one of relu, .*, got reul"),
        (lambda: networks.GatedMLP([3, -1]), "hidden should be at least 1"),
        (lambda: networks.Recursive(activation="tan"), "Recursive: activation should be one of tanh, .*, got tan"),
        (lambda: networks.GatedMLP().encoder((3,), 0), "outputs should be at least 1, got 0"),
        (lambda: networks.Convolutional([]), "channels should hold at least 1"),
        (lambda: networks.Convolutional([4, 0]), "channels should be at least 1"),
        (
            lambda: networks.Convolutional(kernel=99).encoder((8, 8), 2),
            "kernel should be at most 15 for images of 8 x 8",
        ),
        (lambda: networks.Convolutional(kernel=4), "Convolutional: kernel should be odd, .*got 4"),
        (lambda: networks.PooledConvolutional(stride=0), "PooledConvolutional: stride should be at least 1, got 0"),
        (lambda: networks.PooledConvolutional(pool="min"), "pool should be one of max, average, got min"),
        (lambda: networks.Residual(blocks=0), "blocks should be at least 1, got 0"),
        (lambda: networks.Residual().decoder(0, (4, 4), 1), "inputs should be at least 1, got 0"),
        (lambda: networks.LSTM(0), "LSTM: hidden should be at least 1, got 0"),
        (lambda: networks.LSTM(layers=0), "layers should be at least 1, got 0"),
        (lambda: networks.Recursive(0), "hidden should be at least 1, got 0"),
        (
            lambda: networks.MLP(initialisation="zero").encoder((3,), 2),
            "MLP: initialisation should be one of .*default.*, got zero",
        ),
        (lambda: networks.Convolutional().encoder((64,), 2), r"shape \(height, width\) or .*got \(64,\)"),
        (lambda: networks.Residual().decoder(2, (64,), 1), r"shape \(height, width\) or .*got \(64,\)"),
        (
            lambda: networks.LSTM().encoder((64,), 2),
            r"^LSTM takes data of shape \(steps, features\), or .*, got \(64,\)",
        ),
        (lambda: networks.LSTM().decoder(2, (3, 8, 8), 2), r"or \(1, height, width\), got \(3, 8, 8\)"),
        (
            lambda: networks.Recursive().encoder((1, 3), 2),
            r"features\) with steps at least 2, .*, got \(1, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", [networks.LSTM(8), networks.Recursive(8)])
def test_a_grey_image_is_read_row_by_row(family):
    torch.manual_seed(0)
    of_rows = family.encoder((8, 5), 2), family.decoder(2, (8, 5), 3)
    torch.manual_seed(0)
    of_images = family.encoder((1, 8, 5), 2), family.decoder(2, (1, 8, 5), 3)
    x, z = torch.randn(4, 40), torch.randn(4, 2)
    assert torch.equal(of_rows[0](x), of_images[0](x))
    assert torch.equal(of_rows[1](z), of_images[1](z))
