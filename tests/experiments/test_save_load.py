"""save and load: the same story to the last digit in another process, or one line that says why not."""

import copy
import json
import os
import subprocess
import sys
from functools import partial

import cases
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import yaml
from torch import nn

import ppvae
from ppvae import cli, data, networks
from ppvae.base import Story
from ppvae.experiments.lookup import names
from ppvae.inference import encode, log_weights
from ppvae.models import (
    VAE,
    assemble,
    encoders,
    fit_factor_analysis,
    fit_pca,
    fit_ppca,
    likelihoods,
    priors,
    stories,
)

LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
ARGUMENTS = {  # of the stories that a small test gives some
    "hierarchical": {"above": [2], "between": [5]},
    "ladder": {"above": [2], "between": [5]},
    "conditional": {"prior_given_labels": True},
    "sequence": {"hidden": 8},
    "recursive": {"hidden": 8},
    "denoising": {"corruption": "salt_and_pepper"},
    "contractive": {"weight": 0.3},
}
FAMILIES = {
    "MLP": networks.MLP([6, 4], activation="tanh"),
    "GatedMLP": networks.GatedMLP([6]),
    "Convolutional": networks.Convolutional([2]),
    "PooledConvolutional": networks.PooledConvolutional([2], pool="average"),
    "GatedConvolutional": networks.GatedConvolutional([2]),
    "Residual": networks.Residual([2]),
    "LSTM": networks.LSTM(6),
    "Recursive": networks.Recursive(6),
}


def of_parts(case):
    x = cases.data_of(**case)
    return cases.story_of(**case, x=x), (x,)


def of_a_story(name):
    prior = partial(priors.GaussianMixture, components=3) if name == "mixture" else priors.StandardNormal
    x = torch.randn(6, 4)
    story = assemble(
        prior,
        partial(likelihoods.Normal, learned=True),
        encoders.DiagonalNormal,
        shape=(2, 2) if name in {"sequence", "recursive"} else (4,),
        latent=2,
        story=partial(getattr(stories, name), **ARGUMENTS.get(name, {})),
        network=networks.MLP([8]),
        input_scale=0.5,
        x=x,
        classes=3,
    )
    return story, (x, LABELS) if name in {"conditional", "semi_supervised"} else (x,)


def of_a_family(name):
    shape = (4, 4) if name in {"LSTM", "Recursive"} else (1, 4, 4)
    x = torch.randint(0, 9, (6, 16)).float()
    parts = (priors.VampPrior, likelihoods.Binomial, encoders.InverseAutoregressiveFlow)
    sizes = {"shape": shape, "latent": 2, "network": FAMILIES[name], "x": x}
    return assemble(*parts, **sizes, maximum=8, input_scale=1 / 8, output_bias=True), (x,)


def solved(fit):
    x = torch.randn(20, 4)
    return fit(x, 2), (x[:6],)


def in_double(make):
    story, batch = make()
    return story.double(), tuple(part.double() for part in batch)


def halved(make):
    story, batch = make()
    return story.bfloat16(), tuple(part.bfloat16() for part in batch)


def ex_post():
    story, (x,) = of_a_story("autoencoder")
    story.prior = priors.ex_post(encode(story, x), components=2)
    return story, (x,)


KINDS = {
    **{" ".join(case.values()): partial(of_parts, case) for case in cases.PARTS},
    **{name: partial(of_a_story, name) for name in names(stories)},
    **{name: partial(of_a_family, name) for name in FAMILIES},
    **{fit.__name__: partial(solved, fit) for fit in (fit_pca, fit_ppca, fit_factor_analysis)},
    "half precision": partial(halved, partial(of_a_story, "regularised")),
    "double precision": partial(in_double, partial(of_a_story, "vae")),
    "a solved story in double precision": partial(in_double, partial(solved, fit_ppca)),
    "a prior put in its place afterwards": ex_post,
}

ELSEWHERE = """
import pathlib, ppvae, torch
from ppvae.inference import log_weights

found = {}
for folder in pathlib.Path().iterdir():
    if folder.is_dir():
        story = ppvae.load(folder)
        batch = torch.load(f"{folder}.pt", weights_only=True)
        torch.manual_seed(1)
        found[folder.name] = {"log_w": log_weights(story, batch, particles=3).detach(), **story.state_dict()}
torch.save(found, "found.pt")
"""


