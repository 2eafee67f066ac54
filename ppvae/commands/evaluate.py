"""`ppvae evaluate RUN`: log p(x) of a run's data by a method of one's choice, with its errors and pictures of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from ppvae import inference
from ppvae.commands import COMMANDS
from ppvae.evaluation.comparability import Contract
from ppvae.evaluation.scoring import give_density, score
from ppvae.experiments import run_folder
from ppvae.experiments.build import find_function
from ppvae.experiments.lookup import parameters
from ppvae.experiments.options import Arguments, add_trust, new_parser
from ppvae.inference import Evidence, bound_curve
from ppvae.inference.evidence.bidirectional import Sandwich
from ppvae.inference.evidence.evidence import error_of_mean
from ppvae.inference.evidence.importance import draws
from ppvae.inference.evidence.tail import fit_tail, pareto_k
from ppvae.inference.evidence.workers import in_processes
from ppvae.inference.program.traces import batch_for, scored
from ppvae.plots import figures
from ppvae.plots.evidence import Bounds, k_curve, sandwich, weight_histogram

METHODS: dict[str, Callable[..., Any]] = {
    "score": score,
    **{
        name: getattr(inference, name)
        for name in (
            "importance",
            "prior_sampling",
            "laplace_sampling",
            "refined_sampling",
            "flow_sampling",
            "annealed",
            "bidirectional",
            "upper_bound",
            "laplace_evidence",
            "exact",
        )
    },
}
"""Ways to estimate log p(x), by name: `score` draws half from the guide, half from a Normal refined for each datum."""

FIGURE_DRAWS = 1000
FIGURE_ROWS = 200  # data that the figures are of, at most
Batch = tuple[Tensor, ...]


def options() -> ArgumentParser:
    parser = new_parser("evaluate", COMMANDS["evaluate"])
    parser.add_argument("run", type=str, help="a folder that `ppvae fit` or `ppvae.save` wrote")
    known = ", ".join(METHODS)
    parser.add_argument("--method", type=str, default="score", help=f"{known}, or an import path")
    parser.add_argument("--method_args", type=Arguments, default={}, help="such as --method.num_temperatures 1000")
    parser.add_argument("--particles", type=int, default=None, help="draws, or chains, per datum; the method's own")
    parser.add_argument("--target_error", type=float, default=None, help="nats per datum: as many draws as it takes")
    parser.add_argument("--split", type=str, default="test", help="train, valid or test")
    parser.add_argument("--rows", type=int, default=None, help="of the first of the data only")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--processes", type=int, default=1, help="share the data out over so many; no figure changes")
    add_trust(parser)
    return parser


def run(options: Namespace) -> None:
    """Print the evidence, and keep it in the run folder with its pictures."""
    if options.split not in {"train", "valid", "test"}:
        raise ValueError(f"split should be train, valid or test, got {options.split}")
    if options.rows is not None and options.rows < 1:
        raise ValueError(f"rows should be at least 1, got {options.rows}")
    if options.method == "bidirectional" and options.processes != 1:
        raise ValueError(f"bidirectional runs in one process, got processes {options.processes}: leave it out")
    method = find_method(options)
    found = run_folder.read(options.run, "trust" in options)
    dataset = found.data()
    given = give_density(found.story, batch_for(found.story, **dataset.drawn().tensors("train")))
    batch = batch_for(found.story, **dataset.drawn(options.seed).tensors(options.split, options.rows))
    print(f"{options.split} split of {found.observation}")
    if given:
        components = len(found.story.prior.weights)
        print(f"the guide is a point mass: p(z) is a mixture of {components} Gaussians fitted to the training codes")
    if options.method == "bidirectional":
        _certify(found, batch, method, options)
        return
    evidence = in_processes(method, found.story, batch, options.processes)
    if not isinstance(evidence, Evidence):
        raise ValueError(f"a method should return an Evidence; {options.method} returns {type(evidence).__name__}")
    path = run_folder.write_evidence(found, evidence, _name(options, evidence), options.split, options.seed)
    print(evidence)
    for line in _notes(found, evidence):
        print(line)
    print(f"saved in {path}")
    if options.method in {"score", "importance"} and torch.isfinite(evidence.elbo).any():
        saved = figures.save_beside(of_weights(found.story, batch, FIGURE_DRAWS, options.seed), path)
        print(f"figures: {', '.join(map(str, saved))}")


def find_method(options: Namespace) -> "partial[Any]":
    """The method with all of its arguments bound, but for the story and the data."""
    arguments = dict(options.method_args)
    for name in ("particles", "target_error"):
        if options[name] is not None:
            arguments[name] = options[name]
    method = find_function("method", METHODS, options.method, arguments, skipped=("seed", "progress"))
    seeded = "seed" in [parameter.name for parameter in parameters(method.func)]
    return partial(method, seed=options.seed) if seeded else method


def _name(options: Namespace, evidence: Evidence) -> str:
    most = int(evidence.particles.max()) if options.target_error is None else f"to{options.target_error:g}"
    rows = f"-first{options.rows}" if options.rows is not None else ""
    return f"{options.method.rpartition('.')[2]}{f'-{most}' if most else ''}{rows}"


def _notes(run: run_folder.Run, evidence: Evidence) -> list[str]:
    contract, log_p = Contract(run.observation, evidence.measure, scored(run.story)), evidence.estimate.mean().item()
    notes = []
    if contract.converts:
        raw, bits = log_p + contract.log_jacobian, contract.bits_per_dimension(log_p)
        notes.append(f"on the raw scale: log p(x) = {raw:.3f} nats per datum, {bits:.3f} bits per dimension")
    if scored(run.story):
        notes.append(f"note: these are figures of {scored(run.story)}: compare with their like only")
    if evidence.measure != run.observation.measure:
        likes = f"a {evidence.measure} of data that have a {run.observation.measure}"
        notes.append(f"note: {likes}: compare with its like only")
    return notes


def of_weights(story: Any, batch: Batch, particles: int, seed: int) -> figures.Figures:
    """The guide's weights for the datum with the largest k-hat, and how the bound rises with K: of the first data."""
    log_w = draws(story, tuple(part[:FIGURE_ROWS] for part in batch), particles, seed)
    worst = int(pareto_k(log_w).nan_to_num(nan=-torch.inf).argmax())
    rows = log_w.shape[1]
    tail = fit_tail(log_w[:, worst : worst + 1])
    heading = f"Weights of the guide's draws for datum {worst}, the worst of {rows}"
    steps = bound_curve(log_w)
    return {
        "weights": (weight_histogram(log_w[:, worst], tail, heading), ""),
        "k-curve": (k_curve({"the guide": steps}, f"Bound by K draws from the guide, {rows} data"), ""),
    }


