"""How fast the CPU rasteriser is: forward and backward, against vectorised torch and the same algorithm in C++.

Run `python benchmarks/raster_cpu.py`. Prints one Markdown table of medians in milliseconds, all measured in one run and
in turns, so that a busy machine slows every column alike; then compile times and peak memory. Where other programs
keep the cores busy, set OMP_WAIT_POLICY=passive, or OMP_NUM_THREADS=1. Columns:

- numba: `fourdgs.raster.rasterize` and backward, as training calls it;
- C++: raster_cpu.cpp, built here with the compiler of the machine (left out if there is none), with the same threads;
- plain: the numba engine without explicit vectors (FOURDGS_RASTER=plain);
- torch: every Gaussian of a tile at once by torch operations and autograd.

The scene is the usual one of these benchmarks: Gaussians of scale 0.01 to 0.03 in a unit ball, seen with 50 degrees
from a distance of 4; "overlap" has scales of 0.05 to 0.15.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fourdgs.raster import rasterize, ssim
from fourdgs.raster.ssim import C1, C2, window

HERE = Path(__file__).parent
SIZES = {  # name: Gaussians, pixels a side, largest scale
    "2k, 128": (2_000, 128, 0.03),
    "5k, 128": (5_000, 128, 0.03),
    "20k, 256": (20_000, 256, 0.03),
    "50k, 400": (50_000, 400, 0.03),
    "50k, 800": (50_000, 800, 0.03),
    "20k, 256, overlap": (20_000, 256, 0.15),
}
TORCH_LIMIT = 20_000  # more Gaussians than this take torch too long and too much memory


def convolved(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """SSIM as it is mostly written: torch's convolutions."""
    images, _, _, channels = a.shape
    weights = window(a.device, a.dtype)
    a, b = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)  # [B, D, H, W]
    moments = torch.cat([a, b, a * a, b * b, a * b]).flatten(0, 1)[:, None]  # [5 B D, 1, H, W]
    moments = torch.nn.functional.conv2d(moments, weights.view(1, 1, 1, -1))
    moments = torch.nn.functional.conv2d(moments, weights.view(1, 1, -1, 1))
    mean_a, mean_b, aa, bb, ab = moments.view(5, images * channels, *moments.shape[-2:])
    top = (2 * mean_a * mean_b + C1) * (2 * (ab - mean_a * mean_b) + C2)
    bottom = (mean_a**2 + mean_b**2 + C1) * (aa - mean_a**2 + bb - mean_b**2 + C2)
    return (top / bottom).mean()


def make_scene(count: int, side: int, largest: float) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    means = means * torch.rand(count, 1, generator=generator) ** (1 / 3)
    scales = largest / 3 + largest * 2 / 3 * torch.rand(count, 3, generator=generator)
    quats = torch.randn(count, 4, generator=generator)
    opacities, colors = torch.rand(count, generator=generator), torch.rand(count, 3, generator=generator)
    view = torch.eye(4)[None].clone()
    view[0, 2, 3] = 4
    focal = 0.5 * side / math.tan(math.radians(25))
    K = torch.tensor([[[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]]])
    return [tensor.requires_grad_() for tensor in (means, quats, scales, opacities, colors)], view, K


