"""What listing and comparing many runs takes, against reading their metrics.csv alone.

    python benchmarks/runs.py [--runs 200] [--frames 500] [--cameras 25]

The runs are made up: a run.json as training writes it, a metrics.csv of so many held-out frames, a model of some bytes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import fourdgs as fd
from fourdgs.production import challengers, promote

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from made_up import made_up_run, measured  # noqa: E402


def seconds(job: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The median wall and processor seconds of a job, once done before."""
    job()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        job()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--cameras", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number in range(options.runs):
            table = measured(28 + number / 100, frames=options.frames, cameras=options.cameras, seed=number)
            made_up_run(root / f"run{number:03d}", table)
        promote(root / "run000", root=root)
        files = sorted(root.glob("*/metrics.csv"))
        jobs = {
            "pandas.read_csv of every metrics.csv": lambda: [pd.read_csv(file) for file in files],
            "fd.runs: the table": lambda: fd.runs(root),
            "challengers: paired bootstrap, all against one": lambda: challengers(root, root=root),
        }
        found = {name: seconds(job, options.repeats) for name, job in jobs.items()}
    reading = next(iter(found.values()))[1]
    print(f"{options.runs} runs of {options.frames} frames of {options.cameras} cameras, median of {options.repeats}\n")
    print("| what | wall s | processor s | times reading |\n|---|---|---|---|")
    for name, (wall, cpu) in found.items():
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {cpu / reading:.1f} |")
    wall, cpu = (sum(values[part] for values in list(found.values())[1:]) for part in (0, 1))
    print(f"| **listed and compared** | {wall:.2f} | {cpu:.2f} | {cpu / reading:.1f} |")


if __name__ == "__main__":
    main()
