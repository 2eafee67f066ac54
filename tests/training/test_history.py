"""What a fit leaves behind, and what an objective says of data that nothing is learnt from."""

import pytest
import torch

from ppvae.inference import elbo
from ppvae.selfcheck.analytic import LinearGaussian
from ppvae.training.history import Epoch, History, assess, validate


def test_a_history_is_its_epochs_read_by_column():
    history = History([Epoch(1, 5.0, 6.0, 0.5), Epoch(2, 4.0, None, 0.25)])
    assert history.loss == [5.0, 4.0]
    assert history.valid == [6.0, None]
    assert history.seconds == 0.75
    assert History().epochs == []


def test_a_story_with_nothing_to_learn_has_the_evidence_of_its_data():
    """Under an exact guide every draw's ELBO is log p(x), however many parts the data are taken in."""
    known = LinearGaussian()
    story, data, valid = known.story(), known.data(2050), known.data(7, seed=2)
    record = assess(story, data, elbo, valid)
    assert record.epoch == 0
    assert record.loss == pytest.approx(-known.log_evidence(data).mean().item(), abs=1e-9)
    assert record.valid == pytest.approx(-known.log_evidence(valid).mean().item(), abs=1e-9)


def test_parts_of_unequal_size_count_by_their_rows_and_are_seen_in_evaluation_mode():
    story, x = LinearGaussian().story().train(), torch.arange(1025.0).unsqueeze(-1)
    seen = []

    def objective(story, batch):
        seen.append((len(batch[0]), story.training, torch.is_grad_enabled()))
        return batch[0].mean()

    assert validate(story, (x,), objective) == pytest.approx(512.0)
    assert seen == [(1024, False, False), (1, False, False)]
    assert story.training


def test_the_noise_is_the_same_every_time_and_no_generator_moves():
    known = LinearGaussian()
    story, x, state = known.story(widen=1.5), known.data(5), torch.get_rng_state()
    first = validate(story, (x,), elbo)
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(3)
    assert validate(story, (x,), elbo) == first
