"""Where a training step of the demo goes: medians by phase, for both sets of CPU kernels, in one run.

    python benchmarks/train_step.py [--gaussians 5000] [--size 128] [--threads 1]

*plain*: kernels without explicit vectors, torch's grid_sample in the field and its convolutions in SSIM; *vector*
is what is used where it compiles. Each runs in a process of its own, in turn, several times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict

PHASES = ("truth", "motion", "raster", "loss", "backward", "optimisers", "step")


def measure(motion: str, gaussians: int, size: int, threads: int, steps: int = 150) -> dict[str, float]:
    """Median milliseconds of each phase of a step."""
    import numpy as np
    import torch

    import fourdgs as fd
    from fourdgs.losses import photometric
    from fourdgs.model import render_gaussians
    from fourdgs.trainer import Trainer

    torch.set_num_threads(threads)
    trainer = Trainer(_scene(size), fd.TrainConfig(
        motion=motion, warmup=0.0, gaussians=gaussians, initial=1.0, iterations=10_000, init="box",
    ), torch.device("cpu"))  # fmt: skip
    spent = defaultdict(list)
    for _ in range(steps):
        clock = [time.perf_counter()]
        rows = trainer.samplers["sampler"].next(1)
        views, truth = trainer.views.take(rows), trainer.feed.pictures(rows).float() / 255
        clock.append(time.perf_counter())
        posed = trainer.motion.at(trainer.gaussians(), views.times)
        clock.append(time.perf_counter())
        rendered, _ = render_gaussians(posed, views, trainer.background)
        clock.append(time.perf_counter())
        loss = photometric(rendered, truth) + 0.01 * trainer.motion.regularisation()
        clock.append(time.perf_counter())
        loss.backward()
        clock.append(time.perf_counter())
        for optimiser in [*trainer.optimisers.values(), *trainer.field_optimisers]:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        clock.append(time.perf_counter())
        for phase, passed in zip(PHASES, [*np.diff(clock), clock[-1] - clock[0]], strict=True):
            spent[phase].append(1000 * passed)
    return {phase: statistics.median(values[20:]) for phase, values in spent.items()}


def _scene(size: int):
    """An orbit of noise pictures: what a step costs does not depend on what the pictures show."""
    import numpy as np
    import pandas as pd

    import fourdgs as fd

    cameras = fd.paths.orbit(8, radius=4.0, width=size, height=size, times=np.linspace(0, 1, 8))
    pixels = np.random.default_rng(0).integers(0, 255, (8, size, size, 3), dtype=np.uint8)
    frames = pd.DataFrame({
        "frame": [str(i) for i in range(8)], "camera": [str(i) for i in range(8)], "time": cameras.times.numpy(),
        "source": "noise", "split": "train", "image": "", "mask": "", "width": size, "height": size,
    })  # fmt: skip
    return fd.Capture("noise", frames, cameras, {str(i): (pixels[i], None) for i in range(8)})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=5000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.gaussians, options.size, options.threads)))
        return
    found: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for _ in range(options.rounds):
        for engine in ("plain", "vector"):
            for motion in ("static", "deform"):
                command = [sys.executable, __file__, "--measure", motion]
                command += [f"--{key}={getattr(options, key)}" for key in ("gaussians", "size", "threads")]
                done = subprocess.run(
                    command, env=os.environ | {"FOURDGS_RASTER": engine}, capture_output=True, text=True, check=True
                )
                found[motion, engine].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{options.gaussians} Gaussians, {options.size} pixels, {options.threads} thread(s); median ms of a step\n")
    print(f"{'phase':12}" + "".join(f"{motion + ' ' + engine:>16}" for motion, engine in found))
    for phase in PHASES:
        values = [statistics.median(run[phase] for run in runs) for runs in found.values()]
        print(f"{phase:12}" + "".join(f"{value:16.2f}" for value in values))
    for motion in ("static", "deform"):
        before, after = (statistics.median(run["step"] for run in found[motion, e]) for e in ("plain", "vector"))
        print(f"{motion}: {before / after:.1f} times faster with vectors")


if __name__ == "__main__":
    main()
