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


def test_weights_say_how_often_a_frame_comes():
    weights = [3.0] * 4 + [0.6] * 20  # each source half of the draws
    uniform = Sampler(SOURCES, "uniform", torch.Generator().manual_seed(0), weights)
    frames = Counter(uniform.next(240).tolist())
    assert all(frames[row] == 30 for row in range(4)) and all(frames[row] == 6 for row in range(4, 24))


def test_weights_count_within_a_balanced_source():
    weights = [1.0, 1.0, 1.0, 3.0] + [1.0] * 20
    rows = Counter(Sampler(SOURCES, "balanced", torch.Generator().manual_seed(0), weights).next(240).tolist())
    assert sum(rows[row] for row in range(4)) == 120
    assert rows[3] == 60 and rows[0] == 20


def test_no_draw_is_ever_far_from_its_share():
    weights = [1.0, 2.0, 4.0, 0.5]
    drawn = Sampler(list("abcd"), "uniform", torch.Generator().manual_seed(0), weights).next(300)
    counts = torch.nn.functional.one_hot(drawn, 4).cumsum(0)
    due = torch.arange(1, 301)[:, None] * torch.tensor(weights) / sum(weights)
    assert (counts - due).abs().max() <= 1.5


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
