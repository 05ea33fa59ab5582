from __future__ import annotations

import os

import pytest

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the package does; some tests import torch first
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process a core


# Imports wait for the fixtures: most tests need neither, and the settings above must come before torch.


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """The embedded capture, small; modules that test another one have a `capture` of their own."""
    from clips import small_alpha

    return small_alpha(tmp_path_factory)


@pytest.fixture(scope="module")
def cut(capture):
    """The same with its clip cut out of the backdrop."""
    from fourdgs.data import hybrid

    return hybrid.matte(capture, "clip", capture.root / "clip_plate.png")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
