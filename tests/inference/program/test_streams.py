"""Every datum's own random streams."""

import hashlib

import pytest
import torch

from ppvae.inference.program.streams import Streams, contents, keys, own_generators, stream_seed


def test_a_key_is_of_the_seed_the_datum_and_how_many_equal_ones_came_before():
    x = torch.tensor([[1.0, 2], [3, 4], [1, 2], [1, 2]])
    labels = torch.tensor([0, 1, 0, 1])
    one, two, three, four = keys((x, labels), 7)
    bytes_of = contents((x, labels))
    assert one == b"7 0 " + bytes_of[0]
    assert three == b"7 1 " + bytes_of[0]
    assert four == b"7 0 " + bytes_of[3]  # another label is another datum
    assert len({one, two, three, four}) == 4
    assert bytes_of[1] == x[1].numpy().tobytes() + labels[1].numpy().tobytes()
    assert keys((x[1:2], labels[1:2]), 7) == [two]
    assert keys((x, labels), 8) != keys((x, labels), 7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bool, torch.int64, torch.uint8])
def test_contents_are_the_bytes_of_rows_whatever_the_layout(dtype):
    x = torch.arange(24).reshape(4, 3, 2).to(dtype)
    apart = x.transpose(0, 1).contiguous().transpose(0, 1)  # the same values, strided
    assert contents((apart,)) == [x[row].numpy().tobytes() for row in range(4)]
    assert contents((x[:, 0, 0],)) == [x[row, 0, 0].numpy().tobytes() for row in range(4)]


def test_a_stream_is_seeded_by_its_label_and_key_as_before():
    """As the first released version did: figures that were printed then come out the same now."""
    seed = stream_seed(b"0 0 abc", "4096")
    assert seed == int.from_bytes(hashlib.blake2b(b"4096 0 0 abc", digest_size=8).digest(), "big") >> 1
    assert 0 <= seed < 2**63
    assert stream_seed(b"0 0 abc", "0") != seed


def test_draws_of_a_datum_do_not_depend_on_the_others():
    like = torch.zeros(1).double()
    names = [b"a", b"b", b"c"]
    together, alone = Streams(names, "noise", like), Streams(names[1:2], "noise", like)
    for _ in range(2):  # and go on
        assert torch.equal(together.normal(5, 2)[:, 1:2], alone.normal(5, 2))
        assert torch.equal(together.uniform(5)[:, 1:2], alone.uniform(5))
    other = Streams(names, "other", like).normal(5, 2)
    assert not torch.equal(other, Streams(names, "noise", like).normal(5, 2))
    assert other.dtype == torch.float64


def test_draws_are_normal_and_uniform():
    noise = Streams([b"a", b"b"], "noise", torch.zeros(1))
    z, u = noise.normal(4000, 3), noise.uniform(4000)
    assert z.shape == (4000, 2, 3)
    assert u.shape == (4000, 2)
    assert (z.mean(0).abs() < 4 / 4000**0.5).all()
    assert ((z.square().mean(0) - 1).abs() < 4 * (2 / 4000) ** 0.5).all()
    assert ((u.mean(0) - 0.5).abs() < 4 * (1 / 12 / 4000) ** 0.5).all()
    assert torch.corrcoef(z.permute(1, 2, 0).reshape(6, -1)).fill_diagonal_(0).abs().max() < 4 / 4000**0.5


def test_generators_come_back_even_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match=r"inconsistent|size"), own_generators():
        torch.randn(3) @ torch.randn(4)
    assert torch.equal(torch.get_rng_state(), state)
