"""From words on a command line to a story: names, import paths, arguments, and what is said of wrong ones."""

import importlib
import sys
from functools import partial

import pytest
import torch
import yaml

from ppvae import data, networks
from ppvae.data.observation import Observation
from ppvae.evaluation.scoring import settle
from ppvae.experiments import build, experiment
from ppvae.experiments import options as ask
from ppvae.inference import elbo, iwae
from ppvae.models import encoders, likelihoods, priors, stories
from ppvae.training.optimizers import Adam
from ppvae.training.pretraining import stages

MY_PARTS = """
import torch, pyro.distributions as dist
from torch import nn

class Wide(nn.Module):
    def __init__(self, latent: int, spread: float = 1.0):
        super().__init__()
        self.latent, self.spread = latent, spread
    def forward(self):
        return dist.Normal(torch.zeros(self.latent), self.spread).to_event(1)

class Longer(Wide):
    def forward(self):
        return dist.Normal(torch.zeros(self.latent + 1), 1.0).to_event(1)

class Broken(nn.Module):
    def __init__(self, latent: int):
        raise RuntimeError("no such luck\\nat all")

class TwoSided(nn.Module):
    outputs = 2
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
    def forward(self, z):
        loc, log_scale = self.network(z).chunk(2, dim=-1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

class Undeclared(TwoSided):
    outputs = 1

class NoEvent(TwoSided):
    outputs = 1
    def forward(self, z):
        return dist.Normal(self.network(z), 1.0)

class Number(TwoSided):
    def forward(self, z):
        return 3

def wide(latent: int) -> nn.Module:
    return Wide(latent, spread=5.0)

def no_sizes(prior, likelihood, encoder, beta: float = 1.0) -> nn.Module:
    return nn.Identity()

def unmade(prior, likelihood, encoder, sizes) -> nn.Module:
    story = nn.Module()
    story.prior = prior
    return story

def scaled(story, data, factor: float, link=abs, shift: float = 0.0):
    return data.new_tensor(factor + shift)

number = 3

def descent(parameters, lr, damped: bool = False):
    return torch.optim.SGD(parameters, lr, momentum=0.9, dampening=0.5 * damped)
"""


