"""The data shared out over processes: no figure changes."""

from functools import partial

import pytest
import torch
from stories import fingerprint
from torch import nn
from torch.multiprocessing import get_context

from ppvae.inference import annealed, importance, in_processes
from ppvae.inference.evidence import workers
from ppvae.inference.evidence.evidence import COLUMNS
from ppvae.inference.evidence.workers import _shares
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.models.missing import masked
from ppvae.selfcheck.analytic import LinearGaussian


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.soak)])
def test_figures_are_the_same_to_the_last_bit_with_equal_rows_among_the_data(processes):
    known = LinearGaussian()
    x, story = known.data(11), known.story(widen=1.4, shift=0.2)
    x[7], x[9] = x[2], x[2]
    x[5, 1] = torch.nan
    batch = masked(x)
    estimator = partial(importance, particles=60, progress=False)
    alone = estimator(story, batch)
    before = fingerprint(story)
    shared = in_processes(estimator, story, batch, processes)
    assert fingerprint(story) == before
    for name in COLUMNS:
        assert torch.equal(getattr(shared, name), getattr(alone, name)), name
    assert (shared.bound, shared.method, shared.measure) == (alone.bound, alone.method, alone.measure)
    assert len({alone.estimate[row].item() for row in (2, 7, 9)}) == 3  # equal data have draws of their own


@pytest.mark.soak
def test_data_that_move_together_are_the_same_but_for_rounding():
    known = LinearGaussian()
    estimator = partial(annealed, particles=4, num_temperatures=5, progress=False)
    x, story = known.data(6), known.story(widen=1.4)
    shared = in_processes(estimator, story, x, 2)
    torch.testing.assert_close(shared.estimate, estimator(story, x).estimate, atol=1e-9, rtol=0)


def test_every_row_has_one_place_and_equal_rows_have_the_same():
    x = torch.randn(40, 3)
    x[30:] = x[:10]
    shares = _shares((x,), 4)
    assert torch.cat(shares).sort().values.tolist() == list(range(40))
    assert len(shares) == 4
    place = torch.empty(40, dtype=torch.long)
    for number, share in enumerate(shares):
        place[share] = number
        assert (share.diff() > 0).all()  # in their order
    assert torch.equal(place[30:], place[:10])


def test_one_process_is_no_process():
    calls = []

    def estimator(story, data):  # pickle would not take it
        calls.append(data)
        return importance(story, data, particles=30, progress=False)

    known = LinearGaussian()
    x = known.data(3)
    in_processes(estimator, known.story(), x, 1)
    in_processes(estimator, known.story(), x[:1].repeat(4, 1), 3)  # all in one share
    assert len(calls) == 2


def test_what_cannot_be_sent_is_refused_in_one_line():
    class Hidden(VAE):
        pass

    story = Hidden(
        priors.StandardNormal(2), likelihoods.Normal(nn.Linear(2, 5)), encoders.DiagonalNormal(nn.Linear(5, 4))
    )
    estimator = partial(importance, particles=30)
    with pytest.raises(ValueError, match="should be one that pickle takes, its class in a file, but: ") as error:
        in_processes(estimator, story, torch.randn(40, 5), 2)  # fewer may have one share, by chance
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="should be one that pickle takes"):
        in_processes(lambda story, data: None, LinearGaussian().story(), LinearGaussian().data(40), 2)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.soak)])
def test_errors_of_a_process_come_back(start, monkeypatch):
    monkeypatch.setattr(workers, "get_context", lambda _: get_context(start))  # a fork imports nothing again
    known = LinearGaussian()
    with pytest.raises(ValueError, match="particles should be at least 1, got 0"):
        in_processes(partial(importance, particles=0, progress=False), known.story(), known.data(40), 2)
    with pytest.raises(ValueError, match="processes should be at least 1, got 0"):
        in_processes(importance, known.story(), known.data(6), 0)
