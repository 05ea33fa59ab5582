"""What few cameras can do: the ablations of `fourdgs.ablation`, and the law of thinned grids, many runs at a time.

    python benchmarks/few_cameras.py --capture DIR --part stills --part clip --out few.csv [--remedied DIR]
    python benchmarks/few_cameras.py --capture DIR --part grid --out grid.csv

On a GPU the runs share it (each of them is too small to fill it); on the CPU give --workers 1 --views 5000 --gaussians
6000. Rows are appended as they come, with the settings that made them; what is in the table already is left out.
``--trials FILE`` runs trials of one's own: a JSON list of {name, label, frames, settings}.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

CAMERAS, TIMES = (6, 8, 12, 16, 24), (4, 8, 15, 30, 60)


def base_config(given: argparse.Namespace):
    """The settings that every run starts from."""
    import fourdgs as fd

    base = fd.TrainConfig(iterations=given.views, gaussians=given.gaussians, init="surface")
    return base if given.batch == 1 else base.batched(given.batch)


def work(job: dict) -> pd.DataFrame | str:
    """One run, measured; its error in words."""
    import torch

    import fourdgs as fd
    from fourdgs.ablation import Trial, ablate_one, measure
    from fourdgs.scaling import thinned

    torch.set_num_threads(job["threads"])
    given = job["given"]
    began = time.perf_counter()
    try:
        capture = fd.load_capture(given.capture)
        if given.size:
            capture = capture.resized(given.size, given.size)
        with tempfile.TemporaryDirectory() as folder:
            moving = None if given.moving is None else dict(np.load(given.moving))
            if job["part"] == "grid":
                frames = thinned(capture.select(split="train", source="grid"), job["cameras"], job["times"])
                settings = {"motion": "static", "evaluate_every": 0} | job["settings"] | {"seed": job["seed"]}
                config = replace(base_config(given), **settings)
                table = measure(
                    capture, frames, config, Path(folder) / "run", sources=["talking"], moving=moving,
                    subject=None,
                )  # fmt: skip
                table = table.assign(
                    trial=job["name"], grid_cameras=job["cameras"], grid_times=job["times"], seed=job["seed"]
                )
            else:
                trial = Trial(**job["trial"])
                remedied = None if given.remedied is None else fd.load_capture(given.remedied)
                validation = capture.select(split="val") if (capture.frames["split"] == "val").any() else None
                table = ablate_one(
                    capture, trial, base_config(given), Path(folder), job["seed"], remedied=remedied,
                    validation=validation, moving=moving,
                )  # fmt: skip
        return table.assign(part=job["part"], wall_s=time.perf_counter() - began)
    except Exception:
        return f"{job}: {traceback.format_exc()}"


def jobs_of(given: argparse.Namespace) -> list[dict]:
    """All runs that are asked for, seeds outermost: what is cut short has whole seeds."""
    from fourdgs.ablation import CLIP, STILLS

    parts = {"stills": STILLS, "clip": CLIP}
    shared = {"given": given, "threads": 1 if given.workers > 1 else 2}
    found = []
    for seed in given.seeds:
        for part in given.part:
            if part == "grid":
                corners = {(c, t) for c in (CAMERAS[0], CAMERAS[-1]) for t in (TIMES[0], TIMES[-1])}
                cells = [(c, t) for c in reversed(CAMERAS) for t in reversed(TIMES) if not seed or (c, t) in corners]
                found += [
                    shared | {"part": part, "name": motion, "cameras": c, "times": t, "seed": seed,
                              "settings": {"motion": motion}}
                    for motion in given.motions for c, t in cells
                ]  # fmt: skip
                continue
            trials = [vars(trial) | {"settings": dict(trial.settings)} for trial in parts.get(part, ())]
            if part == "own":
                trials = json.loads(given.trials.read_text())
            found += [shared | {"part": part, "trial": trial, "name": trial["name"], "seed": seed} for trial in trials]
    return found


def main() -> None:
    """Run what is asked for and not yet in the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", type=Path, required=True)
    parser.add_argument("--remedied", type=Path, help="orbit and clip after the doctor's remedies, as transforms.json")
    parser.add_argument("--part", action="append", choices=["stills", "clip", "grid", "own"], required=True)
    parser.add_argument("--trials", type=Path, help="of the part own")
    parser.add_argument("--moving", type=Path, help="npz: what moves, [H, W] bool by the frame's name")
    parser.add_argument("--out", type=Path, default=Path("few_cameras.csv"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--views", type=int, default=20_000, help="of training")
    parser.add_argument("--gaussians", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, help="pixels, resized")
    parser.add_argument("--motions", nargs="+", default=["deform"], help="of the part grid")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    found = pd.read_csv(given.out) if given.out.exists() else pd.DataFrame()
    keys = ["part", "trial", "seed", "grid_cameras", "grid_times"]
    done = set() if found.empty else set(found.reindex(columns=keys).fillna(-1).itertuples(index=False, name=None))
    jobs = [
        job for job in jobs_of(given)
        if (job["part"], job["name"], job["seed"], job.get("cameras", -1), job.get("times", -1)) not in done
    ]  # fmt: skip
    settings = {"views_asked": given.views, "budget": given.gaussians, "batch": given.batch, "size": given.size or 0}
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        for table in pool.imap_unordered(work, jobs, chunksize=1):
            if isinstance(table, str):
                print(table, flush=True)
                continue
            found = pd.concat([found, table.assign(**settings)], ignore_index=True)
            found.to_csv(given.out, index=False, float_format="%.5g")
            for row in table.itertuples():
                place = f" {row.grid_cameras}x{row.grid_times}" if hasattr(row, "grid_cameras") else ""
                print(
                    f"{time.perf_counter() - began:4.0f}s {row.trial}{place} s{row.seed} {row.source} "
                    f"{row.psnr_db:.2f} fg {row.psnr_fg_db:.2f} [{row.seconds:.0f}s {row.gaussians}]",
                    flush=True,
                )


if __name__ == "__main__":
    main()
