"""What is read off a story's programs."""

from functools import partial

import pytest
import torch
from torch import nn

from ppvae.inference.program import traces
from ppvae.inference.program.traces import evaluating
from ppvae.models import Sizes, assemble, encoders, likelihoods, priors, stories
from ppvae.selfcheck.analytic import LinearGaussian


def test_modes_come_back_after_an_error():
    story = nn.Sequential(nn.Dropout(), nn.Linear(1, 1).eval())

    def fail():
        with evaluating(story):
            assert not story[0].training
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [module.training for module in story.modules()] == [True, True, False]


class TakesLabels:
    def model(self, x, labels, mask=None): ...

    def guide(self, x, labels, mask=None): ...


def test_a_batch_is_what_the_model_names():
    x, labels, mask = torch.zeros(3, 2), torch.arange(3), torch.ones(3, 2, dtype=torch.bool)
    known = LinearGaussian().story()
    assert len(traces.batch_for(known, x, labels=labels, library=x)) == 1
    assert traces.batch_for(TakesLabels(), x, labels=labels)[1] is labels
    assert traces.batch_for(TakesLabels(), x, mask=mask, labels=labels)[2] is mask
    with pytest.raises(ValueError, match="TakesLabels needs labels, which these data do not have"):
        traces.batch_for(TakesLabels(), x, labels=None)
    with pytest.raises(ValueError, match="takes no mask, so it cannot score data with missing values"):
        traces.batch_for(stories.ppca(None, None, None, Sizes((2,), 1)), x, mask=mask)


def test_a_library_size_goes_behind_a_mask_of_ones():
    parts = (priors.StandardNormal, partial(likelihoods.Poisson, library=True), encoders.DiagonalNormal)
    story, x = assemble(*parts, shape=(2,), latent=1), torch.ones(3, 2)
    batch = traces.batch_for(story, x, labels=None, mask=None, library=x.sum(-1, keepdim=True))
    assert [tuple(part.shape) for part in batch] == [(3, 2), (3, 2), (3, 1)]
    assert batch[1].all()
    assert traces.scored(story) == "p(x | library size)"
    assert traces.scored(LinearGaussian().story()) == ""