def test_another_process_has_the_same_story_to_the_last_digit(tmp_path):
    """Every part, story and family, all of them in one process: to start it takes the longest."""
    expected, found = saved_and_loaded_elsewhere(tmp_path)
    for kind, tensors in expected.items():
        assert found[kind].keys() == tensors.keys(), kind
        for name, tensor in tensors.items():
            assert found[kind][name].dtype == tensor.dtype, (kind, name)
            same = {"rtol": 0, "atol": 0, "equal_nan": True}
            torch.testing.assert_close(found[kind][name], tensor, **same, msg=f"{kind}: {name}")


def saved_and_loaded_elsewhere(root):
    """Log-weights and tensors of a story of every kind, and what another process makes of its folder."""
    expected = {}
    for place, (kind, make) in enumerate(KINDS.items()):
        torch.manual_seed(0)
        story, batch = make()
        with torch.no_grad():
            for parameter in story.parameters():  # as after a fit: no weight is as it began
                parameter.add_(0.01 * torch.randn_like(parameter))
        story.eval()
        torch.manual_seed(1)
        expected[kind] = {"log_w": log_weights(story, batch, particles=3).detach(), **story.state_dict()}
        ppvae.save(story, root / str(place))
        torch.save(batch, root / f"{place}.pt")
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = torch.load(root / "found.pt", weights_only=True)
    return expected, {kind: found[str(place)] for place, kind in enumerate(KINDS)}


def test_every_story_and_every_family_is_among_them():
    assert set(names(stories)) <= KINDS.keys()
    assert set(names(networks)) == FAMILIES.keys()


# --- the folder


def a_story(**options):
    torch.manual_seed(0)
    parts = (priors.StandardNormal, likelihoods.Bernoulli, encoders.DiagonalNormal)
    return assemble(*parts, **{"shape": (64,), "latent": 2, "network": networks.MLP([8]), **options})


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def refusal(error, action, *arguments, **options):
    with pytest.raises(error) as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_files_are_plain_and_say_what_was_built():
    ppvae.save(a_story(network=networks.MLP((8,))), "OUT")
    assert set(os.listdir("OUT")) == {"config.yaml", "story.json", "weights.safetensors"}
    with open("OUT/config.yaml") as file:
        config = yaml.safe_load(file)
    assert config["latent"] == 2
    assert config["network"]["init_args"]["hidden"] == [8]
    assert config["likelihood"]["class_path"] == "ppvae.models.likelihoods.Bernoulli"
    assert "epochs" not in config
    with open("OUT/story.json") as file:
        assert json.load(file)["shape"] == [64]


def test_a_saved_story_is_fitted_and_saved_again():
    story, x = a_story(), torch.bernoulli(torch.full((30, 64), 0.5))
    ppvae.fit(story, x, epochs=1, progress=False)
    ppvae.save(story, "one")
    back = ppvae.load("one")
    assert isinstance(back, Story)
    assert not back.training
    for again in (story, back):
        ppvae.fit(again, x, epochs=2, progress=False, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(story.parameters(), back.parameters(), strict=True))
    ppvae.save(back, "two")
    assert torch.equal(ppvae.load("two").encoder.network[0].weight, story.encoder.network[0].weight)


def test_a_copy_of_a_story_is_saved_as_it_is():
    story = copy.deepcopy(a_story())
    ppvae.save(story, "OUT")
    assert torch.equal(ppvae.load("OUT").encoder.network[0].weight, story.encoder.network[0].weight)


def test_what_does_not_learn_is_kept_so():
    story = a_story()
    story.likelihood.requires_grad_(False)
    ppvae.save(story, "OUT")
    learning = [[p.requires_grad for p in one.parameters()] for one in (story, ppvae.load("OUT"))]
    assert learning[0] == learning[1]
    ppvae.save(fit_ppca(torch.randn(20, 4), 2).requires_grad_(False), "solved")
    with pytest.raises(ValueError, match="something to learn"):
        ppvae.fit(ppvae.load("solved"), torch.randn(20, 4))


def test_saving_draws_nothing_and_changes_nothing():
    story, before = a_story().train(), torch.get_rng_state()
    weights = copy.deepcopy(story.state_dict())
    ppvae.save(story, "OUT")
    assert torch.equal(torch.get_rng_state(), before)
    assert story.training
    assert all(torch.equal(weights[name], tensor) for name, tensor in story.state_dict().items())


