"""What the tests of sweeps share: settings, a small capture, a scheduler."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from scenes import ball_cameras, ball_capture

import fourdgs as fd

SHORT = {"iterations": 12, "gaussians": 60, "refine_every": 5}
LONG = {"iterations": 240, "gaussians": 60, "checkpoint_every": 12}


def small_capture(root: Path) -> fd.Capture:
    """In memory: six orbit views to train on, four other views held out."""
    return fd.merge(
        [
            ball_capture(root, ball_cameras(6, 24)),
            ball_capture(root, ball_cameras(4, 24, start_deg=25, times=[0.0, 0.3, 0.6, 1.0]), source="x", split="test"),
        ]
    )


@contextlib.contextmanager
def a_scheduler() -> Iterator[str]:
    """The address of a scheduler in this process, with a worker that is a thread of it."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address


def parameters(path: str | Path) -> torch.Tensor:
    """All numbers of a run's Gaussians."""
    model = fd.load_run(path).model
    return torch.cat([value.detach().flatten() for value in [*model.gaussians.items().values()]])


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for it; fail where it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
