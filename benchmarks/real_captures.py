"""Every motion model against static 3DGS on captures of real cameras, on their own held-out frames.

    python benchmarks/real_captures.py FOLDER [FOLDER ...] --out real.csv [--width 192] [--views 4000] [--workers 1]

Pictures are scaled to the width; a row a run, with its seed and what its test frames have that training had not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import pandas as pd

MOTIONS = {
    "static": {},
    "deform": {"motion": "deform"},
    "deform_rest": {"motion": "deform", "rest_penalty": 1.0},
    "velocity": {"motion": "velocity"},
    "basis": {"motion": "basis"},
    "bones": {"motion": "bones"},
}


def work(job: dict) -> dict:
    """One run, measured."""
    import torch

    import fourdgs as fd

    torch.set_num_threads(1)
    given = job["given"]
    capture = fd.load_capture(job["folder"])
    capture = capture.scaled(given.width / int(capture.frames["width"].max()))
    config = fd.TrainConfig(iterations=given.views, gaussians=given.gaussians, seed=job["seed"], **MOTIONS[job["name"]])
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        frames = capture.select(split="train")
        run = fd.train(frames, config, Path(folder) / "run", progress=False)
        table = fd.evaluate(run, capture, split="test", progress=False)
        trained = fd.evaluate(run, frames, split=None, progress=False)
    return {
        "capture": job["folder"].name, "motion": job["name"], "seed": job["seed"], "psnr_db": table["psnr_db"].mean(),
        "ssim": table["ssim"].mean(), "psnr_train_db": trained["psnr_db"].mean(), "frames": len(table),
        "kind": "+".join(sorted(set(table["kind"]))), "gaussians": int(run.info["gaussians"]), "views": given.views,
        "width": given.width, "seconds": time.perf_counter() - begun,
    }  # fmt: skip


def main() -> None:
    """Run all, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("real_captures.csv"))
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--views", type=int, default=4000)
    parser.add_argument("--gaussians", type=int, default=6000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    jobs = [
        {"given": given, "folder": folder, "seed": seed, "name": name}
        for seed in given.seeds for folder in given.folders for name in MOTIONS
    ]  # fmt: skip
    rows: list[dict] = []
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        for row in pool.imap_unordered(work, jobs, chunksize=1):
            rows.append(row)
            pd.DataFrame(rows).to_csv(given.out, index=False, float_format="%.5g")
            print(row, flush=True)


if __name__ == "__main__":
    main()
