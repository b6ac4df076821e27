"""Counter-based random numbers: Philox's own test vectors, and what a world may rely on."""

import pytest
import torch

from occsora_sim import counter_random
from occsora_sim.counter_random import choice_from, philox, uniform, uniforms, words

KNOWN = [  # Random123 1.09, examples/kat_vectors, philox4x32 10
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_numbers(counter, key, answer):
    drawn = philox(torch.tensor(counter)[:, None, None], torch.tensor(key)[:, None])
    assert tuple(drawn.flatten().tolist()) == answer


def test_a_world_draws_the_same_alone_and_in_a_batch():
    keys = torch.tensor([[3, 0], [1 << 40, 7], [3, 1]])
    together = uniform(keys, 5, 6, 3)
    for row in range(3):
        assert torch.equal(together[row : row + 1], uniform(keys[row : row + 1], 5, 6, 3))


def test_uses_draw_the_same_together_and_each_alone():
    keys = torch.tensor([[3, 0], [1 << 40, 7]])
    shapes = {9: (5, 3), 2: (7,), 100: (2, 2, 2)}
    for (use, shape), drawn in zip(shapes.items(), uniforms(keys, shapes), strict=True):
        assert torch.equal(drawn, uniform(keys, use, *shape))
        exact = ((words(keys, use, drawn[0].numel()) >> 9).double() + 0.5) / 2**23
        assert torch.equal(drawn.flatten(1).double(), exact)


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF])
def test_neither_0_nor_1_is_ever_drawn(monkeypatch, word):
    """One in 17 million was 1: a size that is picked by it lies beyond the last."""
    monkeypatch.setattr(counter_random, "_words", lambda key, uses: torch.full((len(key), 2, 4), word))
    (drawn,) = uniforms(torch.zeros(1, 2, dtype=torch.int64), {0: (8,)})
    assert ((drawn > 0) & (drawn < 1) & ((drawn * 32).long() < 32)).all()


def test_seed_frame_and_use_each_change_what_is_drawn():
    drawn = [
        words(torch.tensor([key]), use, 8)
        for key, use in (([1, 2], 3), ([2, 2], 3), ([1, 3], 3), ([1, 2], 4))
    ]
    for i in range(4):
        for j in range(i):
            assert not (drawn[i] == drawn[j]).any()


def test_numbers_are_distributed_as_they_say():
    key = torch.tensor([[11, 4]])
    flat = uniform(key, 0, 100_000)[0]
    assert flat.min() > 0 and flat.max() < 1
    assert abs(float(flat.mean()) - 0.5) < 0.005 and abs(float(flat.var()) - 1 / 12) < 0.002
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(1, 50_000, 3)
    share = torch.bincount(choice_from(logits, uniform(key, 2, 50_000))[0], minlength=3) / 50_000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.3, 0.2]), atol=0.01, rtol=0)


def test_a_choice_is_never_one_that_cannot_be():
    logits = torch.tensor([-1e9, 0.0, -1e9, 0.0, -1e9])
    drawn = torch.tensor([2.0**-25, 0.25, 0.5, 0.500001, 1 - 2.0**-24])
    assert choice_from(logits.expand(5, 5), drawn).tolist() == [1, 1, 1, 3, 3]