@pytest.fixture
def my_parts(tmp_path, monkeypatch):
    """A file of the working folder that holds parts of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_parts.py").write_text(MY_PARTS)
    (tmp_path / "not_python.py").write_text("class Prior(:\n")
    importlib.invalidate_caches()
    yield
    sys.modules.pop("my_parts", None)


@pytest.fixture(scope="module")
def observation():
    return data.load_dataset("digits").observation


def parsed(*words):
    return ask.parse(ask.fit_parser(), words)


def story_of(observation, *words):
    return build.build_story(ask.fit_parser(), parsed("--latent", "2", "--network.hidden", "[4]", *words), observation)


def refusal(action, *arguments):
    """The one line that is said of something wrong."""
    with pytest.raises((ValueError, OSError)) as caught:
        action(*arguments)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# --- names


@pytest.mark.parametrize("words", [["--prior", "GaussianMixture"], ["--prior=GaussianMixture"]])
def test_a_short_name_is_one_of_ours(words):
    assert parsed(*words).prior.class_path == "ppvae.models.priors.GaussianMixture"


def test_arguments_of_a_part_stand_beside_it():
    options = parsed("--prior", "GaussianMixture", "--prior.components", "7")
    assert options.prior.init_args.components == 7
    options = parsed("--likelihood=Normal", "--likelihood.learned=true", "--likelihood.variance=0.5")
    assert options.likelihood.init_args.as_dict() == {"variance": 0.5, "learned": True}


def test_an_objective_has_arguments_too():
    options = parsed("--objective", "iwae", "--objective.particles", "5")
    assert (options.objective, options.objective_args) == ("iwae", {"particles": 5})
    assert parsed("--objective=iwae", "--objective.particles=5").objective_args == {"particles": 5}


def test_a_value_may_hold_an_equals_sign():
    assert parsed("--data=a=b.npy").data == "a=b.npy"


@pytest.mark.parametrize(
    ("option", "name", "known"),
    [
        ("prior", "GausianMixture", ["GaussianMixture", "Flat", "StandardNormal"]),
        ("likelihood", "normal", ["Normal", "Binomial", "Bernoulli"]),
        ("encoder", "Point", ["PointMass", "DiagonalNormal"]),
    ],
)
def test_an_unknown_name_lists_the_known_ones_nearest_first(option, name, known):
    message = refusal(parsed, f"--{option}", name)
    assert f"unknown {option} '{name}'" in message
    places = [message.index(word) for word in known]
    assert places[0] == min(places)
    assert "import path" in message


def test_the_known_names_are_what_each_module_offers():
    assert {"Flat", "GaussianMixture", "StandardNormal"} <= set(ask.names(priors))
    assert {"Bernoulli", "Binomial", "Normal"} <= set(ask.names(likelihoods))
    assert {"DiagonalNormal", "PointMass"} <= set(ask.names(encoders))
    assert {"vae", "hierarchical", "pca"} <= set(ask.names(stories))
    assert {"MLP", "Convolutional"} <= set(ask.names(networks))
    assert not {"assemble", "_dense", "mlp"} & {*ask.names(stories), *ask.names(networks)}


# --- configuration files


def test_a_configuration_file_may_use_short_names(tmp_path):
    config = {
        "prior": "Flat",
        "encoder": {"class_path": "PointMass"},
        "likelihood": {"class_path": "Normal"},
        "lr": 0.1,
    }
    config["likelihood"]["init_args"] = {"variance": 0.5}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    options = parsed("--config", str(tmp_path / "a.yaml"), "--lr", "0.2", "--likelihood.learned", "true")
    assert options.prior.class_path == "ppvae.models.priors.Flat"
    assert options.encoder.class_path == "ppvae.models.encoders.PointMass"
    assert options.likelihood.init_args.as_dict() == {"variance": 0.5, "learned": True}
    assert options.lr == 0.2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2", "should be a YAML file"),
        ("- 1\n- 2", "`name: value`"),
        ("", "`name: value`"),
        ("prior: Gaussian", "unknown prior 'Gaussian'"),
        ("prior: {class_path: Gaussian}", "unknown prior 'Gaussian'"),
        ("latent: two", "--latent should be int, got two"),
        ("nonsense: 3", "nonsense"),
    ],
)
def test_a_wrong_configuration_file_is_refused(tmp_path, text, said):
    (tmp_path / "a.yaml").write_text(text)
    assert said in refusal(parsed, "--config", str(tmp_path / "a.yaml"))


def test_a_configuration_file_that_cannot_be_read_is_refused(tmp_path):
    assert "there is no configuration file" in refusal(parsed, "--config", str(tmp_path / "gone.yaml"))
    assert "should be a file, and is a folder" in refusal(parsed, "--config", str(tmp_path))
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "should be text in UTF-8" in refusal(parsed, "--config", str(tmp_path / "a.yaml"))


# --- what the parser says


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "many"], "--epochs should be int, got many"),
        (["--lr", "fast"], "--lr should be float, got fast"),
        (["--labelled", "few"], "--labelled should be one of int, NoneType, got few"),
        (
            ["--network.hidden", "20"],
            "--network.hidden of MLP should be a list in brackets, such as [200, 100], got 20",
        ),
        (
            ["--binarisation", "odd"],
            "--binarisation should be one of 'none', 'threshold', 'static', 'dynamic', got odd",
        ),
        (
            ["--prior", "GaussianMixture", "--prior.components", "7.5"],
            "--prior.components of GaussianMixture should be int, got 7.5",
        ),
        (
            ["--prior", "GaussianMixture", "--prior.component", "7"],
            "GaussianMixture takes components (int), got component",
        ),
        (
            ["--likelihood", "Binomial", "--likelihood.total_count", "many"],
            "--likelihood.total_count of Binomial should be int | None, got many",
        ),
        (
            ["--prior", "torch.nn.Linear", "--prior.bias", "true"],
            "--prior Linear needs in_features (int), out_features",
        ),
        (["--prior.components", "7"], "StandardNormal takes no arguments, got components"),
        (["--likelihood.learned", "true"], "an argument of --likelihood needs --likelihood NAME beside it"),
        (["--likelihood", "Binomial", "--likelihood.n", "3"], "Binomial takes total_count (int | None), got n"),
        (["--nonsense", "3"], "unrecognized arguments: --nonsense 3"),
        (["--prior"], "--prior: expected one argument"),
        (["--prior", "torch.optim.Adam"], "torch.optim.Adam should be a Module's class, or a function that says"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
    ],
)
def test_wrong_words_are_answered_in_one_plain_line(words, said):
    message = refusal(parsed, *words)
    assert said in message
    assert "typing" not in message
    assert "<class" not in message


# --- import paths


def test_parts_of_ones_own_are_built_from_their_signatures(my_parts, observation):
    words = ["--prior", "my_parts.Wide", "--prior.spread", "2", "--likelihood", "my_parts.TwoSided"]
    story = story_of(observation, *words)
    assert story.prior().variance.tolist() == [4.0, 4.0]
    assert story.likelihood.network[-1].out_features == 2 * 64
    assert story_of(observation, "--prior", "my_parts.wide").prior().variance.tolist() == [25.0, 25.0]


@pytest.mark.parametrize("option", ["prior", "likelihood", "encoder", "objective"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("my_parts.Gone", "module 'my_parts' has no attribute 'Gone'"),
        ("no_such_module.Part", "No module named 'no_such_module'"),
        ("not_python.Prior", "SyntaxError"),
        (".Part", "should be importable"),
    ],
)
def test_what_cannot_be_imported_is_named(my_parts, option, path, said):
    find = partial(build.find_objective, path, {}) if option == "objective" else partial(parsed, f"--{option}", path)
    message = refusal(find)
    assert said in message
    assert message.startswith(f"{option} '{path}' should be importable")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prior", "my_parts.Broken"], "the prior Broken could not be made: RuntimeError: no such luck at all"),
        (["--prior", "GaussianMixture", "--prior.components", "0"], "components should be at least 1, got 0"),
        (["--likelihood", "Normal", "--likelihood.variance", "-1"], "variance should be positive and finite, got -1"),
        (["--prior", "my_parts.TwoSided"], "the prior should give a distribution, but: TypeError"),
        (["--prior", "my_parts.Longer"], "event_shape (2,), got (3,): it is made with the latent size"),
        (["--likelihood", "my_parts.Number"], "the likelihood should give a distribution, but: AttributeError"),
        (["--likelihood", "my_parts.Undeclared"], "event_shape (64,), got (32,): its attribute `outputs`"),
        (["--encoder", "my_parts.NoEvent"], "event_shape (2,), got (): end it with .to_event(1)"),
        (["--latent", "0"], "latent should be at least 1, got 0"),
        (["--story", "my_parts.no_sizes"], "the story my_parts.no_sizes failed: TypeError"),
        (["--story", "my_parts.unmade"], "holds the maker of its prior, not one made; it is called with the makers"),
        (["--network.hidden", "[0]"], "every one of hidden should be at least 1, got [0]"),
    ],
)
def test_a_part_that_does_not_do_is_named(my_parts, observation, words, said):
    assert said in refusal(story_of, observation, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prior.help", "VampPrior"], ["https://arxiv.org/abs/1705.07120", "--prior.components (int, default 50)"]),
        (["--story.help", "hierarchical"], ["--story.above", "1509.00519"]),
        (["--network.help", "Convolutional"], ["--network.channels"]),
        (["--prior.help", "my_parts.Wide"], ["no docstring", "--prior.spread (float, default 1.0)"]),
        (["--prior.help"], ["GaussianMixture", "import path"]),
    ],
)
def test_help_of_a_part_is_its_docstring_and_its_options(my_parts, words, said):
    text = ask.part_help(["fit", *words])
    assert all(word in text for word in said)
    assert ask.part_help(["fit", "--prior", "Laplace"]) is None


# --- objectives


def test_an_objective_is_found_with_all_of_its_arguments(my_parts):
    assert build.find_objective("elbo", {}).func is elbo
    found = build.find_objective("iwae", {"particles": 5})
    assert (found.func, found.keywords) == (iwae, {"particles": 5})
    assert build.find_objective("iwae", {}).keywords == {"particles": 50}
    assert build.find_objective("ppvae.inference.iwae", {}).func is iwae
    mine = build.find_objective("my_parts.scaled", {"factor": 2, "shift": 0.5})
    assert mine(None, torch.zeros(3)).item() == 2.5


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("iwea", {}, "unknown objective 'iwea': it should be one of iwae, piwae, miwae, "),
        ("iwae", {"particle": 5}, "objective iwae takes particles (int), got particle"),
        ("iwae", {"particles": "many"}, "particles should be int, got many"),
        ("my_parts.scaled", {}, "required: factor"),
        ("my_parts.number", {}, "should be a function of a story and data, got 3"),
    ],
)
def test_a_wrong_objective_is_refused(my_parts, name, arguments, said):
    assert said in refusal(build.find_objective, name, arguments)


# --- optimisers


@pytest.mark.parametrize(
    ("words", "kind", "arguments"),
    [
        ([], Adam, {}),
        (["--optimizer=Adam", "--optimizer.betas", "[0.5, 0.9]"], Adam, {"betas": (0.5, 0.9)}),
        (["--optimizer", "SGD", "--optimizer.momentum", "0.9"], torch.optim.SGD, {"momentum": 0.9}),
        (["--optimizer", "torch.optim.AdamW"], torch.optim.AdamW, {}),
        (["--optimizer", "my_parts.descent", "--optimizer.damped=true"], torch.optim.SGD, {"dampening": 0.5}),
    ],
)
def test_an_optimiser_is_named_with_its_arguments(my_parts, observation, words, kind, arguments):
    options = build.complete(ask.fit_parser(), parsed(*words), observation)
    make = build.find_optimizer(options.optimizer, options.optimizer_args)
    optimizer = make([torch.nn.Parameter(torch.ones(1))], 0.3)
    assert isinstance(optimizer, kind)
    assert arguments.items() <= optimizer.defaults.items()
    assert optimizer.defaults["lr"] == 0.3


def test_an_optimiser_is_written_by_the_name_that_a_file_may_use(observation):
    options = build.complete(ask.fit_parser(), parsed("--optimizer", "torch.optim.AdamW"), observation)
    assert options.optimizer == "AdamW"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--optimizer", "sgd"], "unknown optimizer 'sgd': it should be one of SGD, "),
        (["--optimizer", "LBFGS"], "unknown optimizer 'LBFGS'"),
        (["--optimizer", "my_parts.gone"], "optimizer 'my_parts.gone' should be importable"),
        (["--optimizer", "my_parts.number"], "should be a function of parameters and a step size, got 3"),
        (["--optimizer", "SGD", "--optimizer.momentun", "0.9"], "optimizer SGD takes momentum, dampening, "),
        (["--optimizer", "torch.optim.LBFGS"], "LBFGS wants a loss that it can call"),
        (["--optimizer", "SGD", "--optimizer.momentum", "-1"], "optimizer SGD could not be made: Invalid momentum"),
        (["--optimizer", "SGD", "--optimizer.momentum", "much"], "optimizer SGD could not be made: TypeError"),
    ],
)
def test_a_wrong_optimiser_is_refused(my_parts, words, said):
    options = parsed("--network.hidden", "[4]", "--epochs", "1", *words)
    assert said in refusal(lambda: list(experiment.epochs(experiment.prepare(options, data.load_dataset("digits")))))


# --- completion


@pytest.mark.parametrize(
    ("view", "likelihood", "arguments"),
    [
        ({}, "Binomial", {"total_count": None}),
        ({"binarisation": "threshold"}, "Bernoulli", {}),
        ({"binarisation": "dynamic"}, "Bernoulli", {}),
        ({"scaling": "unit"}, "Normal", {"variance": 0.1, "learned": True}),
    ],
)
def test_the_data_decide_the_likelihood_where_none_is_named(view, likelihood, arguments):
    options = build.complete(ask.fit_parser(), parsed(), data.load_dataset("digits", **view).observation)
    assert options.likelihood.class_path == f"ppvae.models.likelihoods.{likelihood}"
    given = options.likelihood.get("init_args")
    assert (given.as_dict() if given else {}) == arguments


def test_counts_without_a_bound_have_no_natural_likelihood(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["1,30", "2,0", "3,7", "0,1", "5,5"]))
    counts = data.load_dataset(str(tmp_path / "a.csv")).observation
    message = refusal(build.complete, ask.fit_parser(), parsed(), counts)
    assert "name one, or standardise the data" in message


def test_a_named_likelihood_stays_and_nothing_else_changes(observation):
    options = parsed("--likelihood", "Normal", "--lr", "0.5", "--objective", "iwae")
    done = build.complete(ask.fit_parser(), options, observation)
    assert done.likelihood == options.likelihood
    assert (done.lr, done.objective, done.objective_args) == (0.5, "iwae", {"particles": 50})
    assert options.objective_args == {}


def test_only_defaults_that_a_file_can_hold_are_written_out(my_parts, observation):
    options = parsed("--objective", "my_parts.scaled", "--objective.factor", "2")
    done = build.complete(ask.fit_parser(), options, observation)
    assert done.objective_args == {"factor": 2, "shift": 0.0}


def test_complete_options_survive_a_file(tmp_path, observation):
    parser = ask.fit_parser()
    options = build.complete(parser, parsed("--prior", "GaussianMixture", "--network.hidden", "[5,6]"), observation)
    (tmp_path / "a.yaml").write_text(parser.dump(options))
    again = parsed("--config", str(tmp_path / "a.yaml"))
    assert parser.dump(again) == parser.dump(options)


def test_networks_are_sized_from_the_data_and_the_latent_size(observation):
    story = build.build_story(ask.fit_parser(), parsed("--latent", "3", "--network.hidden", "[5,6]"), observation)
    assert sizes_of(story.encoder.network) == [(64, 5), (5, 6), (6, 6)]
    assert sizes_of(story.likelihood.network) == [(3, 6), (6, 5), (5, 64)]
    assert story.prior().event_shape == (3,)
    assert story.likelihood.total_count == 16


def sizes_of(network):
    return [(layer.in_features, layer.out_features) for layer in network.modules() if hasattr(layer, "in_features")]


def test_a_prior_that_is_ex_post_gets_draws_from_the_guide(observation):
    story = build.build_story(ask.fit_parser(), parsed("--latent", "2", "--prior", "ExPost"), observation)
    digits = data.load_dataset("digits")
    torch.manual_seed(1)
    settle(story, (digits.train,))
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(1))  # its draws are its own
    q = story.encoder(digits.train)
    covariance = q.mean.T.cov(correction=0) + q.variance.mean(0).diag()  # of one draw a datum, with many data
    found = story.prior()
    torch.testing.assert_close(found.mean, q.mean.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(found.component_distribution.covariance_matrix[0], covariance, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("stacked-784-300-150", [784, 300, 150]), ("hinton-salakhutdinov", [784, 1000, 500, 250, 30])],
)
def test_a_named_configuration_has_the_layers_of_its_name(name, sizes):
    parser = ask.fit_parser()
    options = ask.parse(parser, ["--config", name])
    seen = Observation("images", "levels", (1, 28, 28), maximum=255)
    story = build.build_story(parser, options, seen)
    for network, expected in ((story.encoder.network, sizes), (story.likelihood.network, sizes[::-1])):
        layers = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
        assert [layers[0].in_features, *(layer.out_features for layer in layers)] == expected
    assert isinstance(story.prior, priors.Flat)
    assert options.pretrain > 0
    assert len(stages(story)) == len(sizes) - 1


def test_an_unknown_configuration_names_those_there_are():
    with pytest.raises(FileNotFoundError, match=r"no configuration file hinton, .* hinton-salakhutdinov, stacked-784"):
        ask.parse(ask.fit_parser(), ["--config", "hinton"])