def test_a_folder_in_use_is_left_as_it_is():
    os.makedirs("used")
    open("used/thesis", "w").close()
    assert "new or empty" in refusal(FileExistsError, ppvae.save, a_story(), "used")
    os.makedirs("empty")
    ppvae.save(a_story(), "empty")
    assert "new or empty" in refusal(FileExistsError, ppvae.save, a_story(), "empty")
    assert os.listdir("used") == ["thesis"]


def test_a_run_is_loaded_saved_and_loaded_again():
    words = ["--data", "a.npy", "--latent", "2", "--prior", "ExPost", "--prior.components", "2", "--epochs", "1"]
    np.save("a.npy", np.random.default_rng(0).normal(size=(40, 4)))
    assert cli.main(["fit", *words, "--out", "RUN"]) == 0
    ppvae.save(ppvae.load("RUN"), "OUT", data=data.load_dataset("a.npy"))
    x = data.load_dataset("a.npy").test
    weights = []
    for folder in ("RUN", "OUT"):
        torch.manual_seed(1)
        weights.append(log_weights(ppvae.load(folder), x, particles=3))
    assert torch.equal(*weights)


# --- data


def test_a_story_saved_with_its_data_is_evaluated(capsys):
    digits = data.load_dataset("digits", binarisation="threshold")
    ppvae.save(a_story(), "OUT", data=digits)
    assert cli.main(["evaluate", "OUT", "--rows", "3", "--method", "importance", "--particles", "30"]) == 0
    assert "test split of digits, threshold binarisation" in capsys.readouterr().out
    assert ppvae.load("OUT").encoder.network[0].in_features == 64


@pytest.mark.parametrize("command", ["evaluate", "gaps", "posteriors"])
def test_without_its_data_a_command_says_what_is_missing(capsys, command):
    ppvae.save(a_story(), "OUT")
    assert cli.main([command, "OUT"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "OUT does not say what its story's data are" in error
    assert "ppvae.save(story, path, data) does" in error


def test_the_story_is_built_from_its_own_sizes_not_from_its_datas():
    """The digits are images of levels up to 16, which a network is shown scaled; this story was told neither."""
    story = assemble(priors.StandardNormal, likelihoods.Poisson, encoders.DiagonalNormal, shape=(64,), latent=2)
    ppvae.save(story, "OUT", data=data.load_dataset("digits"))
    assert isinstance(ppvae.load("OUT").encoder.network[0], nn.Linear)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: data.load_dataset("digits", binarisation="threshold", seed=3), "with seed 0"),
        (lambda: data.load_dataset("a.npy"), "the story's 64 features, got a.npy"),
        (
            lambda: data.Dataset(*[torch.zeros(2, 64)] * 3, None, None, None, data.load_dataset("digits").observation),
            "seed 0",
        ),
    ],
)
def test_data_that_no_command_would_find_are_refused(given, said):
    np.save("a.npy", np.random.default_rng(0).normal(size=(40, 4)))
    assert said in refusal(ValueError, ppvae.save, a_story(), "OUT", data=given())
    assert os.listdir() == ["a.npy"]


# --- what cannot be told


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Linear(3, 2)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True) * torch.ones(3), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.loc(x), 1.0).to_event(1))


def test_of_a_story_of_ones_own_the_weights_are_kept():
    story, other, x = Own(), Own(), torch.randn(5, 3)
    ppvae.save(story, "OUT")
    assert os.listdir("OUT") == ["weights.safetensors"]
    assert "OUT holds weights alone: ppvae.load(path, story=...)" in refusal(FileNotFoundError, ppvae.load, "OUT")
    assert ppvae.load("OUT", story=other) is other
    assert not other.training
    weights = []
    for one in (story, other):
        torch.manual_seed(1)
        weights.append(log_weights(one, x, particles=5))
    assert torch.equal(*weights)
    assert "data are kept with a story that assemble made" in refusal(
        ValueError, ppvae.save, story, "two", data=data.load_dataset("digits")
    )


def test_the_weights_of_a_run_go_into_a_story_that_is_built_alike():
    story = a_story()
    ppvae.save(story, "OUT")
    by_hand = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(networks.mlp(2, [8], 64)),
        encoders.DiagonalNormal(networks.mlp(64, [8], 4)),
    )
    ppvae.load("OUT", story=by_hand)
    assert all(torch.equal(a, b) for a, b in zip(story.parameters(), by_hand.parameters(), strict=True))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (partial(a_story, latent=3), "size mismatch for likelihood.network.0.weight"),
        (Own, "Missing key"),
        (lambda: a_story().double(), "is of torch.float32, and the story's of torch.float64"),
    ],
)
def test_weights_of_another_story_are_refused_and_change_nothing(other, said):
    ppvae.save(a_story(), "OUT")
    story = other()
    before = copy.deepcopy(story.state_dict())
    assert said in refusal(ValueError, ppvae.load, "OUT", story=story)
    assert all(torch.equal(before[name], tensor) for name, tensor in story.state_dict().items())


