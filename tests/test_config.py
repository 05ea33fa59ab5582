from __future__ import annotations

import json

import pytest

from fourdgs import InputError, TrainConfig


def test_a_config_survives_json():
    config = TrainConfig(motion="deform", iterations=7, background=[0, 0.5, 1], seed=3)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0), ("iterations", 2.5), ("iterations", "many"), ("iterations", True), ("warmup", 1.5),
        ("warmup", float("nan")), ("motion", "jump"), ("sampling", "random"), ("init", 3), ("background", [1, 1]),
        ("sh_degree", 4), ("lr_means", -1.0), ("gaussians", 3),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(field, value):
    with pytest.raises(InputError, match=field):
        TrainConfig(**{field: value})


def test_an_unknown_setting_lists_the_known_ones():
    with pytest.raises(InputError, match=r"learning_rate.*lr_means"):
        TrainConfig.from_dict({"learning_rate": 1e-3})


def test_whole_floats_pass_as_ints():
    assert TrainConfig(iterations=10.0).iterations == 10
