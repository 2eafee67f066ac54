"""Posteriors as their users have them: by latent site, each in its own space, against integrals."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import Written, gamma_story

from ppvae.inference import Posterior, hmc, infer, local_flow, local_normal, nuts
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.posteriors.local import fit_normals
from ppvae.selfcheck.analytic import LinearGaussian

CALLS = {
    "hmc": lambda story, x: hmc(story, x, num_samples=150, num_warmup=120, num_chains=8, progress=False),
    "nuts": lambda story, x: nuts(story, x[:1], num_samples=100, num_warmup=40, progress=False),
    "local normal": lambda story, x: local_normal(story, x, num_samples=2000, num_steps=200, progress=False),
    "local flow": lambda story, x: local_flow(story, x, num_samples=2000, num_steps=200, progress=False),
    "infer": lambda story, x: infer(story, x, "resampled", num_samples=2000, progress=False),
}


def gamma_mean(x):
    """E[z | x] of the gamma story by the trapezoidal rule."""
    z = torch.linspace(1e-6, 20, 40_001, dtype=torch.float64)
    log_p = dist.Gamma(3.0, 2.0).log_prob(z).unsqueeze(-1) + dist.Normal(z.unsqueeze(-1), 0.5).log_prob(x)
    return log_p.softmax(0).T @ z


@pytest.mark.parametrize("name", CALLS)
def test_draws_of_a_positive_latent_are_positive_and_have_its_mean(name):
    story, x, _ = gamma_story()
    found = CALLS[name](story, x)
    z = found.draws["z"]  # (draws, batch)
    assert z.shape[1:] == (1 if name == "nuts" else 3,)
    assert (z > 0).all()
    independent = len(z) if found.ess is None else found.ess
    error = 6 * z.std(0) / torch.as_tensor(independent).double().sqrt()
    family = 0.05 * z.std(0)  # what a Normal of log z, or a short ascent, is off by
    assert ((z.mean(0) - gamma_mean(x)[: z.shape[1]]).abs() < error + family).all()


class TestSeveralSites:
    def story(self):
        """w ~ Dirichlet, v ~ N within a plate of 2, x ~ N(w_1 + v_1 + v_2, 1): a simplex, and a plate of its own."""

        def model(x):
            w = pyro.sample("w", dist.Dirichlet(torch.ones(3).double()))
            with pyro.plate("pair", 2, dim=-3):
                v = pyro.sample("v", dist.Normal(torch.zeros(()).double(), 1.0))
            pyro.sample("x", dist.Normal(w[..., 0] + v.sum(0), 1.0), obs=x)

        def guide(x):
            pyro.sample("w", dist.Dirichlet(torch.ones(3).double()))
            with pyro.plate("pair", 2, dim=-3):
                pyro.sample("v", dist.Normal(torch.zeros(()).double(), 1.0))

        return Written(model, guide), torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)

    def found(self):
        return hmc(*self.story(), num_samples=40, num_warmup=40, num_chains=3, progress=False)

    def test_each_has_its_own_shape_and_support(self):
        found = self.found()
        assert {site: tuple(draws.shape) for site, draws in found.draws.items()} == {"w": (120, 4, 3), "v": (120, 4, 2)}
        torch.testing.assert_close(found.draws["w"].sum(-1), torch.ones(120, 4).double())

    def test_chains_can_be_told_apart(self):
        """As they ran: draws, chains and data are where the chains of unbounded space have them."""
        found = self.found()
        story, x = self.story()
        u = run_chains(story, x, num_samples=40, num_warmup=40, num_chains=3, progress=False).u  # w's two, then v's
        torch.testing.assert_close(found.by_chain("v"), u[..., 2:])
        assert found.by_chain("w").shape == (3, 40, 4, 3)

    def test_its_table_has_a_row_for_every_number(self):
        found = self.found()
        table = found.to_dataframe()
        assert len(table) == 4 * 3 + 4 * 2
        row = table[(table.datum == 2) & (table.site == "v") & (table["index"] == 1)].iloc[0]
        v = found.draws["v"][:, 2, 1]
        figures = [v.mean(), v.std(), *torch.quantile(v, v.new_tensor([0.05, 0.5, 0.95]))]
        assert row[["mean", "deviation", "5%", "median", "95%"]].tolist() == pytest.approx([f.item() for f in figures])

    def test_its_summary_says_whether_the_chains_have_met(self):
        found = self.found()
        summary = found.summary()
        assert (summary["data"], summary["draws"], summary["chains"]) == (4, 120, 3)
        assert summary["largest_r_hat"] == found.r_hat.max().item()
        assert "largest_r_hat" in str(found)


def test_a_datum_is_judged_by_its_worst_coordinate():
    known = LinearGaussian()
    short = {"num_samples": 30, "num_warmup": 30, "progress": False}
    found, chains = (call(known.story(), known.data(5), **short) for call in (hmc, run_chains))
    assert torch.equal(found.r_hat, chains.r_hat.amax(-1))
    assert torch.equal(found.ess, chains.ess.amin(-1))


def test_a_local_normal_is_the_one_that_was_fitted():
    known = LinearGaussian()
    story, x = known.story(widen=1.4, shift=0.3), known.data(4)
    for covariance in ("full", "diagonal"):
        found = local_normal(story, x, covariance=covariance, num_samples=4000, num_steps=50, progress=False)
        q = fit_normals(
            story, x, covariance=covariance, num_steps=50, particles=16, tolerance=0.002, seed=0, progress=False
        )
        deviation = q.scale_tril.norm(dim=-1)
        assert ((found.draws["z"].mean(0) - q.loc).abs() < 6 * deviation / math.sqrt(4000)).all()
        assert ((found.draws["z"].std(0) / deviation - 1).abs() < 6 / math.sqrt(8000)).all()
    assert math.isnan(found.summary()["largest_r_hat"])


def test_what_is_refused():
    known = LinearGaussian()
    with pytest.raises(ValueError, match="covariance should be full or diagonal, got round"):
        local_normal(known.story(), known.data(2), covariance="round")
    for sample in (hmc, nuts):
        for option, least in {"num_samples": 4, "num_warmup": 2, "num_chains": 2}.items():
            with pytest.raises(ValueError, match=f"{option} should be at least {least}, got {least - 1}"):
                sample(known.story(), known.data(2), progress=False, **{option: least - 1})


def test_a_table_of_more_numbers_than_torch_takes_quantiles_of():
    draws = torch.arange(2**24 + 1.0).unsqueeze(-1)
    table = Posterior("by hand", {"z": draws}, 0.0).columns()
    assert table["median"] == [2**23]
