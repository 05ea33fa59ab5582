"""An avatar on a rig: ten stills and no talking frame, the clip on top, and the rig made wrong.

    python benchmarks/rig.py --capture DIR --out rig.csv [--rig FILE --track FILE] [--remedied DIR] [--part rows wrong]

The rig is that of the embedded avatar with its own performance, or --rig (safetensors, see `fourdgs.rig.Rig.save`) and
--track (CSV; seconds are capture times from 0 to 1); ``--save FOLDER`` writes the avatar's for a machine without it.
*wrong*: the vertices moved by smooth noise, its RMS in percent of the head's height, and all actions at another
strength. The rows "back" have the clip as well, which can teach offsets of the surface and the actions' strengths.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

NOISE_PERCENT = (0.5, 1.0, 2.0, 3.0)
STRENGTHS = (0.5, 0.75, 1.25, 1.5)
ROWS = ("static", "stills", "clip", "clip_camera", "clip_colour", "clip_both", "clip_basis")


def avatar(given: argparse.Namespace):
    """The rig, and its track as capture times [K] and values [K, A]."""
    from fourdgs.drive import load_track
    from fourdgs.rig import anny_rig, load_rig

    if given.rig is not None:
        rig, track = load_rig(given.rig), load_track(given.track)
        return rig, (track.times_s, track.to(rig.controls).values)
    from fourdgs.data.avatar import build

    built = build()
    rig, times = anny_rig(built), np.linspace(0, 1, 241)
    return rig, (times, np.stack([rig.drive(built.track.at(float(t))).numpy() for t in times]))


def head_height(rig) -> float:
    """Of the vertices that a nod moves as a whole, from lowest to highest, world units."""
    import torch

    nod = rig.vertices(rig.drive({"headPitch": 20.0})[None])[0]
    moved = (nod - rig.rest).norm(dim=1)
    height = rig.rest[moved > 0.5 * moved.max()][:, 1]
    return float(torch.amax(height) - torch.amin(height))


def spoilt(rig, percent: float, seed: int):
    """The rig with its vertices moved by smooth noise of so much RMS, percent of the head's height; edges set apart."""
    import torch
    from scipy.spatial import cKDTree

    points = rig.rest.numpy()
    height = head_height(rig)
    random = np.random.default_rng([seed, 7])
    centres = random.uniform(points.min(0), points.max(0), (200, 3))
    apart, near = cKDTree(centres).query(points, k=12)
    share = np.exp(-0.5 * (apart / (0.12 * height)) ** 2) + 1e-9
    noise = (random.normal(size=(200, 3))[near] * (share / share.sum(1, keepdims=True))[..., None]).sum(1)
    noise *= percent / 100 * height / np.sqrt((noise**2).sum(1).mean())
    shift = torch.from_numpy(noise).to(rig.rest)
    with torch.no_grad():
        rig.base += shift
        rig.rest += shift
    return rig


def work(job: dict) -> pd.DataFrame | str:
    """One run, measured; its error in words."""
    import torch

    import fourdgs as fd
    from fourdgs.ablation import measure
    from fourdgs.basis import Basis, knots_for
    from fourdgs.rigged import Rigged

    torch.set_num_threads(1)
    given, began = job["given"], time.perf_counter()
    try:
        capture = fd.load_capture(given.capture)
        rig, (times, values) = avatar(given)
        if job["percent"]:
            rig = spoilt(rig, job["percent"], job["seed"])
        stills = capture.select(split="train", source="orbit")
        clip = job["row"].startswith(("clip", "back"))
        frames = fd.load_capture(given.remedied) if clip else stills
        config = fd.TrainConfig(iterations=given.views, gaussians=given.gaussians, motion="rig", sampling="balanced")
        config = config if given.batch == 1 else config.batched(given.batch)
        if job["row"] in ("clip_camera", "clip_both", "back"):
            config = replace(config, sampling="camera")
        if job["row"] in ("clip_colour", "clip_both"):
            config = replace(config, source_look="colour")
        residual = None
        if job["row"] == "clip_basis":
            residual = Basis(trajectories=12, knots=knots_for(121))
            config = replace(config, rest_penalty=1.0)
        moves = Rigged(rig, (times, job["strength"] * values), residual=residual)
        if job["row"] == "static":
            config, moves = replace(config, motion="static", init="surface"), None
        config = replace(config, seed=job["seed"], rig_penalty=given.rig_penalty)
        with tempfile.TemporaryDirectory() as folder:
            moving = None if given.moving is None else dict(np.load(given.moving))
            more = {} if moves is None else {"rig": moves}
            table = measure(capture, frames, config, Path(folder) / "run", subject=stills, moving=moving, **more)
        keys = {key: job[key] for key in ("row", "percent", "strength", "seed")}
        return table.assign(**keys, wall_s=time.perf_counter() - began)
    except Exception:
        return f"{job}: {traceback.format_exc()}"


def jobs_of(given: argparse.Namespace) -> list[dict]:
    """All runs that are asked for."""
    shared = {"given": given, "percent": 0.0, "strength": 1.0}
    found = []
    for seed in given.seeds:
        if "rows" in given.part:
            found += [shared | {"row": row, "seed": seed} for row in given.rows if given.remedied or "clip" not in row]
        if "wrong" in given.part and not seed:
            for row in ("stills", *(("back",) if given.remedied else ())):
                found += [shared | {"row": row, "percent": percent, "seed": 0} for percent in given.percents]
                found += [shared | {"row": row, "strength": strength, "seed": 0} for strength in given.strengths]
    return found


def save(folder: Path) -> None:
    """The avatar's rig and track as files."""
    from fourdgs.drive import DriveTrack

    rig, (times, values) = avatar(argparse.Namespace(rig=None))
    folder.mkdir(parents=True, exist_ok=True)
    rig.save(folder / "rig.safetensors")
    DriveTrack(times, rig.controls, values).save(folder / "track.csv")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", type=Path)
    parser.add_argument("--remedied", type=Path, help="orbit and clip after the doctor's remedies")
    parser.add_argument("--rig", type=Path)
    parser.add_argument("--track", type=Path)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--moving", type=Path, help="npz: what moves, [H, W] bool by the frame's name")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="of the part rows")
    parser.add_argument("--part", nargs="+", choices=["rows", "wrong"], default=["rows", "wrong"])
    parser.add_argument("--out", type=Path, default=Path("rig.csv"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--views", type=int, default=20_000)
    parser.add_argument("--gaussians", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rig-penalty", type=float, default=0.1)
    parser.add_argument("--strengths", type=float, nargs="*", default=STRENGTHS, help="of the part wrong")
    parser.add_argument("--percents", type=float, nargs="*", default=NOISE_PERCENT, help="of the part wrong")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    if given.save:
        return save(given.save)
    found = pd.DataFrame()
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        for table in pool.imap_unordered(work, jobs_of(given), chunksize=1):
            if isinstance(table, str):
                print(table, flush=True)
                continue
            found = pd.concat(
                [found, table.assign(batch=given.batch, rig_penalty=given.rig_penalty)], ignore_index=True
            )
            found.to_csv(given.out, index=False, float_format="%.5g")
            for row in table.itertuples():
                print(
                    f"{row.row} {row.percent:g}% x{row.strength:g} s{row.seed} {row.source} {row.psnr_db:.2f} "
                    f"fg {row.psnr_fg_db:.2f} [{row.seconds:.0f}s {row.gaussians}]",
                    flush=True,
                )


if __name__ == "__main__":
    main()