def _certify(run: run_folder.Run, batch: Batch, method: "partial[Any]", options: Namespace) -> None:
    """Bounds from both sides on data that the story draws, with more and more temperatures, as text and picture."""
    most = method.keywords["num_temperatures"]
    found = {}
    for distributions in sorted({max(1, most // part) for part in (8, 4, 2, 1)}):
        found[distributions] = method(run.story, batch, num_temperatures=distributions)
        print(f"{distributions} temperatures: {found[distributions]}")
    rows = len(batch[0])
    path = run_folder.write_bounds(run, found, f"bidirectional-{most}-{rows}", options.seed)
    title = f"log p(x) of {rows} simulated data, by annealing both ways"
    pictures = {"sandwich": (sandwich({f"from the {method.keywords['start']}": bounds(found)}, title), "")}
    print(f"saved in {path}\nfigures: {', '.join(map(str, figures.save_beside(pictures, path)))}")


def bounds(found: dict[int, Sandwich]) -> Bounds:
    """Means over the data and their Monte Carlo errors, by the number of temperatures."""
    sides = [[getattr(both, side) for both in found.values()] for side in ("lower", "upper")]
    means = [torch.stack([evidence.estimate.mean() for evidence in side]) for side in sides]
    errors = [torch.tensor([error_of_mean(evidence.standard_error) for evidence in side]) for side in sides]
    return Bounds(torch.tensor(list(found)), means[0], errors[0], means[1], errors[1])
