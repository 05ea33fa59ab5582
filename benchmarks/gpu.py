"""How fast a GPU trains and renders: against gsplat's kernels alone, and against a plain loop of one camera a step.

    python benchmarks/gpu.py --out gpu.csv [--sections steps,profile,render,parity] [--stills DIR] [--grid DIR]

Everything runs in one process, on scenes of its own (a ball of random Gaussians that draws its own pictures), but for
two sections that train on captures: ``v2`` (the stills of ``--stills``, `python -m fourdgs.data.alpha --size 800`) and
``grid`` (``--grid``, the same with ``--full-grid``). Rows are appended to the table as they come.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from gsplat import rasterization

import fourdgs as fd
from fourdgs.cuda.available import fused, why_not_fused
from fourdgs.cuda.photometric import Photometric
from fourdgs.hexplane import sampled_features
from fourdgs.model import render_bytes
from fourdgs.motion import Deform
from fourdgs.trainer import Trainer

BATCH = 8
CUDA = torch.device("cuda")


def scene(count: int, seed: int = 0) -> fd.Gaussians:
    """Gaussians on a bumpy ball of radius 0.8, each about as wide as its neighbours are apart."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(count, 3))
    points *= 0.8 / np.linalg.norm(points, axis=1, keepdims=True) * random.uniform(0.85, 1, (count, 1))
    return fd.Gaussians.from_points(points, random.uniform(size=(count, 3)), opacity=0.7, scale=0.7)


def capture(size: int, frames: int, count: int) -> fd.Capture:
    """Pictures of another such ball from all around, in memory; every other frame has a time."""
    cameras = fd.paths.orbit(frames=frames, radius=4.0, fov_x_deg=30.0, width=size, height=size)
    times = np.where(np.arange(frames) % 2, np.linspace(0, 1, frames), np.nan)
    cameras = cameras.with_times(times)
    model = fd.Model(scene(count, seed=1), fd.Static()).to(CUDA)
    pictures = torch.cat(list(render_bytes(model, cameras))).numpy()
    names = [f"{index:04d}" for index in range(frames)]
    table = pd.DataFrame({"frame": names, "camera": names, "time": times, "source": "ball", "split": "train"})
    table = table.assign(image="", mask="", width=size, height=size)
    return fd.Capture(Path("ball"), table, cameras, {name: (p, None) for name, p in zip(names, pictures, strict=True)})


def seconds_each(what: Callable[[], object], repeats: int = 5, calls: int = 30) -> float:
    """The median over ``repeats`` of the time of a call, in seconds, of many calls in a row."""
    for _ in range(10):
        what()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(calls):
            what()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begun) / calls)
    return statistics.median(times)


def trainer_of(frames: fd.Capture, motion: str, count: int, start: fd.Gaussians, **settings) -> Trainer:
    """A trainer in the middle of its work: warm, at its budget; nothing is relocated while it is timed."""
    config = fd.TrainConfig(
        motion=motion, iterations=1_000_000, warmup=0.0, gaussians=count, batch=BATCH, refine_every=10**6, **settings
    )
    trainer = Trainer(frames, replace(config, init="box"), CUDA)
    trainer.adopt(start.to(CUDA))
    return trainer


def floor(trainer: Trainer) -> Callable[[], None]:
    """gsplat forwards and backwards with the fused loss, nothing else: what a step cannot be faster than."""
    posed = trainer.gaussians()
    leaves = [
        value.detach().clone().requires_grad_()
        for value in (posed.means, posed.quats, posed.scales.exp(), posed.opacities.sigmoid(),
                      (0.282095 * posed.sh0[:, 0] + 0.5).clamp(min=0))
    ]  # fmt: skip
    views = trainer.views.take(torch.arange(BATCH, device=CUDA))
    store, rows = trainer.feed.pictures(torch.arange(BATCH)), torch.arange(BATCH, device=CUDA)
    backgrounds = trainer.background.expand(BATCH, 3)

    def call() -> None:
        rgb, _, _ = rasterization(
            *leaves, views.viewmats, views.Ks, views.width, views.height, packed=False, backgrounds=backgrounds
        )
        Photometric.apply(rgb, store, rows, 0.2).backward()
        for leaf in leaves:
            leaf.grad = None

    return call


