"""Adam without its bookkeeping is torch's, to the last bit."""

import copy

import pytest
import torch
from torch import nn

from ppvae.compilation.adam import Adam, Operators, has_operators


def stepped(make, steps, change=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Linear(2, 2))
    optimizer = make(list(net[:3].parameters()))  # the last layer learns elsewhere
    for step in range(steps):
        if change is not None:
            change(step, net, optimizer)
        optimizer.zero_grad()
        net[:3](torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in net.parameters()], optimizer


def rate(step, net, optimizer):
    optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)


def later_group(step, net, optimizer):
    if step == 3:
        optimizer.add_param_group({"params": list(net[3].parameters()), "lr": 0.1})


def frozen(step, net, optimizer):
    net[0].weight.requires_grad_(step % 2 == 0)
    net[0].weight.grad = None


def reloaded(step, net, optimizer):
    if step == 4:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def other_settings(step, net, optimizer):
    if step == 2:
        optimizer.param_groups[0].update(betas=(0.5, 0.7), eps=0.1, weight_decay=0.2)


def of_two_kinds(step, net, optimizer):
    if step == 0:
        net[2].double()
        net[1].register_forward_hook(lambda module, inputs, output: output.double())


@pytest.mark.parametrize("change", [None, rate, later_group, frozen, reloaded, other_settings, of_two_kinds])
def test_it_is_torchs_to_the_last_bit(change):
    ours, optimizer = stepped(lambda parameters: Adam(parameters, lr=0.01), 8, change)
    theirs, other = stepped(lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True), 8, change)
    for one, two in zip(ours, theirs, strict=True):
        assert torch.equal(one, two)
    for one, two in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_a_closure_is_torchs_own_step():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Adam([parameter], lr=0.1)

    def closure():
        parameter.grad = torch.ones(2)
        return torch.tensor(3.0)

    assert optimizer.step(closure) == 3
    assert torch.allclose(parameter, torch.full((2,), 0.9))


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
def test_its_operators_clip_as_torch_does(clip):
    """A norm that is small enough is left alone: gradients are never stretched to the largest that they may have."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 2).double()), nn.Parameter(torch.randn(4).double())]
    theirs = copy.deepcopy(parameters)
    optimizer, other = Adam(parameters, lr=0.01), torch.optim.Adam(theirs, lr=0.01)
    for one in (optimizer, other):
        one.param_groups[0].update(betas=(0.5, 0.7), eps=0.1)
    operators = Operators(optimizer, parameters, clip)
    for _ in range(3):
        gradients = [torch.randn_like(parameter) for parameter in parameters]
        with torch.no_grad():
            operators(parameters, gradients, operators.next())
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(theirs, clip)
        other.step()
    for one, two in zip(parameters, theirs, strict=True):
        torch.testing.assert_close(one, two)
        for name, kept in other.state[two].items():
            torch.testing.assert_close(optimizer.state[one][name], kept)


def test_there_are_operators_for_one_plain_group_that_is_in_step():
    def made(*shapes, **settings):
        parameters = [nn.Parameter(torch.ones(shape)) for shape in shapes]
        optimizer = Adam(parameters, lr=0.1)
        optimizer.param_groups[0].update(settings)
        return optimizer, parameters

    assert has_operators(*made(2, 3))
    assert has_operators(*made(2, betas=(0.5, 0.7), eps=0.1))
    for setting in ({"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}):
        assert not has_operators(*made(2, **setting))
    optimizer, parameters = made(2, 3)
    assert not has_operators(optimizer, [*parameters, nn.Parameter(torch.ones(1))])  # one that it does not move
    parameters[0].grad = torch.ones(2)
    optimizer.step()  # of one alone
    assert not has_operators(optimizer, parameters)
    assert has_operators(optimizer, parameters[:1])
    optimizer, parameters = made(2, 3)
    parameters[0].data = parameters[0].data.half()
    assert not has_operators(optimizer, parameters)
    assert not has_operators(optimizer, parameters[:1])
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert not has_operators(optimizer, parameters[1:])
