"""Networks: any leading dimensions, layers as asked for."""

import torch

from ppvae import networks


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
