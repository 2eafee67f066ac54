"""Answers: whatever an estimator gives back has the same methods."""

import inspect
import json
import sys
import typing

import pandas
import pytest
import torch

import ppvae
from ppvae import inference
from ppvae.inference import Answer
from ppvae.selfcheck.analytic import LinearGaussian

KNOWN = LinearGaussian()
STORY, X = KNOWN.story(widen=1.2, shift=0.2), KNOWN.data(4)
QUIET = {"progress": False}
BRIEF = {"num_samples": 20, **QUIET}


def all_gaps():
    return inference.gaps(STORY, X, particles=30, num_steps=3, num_flow_steps=3, **QUIET)


def first_of_the_leaderboard():
    against = inference.reference(STORY, X, num_warmup=10, **BRIEF)
    log_p = KNOWN.log_evidence(X)
    return next(inference.leaderboard(STORY, X, log_p, against, methods=("amortised",), num_simulations=0, **BRIEF))


ANSWERS = {
    "importance": lambda: inference.importance(STORY, X, particles=30, **QUIET),
    "bidirectional": lambda: inference.bidirectional(STORY, X, particles=4, num_temperatures=4, **QUIET),
    "gaps": all_gaps,
    "generalisation": lambda: inference.generalisation(all_gaps(), all_gaps()),
    "calibration": lambda: inference.calibration(STORY, X, "amortised", num_simulations=20, **BRIEF),
    "reference": lambda: inference.reference(STORY, X, num_warmup=10, **BRIEF),
    "leaderboard": first_of_the_leaderboard,
    "infer": lambda: inference.infer(STORY, X, "amortised", **BRIEF),
    "laplace": lambda: inference.laplace(STORY, X, **QUIET),
    "bound_curve": lambda: inference.bound_curve(torch.randn(60, 4)),
    "fit": lambda: ppvae.fit(KNOWN.story(), X, epochs=2, **QUIET),
}
TENSORS = {"encode", "decode", "reconstruct", "sample", "log_joint", "log_weights", "log_mean_exp", "pareto_k"}
TENSORS |= {"r_hat", "effective_draws"}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_is_summed_up_tabled_and_saved(name, tmp_path):
    answer = ANSWERS[name]()
    assert isinstance(answer, Answer)
    table = answer.to_dataframe()
    assert len(table) > 0
    assert answer.save(tmp_path / "found.json") == tmp_path / "found.json"
    assert set(json.loads((tmp_path / "found.json").read_text())) == set(answer.summary())
    read = pandas.read_csv(tmp_path / "found.csv")
    assert list(read.columns) == list(table.columns)
    numbers = table.select_dtypes("number")
    pandas.testing.assert_frame_equal(read[numbers.columns], numbers, rtol=1e-8, check_dtype=False)
    assert "Tensor" not in str(answer)
    assert "tensor" not in str(answer)


def test_every_public_estimator_answers_so():
    """By what it says that it returns: an Answer, some of them in turn, or a tensor where there is nothing to judge."""
    for name in inference.__all__:
        value = getattr(inference, name)
        if inspect.isfunction(value) and name not in inference.objectives.__all__:
            returned = typing.get_type_hints(value)["return"]
            kinds = typing.get_args(returned) or (returned,)
            if name in TENSORS:
                assert returned is torch.Tensor, name
            else:
                assert all(issubclass(kind, Answer) for kind in kinds), name


def test_every_row_of_a_table_holds_the_numbers_of_its_datum_and_coordinate():
    found = inference.calibration(STORY, X, "amortised", num_simulations=20, **BRIEF)
    reference, normal = ANSWERS["reference"](), ANSWERS["laplace"]()
    rows = [
        (found.to_dataframe(), "coordinate", {"rank": found.ranks}),
        (reference.to_dataframe(), "coordinate", {"mean": reference.mean, "r_hat": reference.r_hat}),
        (normal.to_dataframe(), "dimension", {"mode": normal.loc, "deviation": normal.scale_tril.norm(dim=-1)}),
    ]
    for table, coordinate, columns in rows:
        for row in table.to_dict("records"):
            for name, values in columns.items():
                assert row[name] == values[row["datum"], row[coordinate]].item()


def test_a_history_without_an_epoch_can_be_printed():
    assert "epochs" in str(ppvae.History())


def test_figures_that_are_none_are_null_in_a_file(tmp_path):
    path = inference.infer(STORY, X, "amortised", **BRIEF).save(tmp_path / "found.json")
    assert json.loads(path.read_text())["largest_r_hat"] is None


def test_a_name_that_is_not_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"an answer is saved as \.json, with a \.csv beside it; got .*found\.csv"):
        ANSWERS["importance"]().save(tmp_path / "found.csv")


def test_without_pandas_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"to_dataframe needs pandas: pip install 'ppvae\[dataframe\]'"):
        ANSWERS["importance"]().to_dataframe()