def torch_render(means, quats, scales, opacities, colors, view, K, width, height, background):
    """The picture [H, W, 3] by torch operations: projection at once, then tile by tile, all its Gaussians at once."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    R = torch.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
         2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
         2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1,
    ).view(-1, 3, 3)  # fmt: skip
    centre = means @ view[:3, :3].T + view[:3, 3]
    x, y, z = centre.unbind(-1)
    zero = torch.zeros_like(z)
    fx, fy = K[0, 0], K[1, 1]
    J = torch.stack([fx / z, zero, -fx * x / z**2, zero, fy / z, -fy * y / z**2], -1).view(-1, 2, 3)
    M = J @ view[:3, :3] @ (R * scales[:, None])
    cov = M @ M.mT + 0.3 * torch.eye(2)
    means2d = torch.stack([fx * x / z + K[0, 2], fy * y / z + K[1, 2]], -1)
    conics = torch.linalg.inv(cov)
    with torch.no_grad():
        order = torch.argsort(z)
        radius = 3.33 * torch.stack([cov[:, 0, 0], cov[:, 1, 1]], -1).sqrt()
        low, high = (means2d - radius)[order], (means2d + radius)[order]
    pixels = torch.stack(torch.meshgrid(torch.arange(16) + 0.5, torch.arange(16) + 0.5, indexing="xy"), -1)
    rows = []
    for top in range(0, height, 16):
        row = []
        for left in range(0, width, 16):
            across = (low[:, 0] < left + 16) & (high[:, 0] > left) & (low[:, 1] < top + 16) & (high[:, 1] > top)
            near = order[across]
            d = (pixels + torch.tensor([left, top])).view(256, 1, 2) - means2d[near]
            sigma = 0.5 * (torch.einsum("pni,nij->pnj", d, conics[near]) * d).sum(-1)
            alpha = (opacities[near] * torch.exp(-sigma)).clamp_max(0.999)
            alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
            T = torch.cumprod(1 - alpha, 1)
            T = torch.cat([torch.ones(256, 1), T], 1)
            weights = torch.where(T[:, 1:] > 1e-4, alpha * T[:, :-1], 0.0)
            row.append((weights @ colors[near] + (1 - weights.sum(1, keepdim=True)) * background).view(16, 16, 3))
        rows.append(torch.cat(row, 1))
    return torch.cat(rows, 0)[:height, :width]


def build_cpp(folder: Path) -> Callable | None:
    """The C++ function, compiled, or None where there is no compiler."""
    compiler = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
    if compiler is None:
        return None
    library = folder / "raster_cpu.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC", "-std=c++17"]
    done = subprocess.run([compiler, *flags, str(HERE / "raster_cpu.cpp"), "-o", str(library)], capture_output=True)
    if done.returncode:
        print(done.stderr.decode(), file=sys.stderr)
        return None
    function = ctypes.CDLL(str(library)).render
    function.restype = None
    return function


def cpp_step(function: Callable, inputs, view, K, side: int, background, v_image) -> Callable:
    """A call of the C++ function, forward and backward; returns its picture and gradients."""
    arrays = [tensor.detach().contiguous().numpy() for tensor in (*inputs, view, K)]
    image, alpha = np.empty((side, side, 3), np.float32), np.empty((side, side), np.float32)
    gradients = [np.empty_like(array) for array in arrays[:5]]
    pointers = [
        array.ctypes.data_as(ctypes.c_void_p) for array in (*arrays, background, image, alpha, v_image, *gradients)
    ]

    def step():
        function(len(arrays[0]), *pointers[:7], side, side, *pointers[7:], torch.get_num_threads())
        return image, gradients

    return step


def measure(calls: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Times in milliseconds of ``rounds`` calls each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            if name == "torch" and len(times[name]) >= 3:
                continue
            # One call of its own before the one that counts: the caches hold its data, and the threads of the others'
            # OpenMP, which go on spinning for a while, have gone to sleep.
            call()
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def compare(name: str, rounds: int, cpp: Callable | None) -> None:
    """One row of the table."""
    count, side, largest = SIZES[name]
    inputs, view, K = make_scene(count, side, largest)
    background = torch.ones(1, 3)
    v_image = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(1)) / side**2

    def clear():
        for tensor in inputs:
            tensor.grad = None

    def numba_step():
        clear()
        picture, _, _ = rasterize(*inputs, view, K, side, side, backgrounds=background)
        picture.backward(v_image)
        return picture

    def plain_step():
        os.environ["FOURDGS_RASTER"] = "plain"
        try:
            numba_step()
        finally:
            del os.environ["FOURDGS_RASTER"]

    def torch_step():
        clear()
        torch_render(*inputs, view[0], K[0], side, side, background).backward(v_image[0])

    calls = {"numba": numba_step}
    if cpp is not None:
        calls["C++"] = cpp_step(cpp, inputs, view, K, side, background.numpy(), v_image.numpy())
    calls["plain"] = plain_step
    if count <= TORCH_LIMIT and largest < 0.1:
        calls["torch"] = torch_step
    times = measure(calls, rounds)
    worst = ""
    if cpp is not None:
        picture, gradients = numba_step(), calls["C++"]()
        assert np.abs(picture[0].detach().numpy() - gradients[0]).mean() < 1e-6, "C++ and numba disagree"
        errors = [
            np.linalg.norm(a.grad.numpy() - b) / np.linalg.norm(b) for a, b in zip(inputs, gradients[1], strict=True)
        ]
        worst = f"{max(errors):.0e}"
    cells = [f"{np.median(times[key]):.1f} ({min(times[key]):.1f})" if key in times else "-" for key in
             ("numba", "C++", "plain", "torch")]  # fmt: skip
    against_cpp = f"{np.median(np.divide(times['numba'], times['C++'])):.2f}" if cpp is not None else "-"
    against_torch = f"{np.median(times['torch']) / np.median(times['numba']):.0f}" if "torch" in times else "-"
    print(f"| {name} | {' | '.join(cells)} | {against_cpp} | {against_torch} | {worst} |", flush=True)


def compare_ssim(rounds: int) -> None:
    print("\n| SSIM + gradient, pixels | fused | torch | torch / fused |\n|---|---|---|---|")
    for side in (128, 256, 400):
        a, b = torch.rand(1, side, side, 3, requires_grad=True), torch.rand(1, side, side, 3)

        def step(function, a=a, b=b):
            a.grad = None
            function(a, b).backward()

        times = measure({"fused": lambda step=step: step(ssim), "torch": lambda step=step: step(convolved)}, rounds)
        fused, other = np.median(times["fused"]), np.median(times["torch"])
        print(f"| {side}x{side} | {fused:.2f} | {other:.1f} | {other / fused:.0f} |", flush=True)


_START = """
import time
start = time.perf_counter()
import torch
from fourdgs.raster import rasterize, ssim
loaded = time.perf_counter()
import sys
sys.path.insert(0, {here!r})
from raster_cpu import make_scene
inputs, view, K = make_scene(500, 64, 0.1)
picture, _, _ = rasterize(*inputs, view, K, 64, 64)
(picture.sum() + ssim(picture, torch.zeros_like(picture))).backward()
sh = torch.zeros(500, 16, 3, requires_grad=True)
rasterize(*inputs[:4], sh, view, K, 64, 64, sh_degree=3)[0].sum().backward()
print(time.perf_counter() - loaded)
"""


def start_times(folder: Path) -> None:
    """Seconds from loaded libraries to the first gradients, with an empty cache and with a full one."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
    for what in ("empty", "full"):
        script = _START.format(here=str(HERE))
        seconds = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        print(f"first step with {what} kernel cache: {float(seconds.stdout):.2f} s")


