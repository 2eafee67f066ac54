"""What a type checker knows of a story: `make lint` has mypy read this file, and here it runs."""

from functools import partial
from pathlib import Path
from typing import Any, assert_type

import torch
from torch import Tensor, nn

import ppvae
from ppvae.base import Story, StoryModule
from ppvae.models import VAE, Hierarchical, Linear, assemble, encoders, likelihoods, priors, stories


class Own(nn.Module):
    def model(self, x: Tensor) -> None: ...

    def guide(self, x: Tensor) -> None: ...


def test_assemble_gives_what_the_maker_of_the_story_gives() -> None:
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    assert_type(assemble(*parts, shape=(3,), latent=2), VAE)
    assert_type(assemble(*parts, shape=(3,), latent=2, story=stories.hierarchical), Hierarchical)
    assert_type(assemble(*parts, shape=(3,), latent=2, story=partial(stories.hierarchical, above=[3])), Hierarchical)
    assert_type(assemble(*parts, shape=(3,), latent=2, story=stories.ppca), Linear)


def test_load_gives_a_story_that_is_a_module_or_the_one_given(tmp_path: Path) -> None:
    parts = (partial(priors.GaussianMixture, components=2), likelihoods.Normal, encoders.DiagonalNormal)
    made = assemble(*parts, shape=(3,), latent=2)
    ppvae.save(made, tmp_path / "OUT")
    story = ppvae.load(tmp_path / "OUT")
    assert_type(story, StoryModule)
    both: tuple[Story, nn.Module] = (story, story)
    assert all(isinstance(both[place], kind) for place, kind in enumerate((Story, nn.Module)))
    assert_type(story.state_dict(), dict[str, Any])
    assert story.encoder(torch.zeros(5, 3)).event_shape == (2,)
    assert_type(ppvae.load(tmp_path / "OUT", story=made), VAE)


def test_fit_takes_the_classes_of_torch_optim() -> None:
    story, x = Linear(3, 2), torch.randn(20, 3)
    ppvae.fit(story, x, optimizer=torch.optim.AdamW, epochs=1, progress=False)
    ppvae.fit(story, x, optimizer=partial(torch.optim.SGD, momentum=0.9), epochs=1, progress=False)

    def slower(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr / 2)

    assert len(ppvae.fit(story, x, optimizer=slower, epochs=2, progress=False).epochs) == 2
