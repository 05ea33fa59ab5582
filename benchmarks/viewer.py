"""How many pictures a second the viewer of `fourdgs.widgets` makes on the CPU, up to their bytes, without a browser.

    python benchmarks/viewer.py [--run runs/demo/v2-s0] [--gaussians 5000] [--threads 1]

*moving*: the small pictures while a slider is dragged, with a request every millisecond; *at rest*: full pictures, one
after the other. Without a run the scene is a cloud of random Gaussians. Each row is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace

SIZES = (128, 256, 384)


def scene(motion: str, gaussians: int):
    """A cloud of Gaussians that fills two thirds of the picture, still or moving."""
    import numpy as np
    import torch

    import fourdgs as fd

    random = np.random.default_rng(0)
    points = random.normal(size=(gaussians, 3)) * 0.35
    cloud = fd.Gaussians.from_points(points, random.random((gaussians, 3)), opacity=0.5)
    if motion == "static":
        return fd.Model(cloud, fd.Static())
    field = fd.Deform([0.0, 0.0, 0.0], 1.5)
    with torch.no_grad():
        for values in field.parameters():
            values += 0.1 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    return fd.Model(cloud, field)


def measure(options: argparse.Namespace, seconds: float = 2.0) -> dict[str, float]:
    """Pictures a second, and median milliseconds of a picture."""
    import torch

    import fourdgs as fd
    from fourdgs.widgets import Viewer

    torch.set_num_threads(options.threads)
    model = fd.load_run(options.run).model if options.run else scene(options.motion, options.gaussians)
    viewer = Viewer(model, size=options.measure)
    home = viewer.view

    def at(turn: int):
        return replace(home, azimuth_deg=turn % 360 - 180, time=None if home.time is None else turn % 60 / 60)

    seen: list[float] = []
    viewer.image.observe(lambda _: seen.append(time.perf_counter()), "value")
    viewer.newest.ask(at(1))
    viewer.settle()

    seen.clear()
    begun = time.perf_counter()
    turn = 1
    while time.perf_counter() < begun + seconds:
        turn += 1
        viewer.newest.ask(at(turn))
        time.sleep(0.001)
    moving = len([moment for moment in seen if moment < begun + seconds]) / seconds
    viewer.settle()

    spent = []
    begun = time.perf_counter()
    while time.perf_counter() < begun + seconds:
        turn += 1
        start = time.perf_counter()
        viewer.newest.ask(at(turn), rest=True)
        viewer.settle()
        spent.append(time.perf_counter() - start)
    viewer.close()
    return {"moving": moving, "rest": len(spent) / sum(spent), "rest_ms": 1000 * statistics.median(spent)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="", help="the folder of a finished run")
    parser.add_argument("--gaussians", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--motion", default="deform", help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    what = options.run or f"{options.gaussians} Gaussians"
    print(f"{what}, {options.threads} thread(s), medians of {options.rounds}; pictures a second\n")
    print("| motion | size | moving (half size, JPEG) | at rest (PNG) | at rest, ms |\n|---|---|---|---|---|")
    for motion in ("of the run",) if options.run else ("static", "deform"):
        for size in SIZES:
            command = [sys.executable, __file__, f"--measure={size}", f"--motion={motion}", f"--run={options.run}"]
            command += [f"--{key}={getattr(options, key)}" for key in ("gaussians", "threads")]
            env = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
            rounds = [
                json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
                for _ in range(options.rounds)
            ]
            moving, rest, ms = (statistics.median(one[key] for one in rounds) for key in ("moving", "rest", "rest_ms"))
            print(f"| {motion} | {size} | {moving:.0f} | {rest:.0f} | {ms:.1f} |", flush=True)


if __name__ == "__main__":
    main()
