"""The HexPlane lookup on the CPU, forward and backward: the fused kernels against torch's grid_sample.

    python benchmarks/hexplane_cpu.py [--threads 1] [--gaussians 4000]

Medians in milliseconds, both taken in turn in the same run, at the planes of the demo: levels of 24 and 48 cells,
24 cells in time, 16 channels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from fourdgs.hexplane import hexplane_features, sampled_features
from fourdgs.motion import Deform

ROUNDS = 30


def timed(function: Callable, motion: Deform, place: torch.Tensor, times: torch.Tensor) -> tuple[float, float]:
    """Milliseconds forward and backward."""
    motion.zero_grad(set_to_none=True)
    begun = time.perf_counter()
    features = function(list(motion.space), list(motion.time), place, times)
    between = time.perf_counter()
    features.backward(torch.ones_like(features))
    return 1e3 * (between - begun), 1e3 * (time.perf_counter() - between)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gaussians", type=int, default=4000)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    motion = Deform([0.0, 0.0, 0.0], 1.0)
    random = torch.Generator().manual_seed(0)
    place = 2 * torch.rand(chosen.gaussians, 3, generator=random) - 1
    print(f"{chosen.gaussians} Gaussians, {chosen.threads} thread(s), medians of {ROUNDS} in ms: forward + backward")
    print("| times | grid_sample | fused | ratio |\n|---|---|---|---|")
    for instants in (1, 4):
        times = torch.rand(instants, generator=random)
        taken: dict[Callable, list] = {sampled_features: [], hexplane_features: []}
        for _ in range(ROUNDS + 1):  # the first one compiles
            for function, figures in taken.items():
                figures.append(timed(function, motion, place, times))
        medians = [
            [statistics.median(figure[part] for figure in figures[1:]) for part in (0, 1)] for figures in taken.values()
        ]
        words = " | ".join(f"{forward:.2f} + {backward:.2f}" for forward, backward in medians)
        print(f"| {instants} | {words} | {sum(medians[0]) / sum(medians[1]):.1f} |")


if __name__ == "__main__":
    main()
