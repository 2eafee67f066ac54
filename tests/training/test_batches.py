"""Batches from memory and from streams: every row once, in the order that a fit's own generator says."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

import ppvae
from ppvae.inference import elbo
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.networks import mlp
from ppvae.training.batches import Arrays, Memory, Stream
from ppvae.training.fit import begin, run

CPU = torch.device("cpu")


def data(rows=20):
    return torch.bernoulli(torch.full((rows, 5), 0.5), generator=torch.Generator().manual_seed(0))


def story():
    torch.manual_seed(0)
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(mlp(2, [8], 5)), encoders.DiagonalNormal(mlp(5, [8], 4)))


def batches(source, seed=0, size=8):
    order = torch.Generator().manual_seed(seed)
    return [source.batch(*given) for _ in range(2) for _, given in source.epoch(order, size, CPU)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "source",
    [
        lambda x, index, workers: Memory((x, index)),
        lambda x, index, workers: Stream(TensorDataset(x, index), workers),
        lambda x, index, workers: Stream(Arrays(x.numpy(), index.numpy()), workers),
    ],
    ids=["memory", "rows", "arrays"],
)
def test_every_row_comes_once_a_pass_with_what_belongs_to_it(source, workers):
    x, index = data(), torch.arange(20)
    found = batches(source(x, index, workers))
    assert [len(part) for part, _ in found] == [8, 8, 4, 8, 8, 4]
    first, second = torch.cat([rows for _, rows in found]).split(20)
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(20))
    assert first.tolist() != second.tolist()
    assert all(torch.equal(part, x[rows]) for part, rows in found)


def test_the_order_is_the_generators_however_many_read():
    orders = [
        torch.cat([part for (part,) in batches(Stream(TensorDataset(torch.arange(20)), workers), seed)]).tolist()
        for workers, seed in ((0, 1), (2, 1), (0, 2))
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_a_fit_streams_from_a_memory_mapped_file(tmp_path):
    np.save(tmp_path / "x.npy", data(64).numpy().astype(np.uint8))
    mapped = Arrays(np.load(tmp_path / "x.npy", mmap_mode="r"))
    history = ppvae.fit(story(), mapped, epochs=8, batch_size=16, lr=1e-2, valid=data(9), progress=False)
    assert history.loss[-1] < history.loss[0]
    assert history.valid[-1] is not None


def test_a_stopped_stream_goes_on_to_the_last_bit():
    options = {"data": Stream(TensorDataset(data(50)), workers=0), "objective": elbo, "batch_size": 16}
    whole = list(run(begin(story()), epochs=4, **options))
    first = begin(story())
    parts = list(run(first, epochs=2, **options))
    second = begin(story(), seed=9)
    second.load_state_dict(first.state_dict())
    parts += list(run(second, epochs=2, **options))
    assert [record.loss for record in parts] == [record.loss for record in whole]


class Rows(Dataset):
    """Rows of five, whose last is grey."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        return torch.full((5,), 0.5 if row == self.rows - 1 else 1.0)


def test_the_first_rows_of_a_stream_are_checked():
    with pytest.raises(ValueError, match=r"^site 'x' .*got 0\.5 in row 9: binarise"):
        ppvae.fit(story(), Rows(10), epochs=1, progress=False)


def test_every_row_of_a_stream_is_checked_when_it_comes_and_the_story_stays_as_it_was():
    vae = story()
    before = copy.deepcopy(vae.state_dict())
    with pytest.raises(ValueError, match=r"^in a batch of the stream, site 'x' .*got 0\.5 in row \d+: "):
        ppvae.fit(vae, Stream(Rows(1500), workers=0), epochs=1, progress=False)
    assert all(torch.equal(part, before[name]) for name, part in vae.state_dict().items())


def test_a_stream_draws_what_tensors_draw():
    """What looks at its batches draws nothing of the fit's."""
    x = data(50)
    losses = [ppvae.fit(story(), rows, epochs=2, progress=False).loss for rows in (x, Stream(TensorDataset(x), 0))]
    assert losses[0] == losses[1]