def plain_loop(frames: fd.Capture, motion: str, start: fd.Gaussians) -> Callable[[], None]:
    """One camera a step as trainers are usually written: gsplat's call, an optimiser a tensor, a logged loss.

    It has our fused loss: with torch's convolutions their gradient alone takes 90 ms at 800 pixels.
    """
    cameras = frames.cameras.to(CUDA)
    store = frames.pictures()[0].to(CUDA)
    parameters = {key: torch.nn.Parameter(value.to(CUDA)) for key, value in start.items().items()}
    optimisers = [torch.optim.Adam([value], lr=1e-3, eps=1e-15) for value in parameters.values()]
    field = Deform([0, 0, 0], 1.0).to(CUDA) if motion == "deform" else None
    if field is not None:
        field.features = lambda means, times: sampled_features(list(field.space), list(field.time), means, times)
        optimisers.append(torch.optim.Adam(field.parameters(), lr=1e-3, eps=1e-15))
    width, height, background = cameras.width, cameras.height, torch.ones(1, 3, device=CUDA)
    losses: list[float] = []

    def call() -> None:
        row = int(torch.randint(len(store), ()))
        posed = fd.Gaussians(**parameters)
        if field is not None:
            posed = fd.Gaussians(**{k: v[0] for k, v in field.at(posed, cameras.times[row : row + 1]).items().items()})
        rgb, _, _ = rasterization(
            posed.means, posed.quats, posed.scales.exp(), posed.opacities.sigmoid(), posed.sh,
            cameras.viewmats[row : row + 1], cameras.Ks[row : row + 1], width, height,
            packed=False, sh_degree=0, backgrounds=background,
        )  # fmt: skip
        loss = Photometric.apply(rgb, store, torch.tensor([row], device=CUDA), 0.2)
        loss.backward()
        losses.append(loss.item())
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    return call


def busy(what: Callable[[], object], calls: int = 15) -> tuple[float, pd.DataFrame]:
    """The share of the time in which the GPU runs a kernel, and the kernels by their time."""
    from torch.profiler import ProfilerActivity, profile

    for _ in range(5):
        what()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        for _ in range(calls):
            what()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in record.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    covered, until = 0.0, -1.0
    for start, end, _ in spans:
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    table = pd.DataFrame([(name, end - start) for start, end, name in spans], columns=["kernel", "us"])
    table = table.groupby("kernel").us.agg(["sum", "count"]).sort_values("sum", ascending=False) / calls
    return covered / (until - spans[0][0]), table


def steps(add: Callable[..., None], sizes: list[tuple[int, int]]) -> None:
    """Training steps against the floor and the plain loop."""
    for size, count in sizes:
        frames, start = capture(size, 131, count), scene(count)
        for motion in ("static", "deform"):
            trainer = trainer_of(frames, motion, count, start)
            torch.cuda.reset_peak_memory_stats()
            step = seconds_each(trainer.take_step)
            peak = torch.cuda.max_memory_allocated() / 2**30
            below = seconds_each(floor(trainer))
            share, _ = busy(trainer.take_step)
            plain = seconds_each(plain_loop(frames, motion, start))
            add(
                "steps", motion=motion, size=size, gaussians=count, batch=BATCH, step_ms=step * 1e3,
                floor_ms=below * 1e3, ratio_to_floor=step / below, busy=share, views_per_s=BATCH / step,
                steps_per_s=1 / step, plain_ms=plain * 1e3, plain_views_per_s=1 / plain,
                ratio_to_plain=BATCH / step * plain, peak_gb=peak,
            )  # fmt: skip


def kernels(add: Callable[..., None], out: Path) -> None:
    """Which kernels a step consists of, and how busy the GPU is, in the plain loop and in ours."""
    frames, start = capture(800, 131, 50_000), scene(50_000)
    for motion in ("static", "deform"):
        for name, what in (
            ("plain", plain_loop(frames, motion, start)),
            ("ours", trainer_of(frames, motion, 50_000, start).take_step),
        ):
            share, table = busy(what)
            table.to_csv(out / f"kernels_{name}_{motion}.csv")
            launches = float(table["count"].sum())
            add("kernels", loop=name, motion=motion, size=800, gaussians=50_000, busy=share, launches=launches)
            print(table.head(14).to_string(), flush=True)


def rendering(add: Callable[..., None], sizes: list[tuple[int, int]], frames: int = 500) -> None:
    """A camera path of 500 frames: to 8 bits on the host, and to an MP4."""
    for size, count in sizes:
        for motion in (fd.Static(), Deform([0, 0, 0], 1.0)):
            model = fd.Model(scene(count), motion).to(CUDA)
            path = fd.paths.spiral(frames=frames, width=size, height=size, fov_x_deg=30.0)
            path = path.with_times(np.linspace(0, 1, frames))

            def run(model: fd.Model = model, path: fd.Cameras = path) -> None:
                for _ in render_bytes(model, path):
                    pass

            run()
            taken = seconds_each(run, repeats=3, calls=1)
            row = {"seconds": taken, "frames_per_s": frames / taken}
            try:
                with tempfile.TemporaryDirectory() as folder:
                    begun = time.perf_counter()
                    fd.render_path(model, path, Path(folder) / "path.mp4", progress=False)
                    row["mp4_seconds"] = time.perf_counter() - begun
            except fd.MissingDependency as error:
                print(error)
            add("render", motion=motion.name, size=size, gaussians=count, frames=frames, **row)