PARTS = """
import torch, pyro.distributions as dist
from torch import nn

class Wide(nn.Module):
    def __init__(self, latent: int, spread: float = 1.0):
        super().__init__()
        self.latent, self.spread = latent, spread
    def forward(self):
        return dist.Normal(torch.zeros(self.latent), self.spread).to_event(1)

def untold(latent):
    return Wide(latent)

class Holder:
    Inner = Wide
    class Nested(Wide):
        pass
"""


@pytest.fixture
def my_parts(tmp_path, monkeypatch):
    (tmp_path / "my_own_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_own_parts

    yield my_own_parts
    sys.modules.pop("my_own_parts", None)


def with_prior(prior):
    return assemble(prior, likelihoods.Bernoulli, encoders.DiagonalNormal, shape=(4,), latent=2)


def test_a_part_of_ones_own_is_loaded_with_trust_alone(my_parts, capsys):
    story = with_prior(partial(my_parts.Wide, spread=np.float64(3.0)))
    ppvae.save(story, "OUT")
    assert capsys.readouterr().err == ""
    assert "would import my_own_parts.Wide (prior)" in refusal(ValueError, ppvae.load, "OUT")
    assert ppvae.load("OUT", trust=True).prior.spread == 3.0


def test_a_part_that_has_no_name_is_refused(my_parts):
    def local(latent):
        return my_parts.Wide(latent)

    for prior, said in [
        (
            lambda latent: my_parts.Wide(latent),
            "the prior test_a_part_that_has_no_name_is_refused.<locals>.<lambda> is",
        ),
        (local, "is nothing that another program can import: define it at the top of a module"),
        (my_parts.Holder.Nested, "the prior Holder.Nested is nothing that another program can import"),
        (my_parts.untold, "a function that says in its signature what it returns"),
        (partial(priors.Laplace, scale=torch.tensor(1.0)), "the prior has an argument scale that is neither"),
    ]:
        message = refusal(ValueError, ppvae.save, with_prior(prior), "OUT")
        assert said in message
        assert "torch.save(story.state_dict(), file) keeps the weights" in message
    assert not os.path.exists("OUT")


def swapped(story):
    story.prior = priors.Laplace(2)


def penalised(story):
    story.penalty = lambda story, x, z: z.square().sum(-1)


def reprogrammed(story):
    story.guide = lambda x: None


def activated(story):
    story.likelihood.network[1] = nn.Softplus()


def grown(story):
    story.encoder.network.append(nn.Identity())


def extended(story):
    story.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swapped, "but: weights.safetensors should hold the weights of config.yaml's story, but: "),
        (penalised, "but: penalty is <function penalised"),
        (reprogrammed, "but: guide is <function reprogrammed"),
        (activated, "but: module likelihood.network.1 is of Softplus, where it was of ReLU"),
        (grown, "but: module encoder.network.3 is of Identity, where it was of NoneType"),
        (extended, "Unexpected key"),
    ],
)
def test_a_story_that_was_changed_after_it_was_assembled_is_refused(change, said):
    story = a_story()
    change(story)
    assert said in refusal(ValueError, ppvae.save, story, "OUT")
    assert os.listdir() == []


@pytest.mark.parametrize("thing", [nn.Linear(1, 1), object(), a_story])
def test_what_is_no_story_is_refused(thing):
    assert "should be an nn.Module with model and guide" in refusal(ValueError, ppvae.save, thing, "OUT")


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"shape": [64]},
        {"shape": [0], "input_scale": 1.0, "maximum": None, "classes": None, "dtype": "float32", "frozen": []},
        {"shape": [64], "input_scale": "1", "maximum": None, "classes": None, "dtype": "float32", "frozen": []},
        {"shape": [64], "input_scale": 1.0, "maximum": None, "classes": None, "dtype": "uint8", "frozen": []},
    ],
)
def test_sizes_that_are_none_are_refused(record):
    ppvae.save(a_story(), "OUT")
    with open("OUT/story.json", "w") as file:
        json.dump(record, file)
    assert "story.json should say how a story was built, but: " in refusal(ValueError, ppvae.load, "OUT")
