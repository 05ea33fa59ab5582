"""Leave-one-camera-out on the demo's still orbit: the interval of k folds beside the single-frame figure it replaces.

    .venv/bin/python benchmarks/folds.py [--k 6] [--iterations 3000] [--seeds 1] [--rows static,deform]

Every fold is a run of its own in ``<out>/<row>-f<fold>-s<seed>``; what is finished is not done again, so two processes
may share the work by ``--rows``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

import fourdgs as fd
from fourdgs import story
from fourdgs.evaluate import evaluate
from fourdgs.folds import fold_sentence, fold_summary, folds
from fourdgs.train import train

ROWS = {
    "static": ("static 3DGS", {"motion": "static"}),
    "deform": ("deform, each view its own time", {"motion": "deform"}),
}


def main() -> None:
    """Train and measure the folds, then print the table and a sentence a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--gaussians", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--out", default="runs/folds")
    asked = parser.parse_args()
    orbit = fd.load_capture(story.ensure_capture("data/alpha")).select(source="orbit")
    lines = []
    for row in asked.rows.split(","):
        label, settings = ROWS[row]
        views = story.own_times(orbit) if settings["motion"] == "deform" else orbit
        runs = []
        for number, fold in enumerate(folds(views, asked.k)):
            for seed in range(asked.seeds):
                base = story.base_config(asked.iterations, asked.gaussians, seed)
                kept, held_out = fold.select(split="train"), fold.select(split="test")
                folder = Path(asked.out) / f"{row}-f{number}-s{seed}"
                run = train(kept, replace(base, **settings), folder, held_out=held_out)
                if not len(run.metrics):
                    evaluate(run, held_out, progress=False)
                    evaluate(run, kept, split="train", progress=False)
                runs.append(fd.Run(run.path))
        for value, name, unit in (("psnr_db", "full frame", "dB"), ("psnr_fg_db", "foreground only", "dB")):
            figures = fold_summary(runs, value)
            lines.append({"row": row, "measure": value} | figures)
            print(fold_sentence(f"{label}, {name}", figures, unit))
        train_psnr = pd.concat([run.metrics.query("split == 'train'") for run in runs])["psnr_db"].mean()
        print(f"{label}: {train_psnr:.1f} dB on training frames, the mean over the folds")
    print(pd.DataFrame(lines).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
