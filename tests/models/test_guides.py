"""Encoders: shapes, densities, gradients through their draws."""

import math

import pyro.distributions as dist
import pytest
import torch
from cases import ENCODERS
from torch import nn

from ppvae import networks
from ppvae.models import guides


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("leading", [(), (5,), (4, 5)])
def test_encoders_take_any_leading_dimensions(name, leading):
    build = ENCODERS[name]
    encoder = build(networks.mlp(3, [4], 2 * build(nn.Identity()).outputs))(torch.randn(*leading, 3))
    assert (encoder.batch_shape, encoder.event_shape) == (leading, (2,))
    assert encoder.has_rsample
    assert encoder.rsample().requires_grad


def test_a_diagonal_normal_encoder_is_what_its_network_says():
    network = nn.Identity()
    q = guides.DiagonalNormal(network)(torch.tensor([[1.0, 2.0, 0.0, math.log(3)]]))
    z = torch.tensor([[0.5, 4.0]])
    expected = dist.Normal(1.0, 1.0).log_prob(z[:, 0]) + dist.Normal(2.0, 3.0).log_prob(z[:, 1])
    torch.testing.assert_close(q.log_prob(z), expected)
