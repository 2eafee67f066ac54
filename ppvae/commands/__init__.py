"""The commands of `ppvae`: each file has the options of one, and what it does; `completion` tells shells of all."""

COMMANDS = {
    "fit": "Fit a story to data and write a run folder.",
    "evaluate": "Estimate log p(x) of a run's data, with its errors.",
    "compare": "Fit a line-up and write a table, figures and a page.",
    "gaps": "Split what a run's bound gives away into approximation, amortisation and generalisation gap.",
    "posteriors": "Compare ways to infer z from x on a run's decoder: bounds, evidence, moments, calibration, seconds.",
    "selfcheck": "Check every objective, estimator and posterior against known answers, on this machine.",
}
"""By name, what each does."""