_MEMORY = """
import sys
sys.path.insert(0, {here!r})
import torch
from raster_cpu import SIZES, make_scene, rasterize, torch_render
def step(count, side, largest):
    inputs, view, K = make_scene(count, side, largest)
    if {engine!r} == "numba":
        picture = rasterize(*inputs, view, K, side, side)[0]
    else:
        picture = torch_render(*inputs, view[0], K[0], side, side, torch.ones(3))
    picture.sum().backward()
def status(key):
    return int(open("/proc/self/status").read().split(key + ":")[1].split()[0]) / 1024
step(500, 64, 0.1)
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
before = status("VmRSS")
step(*SIZES["20k, 256"])
print(status("VmHWM") - before)
"""


def peak_memory() -> None:
    """How much one step at 20k, 256 takes at its peak, inputs, outputs and gradients included (Linux)."""
    if not Path("/proc/self/clear_refs").exists():
        return
    for engine in ("numba", "torch"):
        script = _MEMORY.format(here=str(HERE), engine=engine)
        megabytes = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        print(f"peak memory of a step at 20k, 256, {engine}: {float(megabytes):.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cpp = build_cpp(Path(folder))
        print(f"{torch.get_num_threads()} threads; median (fastest) of {arguments.rounds} steps in ms\n")
        print("| Gaussians, pixels | numba | C++ | plain | torch | numba / C++ | torch / numba | gradient difference |")
        print("|---|---|---|---|---|---|---|---|")
        for name in arguments.sizes:
            compare(name, arguments.rounds, cpp)
        compare_ssim(arguments.rounds)
        print()
        start_times(Path(folder))
        peak_memory()


if __name__ == "__main__":
    main()
