"""How far it is from `ppvae evaluate` to a story's own statements."""

import runpy
from pathlib import Path

from ppvae import cli

FOLLOW = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "follow_calls.py"))


def test_a_reader_passes_at_most_25_functions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["fit", "--data", "digits", "--latent", "2", "--epochs", "1", "--out", "RUN"]) == 0
    found = FOLLOW["called"](["evaluate", "RUN", "--rows", "2", "--particles", "30"])
    assert "ppvae.models.vae.VAE.model" in found
    assert "ppvae.inference.program.weights.log_weights" in found
    assert len(found) <= 25, found
