from __future__ import annotations

from collections import Counter

import pytest
import torch

from fourdgs.sampling import Sampler

SOURCES = ["orbit"] * 4 + ["clip"] * 20


def sampler(sampling: str, seed: int = 0) -> Sampler:
    return Sampler(SOURCES, sampling, torch.Generator().manual_seed(seed))


def test_uniform_shows_every_frame_once_a_round():
    rows = sampler("uniform").next(48).tolist()
    assert sorted(rows[:24]) == sorted(rows[24:]) == list(range(24))
    assert rows[:24] != rows[24:]


def test_balanced_shows_every_source_as_often():
    rows = sampler("balanced").next(80).tolist()
    counts = Counter(SOURCES[row] for row in rows)
    assert counts == {"orbit": 40, "clip": 40}
    frames = Counter(rows)
    assert all(frames[row] == 10 for row in range(4)) and all(frames[row] == 2 for row in range(4, 24))


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_a_restored_sampler_goes_on_where_it_stood(sampling):
    first = sampler(sampling)
    first.next(17)
    second = sampler(sampling, seed=9)
    second.restore(first.state())
    second.generator.set_state(first.generator.get_state())
    assert torch.equal(first.next(60), second.next(60))


def test_the_seed_decides():
    assert torch.equal(sampler("uniform").next(24), sampler("uniform").next(24))
    assert not torch.equal(sampler("uniform").next(24), sampler("uniform", 1).next(24))
