"""Rigs that are not the avatar's own: a made-up head with its rig, and the avatar on a rig that was carried over.

    python benchmarks/other_rigs.py --capture data/alpha --out other_rigs.csv

*puppet*: `fourdgs.rig.puppet_rig` drawn as the avatar is (the cameras of the capture's frames), ten stills, and talking
views held out. *transfer*: the avatar's rest as a marched distance field (no vertex shared, lips fused, no teeth), the
avatar's rig carried over to it, and Gaussians bound to that; *own*: to the avatar's own rig.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transfer import voxels

import fourdgs as fd
from fourdgs.ablation import measure
from fourdgs.data.avatar import build
from fourdgs.data.meshes import Mesh
from fourdgs.data.orbit import render_mesh
from fourdgs.drive import speech_like
from fourdgs.rig import anny_rig, puppet_rig, transfer
from fourdgs.rigged import Rigged

TIMES = np.linspace(0, 1, 241)


def puppet(capture: fd.Capture) -> tuple[fd.Capture, Rigged]:
    """The capture's frames as they would show the puppet, and its rig with its track."""
    rig = puppet_rig()
    track = speech_like(8.0, seed=3)
    values = torch.from_numpy(track.to(rig.controls).at(TIMES * track.duration_s)).float()
    reach = float(rig.rest.norm(dim=1).max())

    def points(time: float | None) -> np.ndarray:
        drive = rig.neutral if time is None else values[round(float(time) * (len(TIMES) - 1))]
        return rig.vertices(drive[None])[0].numpy()

    cameras = capture.cameras
    if reach > 1.05:
        raise SystemExit(f"the puppet reaches {reach:.2f}, the cameras see 1")
    drawn = render_mesh(rig.mesh(), cameras, motion=points, progress=False)
    memory = {name: (one[..., :3], one[..., 3]) for name, one in zip(capture.frames["frame"], drawn, strict=True)}
    return replace(capture, memory=memory), Rigged(rig, (torch.from_numpy(TIMES), values))


def carried(avatar) -> Rigged:
    """The avatar's rig on a mesh that shares nothing with it, with the avatar's own track."""
    rig = anny_rig(avatar)
    target = voxels(rig, 96)
    made = transfer(rig, Mesh(target.points, target.faces)).rig
    values = torch.stack([made.drive(avatar.track.at(float(time))) for time in TIMES])
    return Rigged(made, (torch.from_numpy(TIMES), values))


def main() -> None:
    """Train and measure each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("other_rigs.csv"))
    parser.add_argument("--views", type=int, default=3000)
    parser.add_argument("--gaussians", type=int, default=6000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    whole = fd.load_capture(given.capture)
    stills, test = whole.select(split="train", source="orbit"), whole.select(split="test")
    avatar = build()
    rig = anny_rig(avatar)
    own = Rigged(rig, (TIMES, torch.stack([rig.drive(avatar.track.at(float(time))) for time in TIMES])))
    other, played = puppet(fd.merge([stills, test]))
    scenes = [
        ("alpha", "static", whole, None), ("alpha", "own", whole, own), ("alpha", "transfer", whole, carried(avatar)),
        ("puppet", "static", other, None), ("puppet", "own", other, played),
    ]  # fmt: skip
    rows = []
    for seed in given.seeds:
        for scene, name, capture, rigged in scenes:
            frames = capture.select(split="train", source="orbit")
            config = fd.TrainConfig(iterations=given.views, gaussians=given.gaussians, seed=seed)
            config = (
                replace(config, motion="static", init="surface") if rigged is None else replace(config, motion="rig")
            )
            with tempfile.TemporaryDirectory() as folder:
                more = {} if rigged is None else {"rig": rigged}
                table = measure(capture, frames, config, Path(folder) / "run", subject=frames, **more)
            rows.append(table.assign(scene=scene, rig=name, seed=seed))
            pd.concat(rows).to_csv(given.out, index=False, float_format="%.5g")
            for row in table.itertuples():
                print(f"{scene} {name} s{seed} {row.source} {row.psnr_db:.2f} fg {row.psnr_fg_db:.2f}", flush=True)


if __name__ == "__main__":
    main()