def parity(add: Callable[..., None]) -> None:
    """A short training run, whole, with one config on both devices and on the GPU with the fused kernels left out."""
    frames = capture(64, 24, 1500)
    for motion in ("static", "deform"):
        for seed in range(2):
            config = fd.TrainConfig(motion=motion, iterations=600, gaussians=1500, seed=seed)
            for device in ("cpu", "cuda"):
                with tempfile.TemporaryDirectory() as folder:
                    begun = time.perf_counter()
                    run = fd.train(frames, config, Path(folder) / "run", device=device, progress=False)
                    taken = time.perf_counter() - begun
                    table = fd.evaluate(run, frames, split="train", progress=False)
                add("parity", device=device, motion=motion, seed=seed, psnr_db=table.psnr_db.mean(), seconds=taken)


def story_v2(add: Callable[..., None], folder: Path, seeds: list[int], batches: list[int], motions: list[str]) -> None:
    """20,000 views of training on ten stills at 800 pixels: one camera a step against many, on held-out stills."""
    whole = fd.load_capture(folder)
    train = whole.select(split="train", source="orbit")
    test = whole.select(split="test", source="still")
    train = train.with_times(np.linspace(0, 1, len(train)))
    base = fd.TrainConfig(motion="deform", iterations=20_000, gaussians=20_000)
    for seed in seeds:
        for batch in batches:
            for motion in motions:
                config = replace(base if batch == 1 else base.batched(batch), seed=seed, motion=motion)
                with tempfile.TemporaryDirectory() as out:
                    run = fd.train(train, config, Path(out) / "run", progress=False)
                    table = fd.evaluate(run, test, progress=False)
                    taken = run.info["phases_s"]["train"]
                add("v2", motion=motion, batch=batch, seed=seed, psnr_db=table.psnr_db.mean(), seconds=taken)


def grid(add: Callable[..., None], folder: Path, out: Path, views: int, batch: int) -> None:
    """The full grid until it has converged: held-out talking PSNR by seconds of training."""
    whole = fd.load_capture(folder)
    config = fd.TrainConfig(motion="deform", iterations=views, gaussians=40_000, evaluate_every=views // 60)
    for source in ("talking", "still"):
        print(source, len(whole.select(split="test", source=source)))
    with tempfile.TemporaryDirectory() as place:
        train, test = whole.select(split="train", source="grid"), whole.select(split="test", source="talking")
        run = fd.train(train, config.batched(batch), Path(place) / "run", held_out=test, progress=False)
        run.curve.to_csv(out / "grid_curve.csv", index=False)
        for source in ("talking", "still"):
            table = fd.evaluate(run, whole.select(split="test", source=source), progress=False)
            add("grid", source=source, batch=batch, views=views, psnr_db=table.psnr_db.mean(),
                seconds=run.info["phases_s"]["train"], frames=len(train))  # fmt: skip


def main() -> None:
    """Run the sections asked for, and write the table after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.csv"))
    parser.add_argument("--sections", default="steps,kernels,render,parity")
    parser.add_argument("--stills", type=Path)
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--views", type=int, default=200_000, help="of training, in the section grid")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="cameras a step, in v2 and (last) grid")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="in the section v2")
    parser.add_argument("--motions", nargs="+", default=["static", "deform"], help="in the section v2")
    given = parser.parse_args()
    rows: list[dict] = []

    def add(section: str, **values) -> None:
        rows.append({"section": section} | values)
        pd.DataFrame(rows).to_csv(given.out, index=False)
        words = (f"{k}={value:.4g}" if isinstance(value, float) else f"{k}={value}" for k, value in values.items())
        print(section, *words, flush=True)

    print(torch.cuda.get_device_name(), torch.__version__, "fused" if fused() else why_not_fused(), flush=True)
    sizes = [(800, 50_000), (400, 50_000), (1024, 50_000), (800, 10_000), (800, 200_000)]
    sections = {
        "steps": lambda: steps(add, sizes),
        "kernels": lambda: kernels(add, given.out.parent),
        "render": lambda: rendering(add, [(800, 40_000), (400, 40_000), (1024, 40_000), (800, 200_000)]),
        "parity": lambda: parity(add),
        "v2": lambda: story_v2(add, given.stills, given.seeds, given.batches, given.motions),
        "grid": lambda: grid(add, given.grid, given.out.parent, given.views, given.batches[-1]),
    }
    for name in given.sections.split(","):
        sections[name]()


if __name__ == "__main__":
    main()
