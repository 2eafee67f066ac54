"""A story and its data, prepared: as its programs see them, checked once, in parts, and run with nothing changed."""

import pyro
import pytest
import torch
from torch import nn

from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.streams import keys
from ppvae.models import VAE, encoders, likelihoods, priors


def story():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 4))
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(nn.Linear(2, 2)), encoders.DiagonalNormal(encoder))


def data(rows=5):
    return torch.bernoulli(torch.full((rows, 2), 0.5))


def test_data_are_as_the_programs_see_them_and_prepared_once():
    x, mask = data(), torch.ones(5, 2, dtype=torch.bool)
    x[1, 0], mask[1, 0] = torch.nan, False
    task = prepared(story(), (x, mask))
    assert torch.equal(task.batch[0], x.nan_to_num(nan=0.0))
    assert torch.equal(task.batch[1], mask)
    assert prepared(task.story, task) is task


def test_parts_are_rows_in_turn():
    x, index = data(), torch.arange(5)
    task = Prepared(story(), (x, index))
    assert len(task) == 5
    assert [part.tolist() for part in task.first] == [x[:1].tolist(), [0]]
    assert [part.tolist() for part in task.datum(3)] == [x[3:4].tolist(), [3]]
    assert task.rows(slice(1, 4)).batch[1].tolist() == [1, 2, 3]
    assert [part.batch[1].tolist() for part in task.chunks(2)] == [[0, 1], [2, 3], [4]]
    assert all(part.story is task.story for part in task.chunks(2))


def test_a_datum_is_keyed_among_all_data():
    """Of two equal rows the second knows that it is, which it could not in a part."""
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = prepared(story(), x).keys(seed=3)
    assert found == keys((x,), 3)
    assert len(set(found)) == 3


@pytest.mark.parametrize("value", [1.0, 0.5])
def test_no_generator_moves_whether_data_are_refused_or_not(value):
    given = story()
    state, x = torch.get_rng_state(), torch.full((3, 2), value)
    if value == 0.5:
        with pytest.raises(ValueError, match="binarise"):
            prepared(given, x)
    else:
        prepared(given, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert given.training


@pytest.mark.parametrize("fails", [False, True])
def test_while_it_runs_the_story_is_evaluated_and_all_comes_back(fails):
    task = prepared(story(), data())
    task.story.train()
    state, enabled = torch.get_rng_state(), torch.backends.cudnn.enabled

    def use():
        with task.running():
            assert not any(module.training for module in task.story.modules())
            assert not pyro.settings.get("validate_distributions_pyro")
            assert not torch.backends.cudnn.enabled
            torch.randn(3)
            if fails:
                raise RuntimeError

    if fails:
        with pytest.raises(RuntimeError):
            use()
    else:
        use()
    assert all(module.training for module in task.story.modules())
    assert pyro.settings.get("validate_distributions_pyro")
    assert torch.backends.cudnn.enabled == enabled
    assert torch.equal(torch.get_rng_state(), state)
