"""Every motion model against static 3DGS on captures of real cameras, on their own held-out frames.

    python benchmarks/real_captures.py FOLDER [FOLDER ...] --out real.csv [--width 192] [--views 4000] [--workers 1]
        [--motions static basis ...] [--pictures FOLDER]

Pictures are scaled to the width; a row a run, with its seed and what its test frames have that training had not.

``--pictures`` looks at the first seed's run of each capture and motion, and writes

``<capture>-<motion>.png``: held-out frames, a row each. From left to right the truth, the picture, the error (black: 0,
    brightest: 0.5), the rendered depth (dark: at the camera, brightest: at twice the depth of the point that the
    cameras look at), how many training views see what a pixel shows (red: none, yellow: one, light blue: two, green:
    more; grey: nothing is drawn there), and the training frame from the nearest direction, its truth and its picture.
``limits.csv``: means over some held-out frames. *held_*: of the held-out pictures, *train_*: of the training views at
    the same times. ``seen_1``, ``seen_2``: shares of the pixels that at least so many training views (not counting the
    one that is looked from) see; ``near``: drawn nearer than half way to the point looked at; ``depth``: median, over
    the depth of that point. A pixel is put into the world at its rendered depth and looked for in the rendered depths
    of the training views (`fourdgs.covisibility`): the model's own belief. ``frame_1_at_0.5`` and so on need none:
    shares of the held-out pixels that would be inside the pictures of so many training views if all lay at so many
    times the depth of that point, nothing hidden. ``nearest_deg``: to the nearest training view. ``flat_db`` and
    ``copy_db``: PSNR of the mean colour of the training frames, and of the nearest training frame as it is.
``<capture>.txt``: what the doctor finds.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

MOTIONS = {
    "static": {},
    "deform": {"motion": "deform"},
    "deform_rest": {"motion": "deform", "rest_penalty": 1.0},
    "velocity": {"motion": "velocity"},
    "basis": {"motion": "basis"},
    "bones": {"motion": "bones"},
}
SHOWN, MEASURED = 3, 12
"""Held-out frames of a sheet; and of ``limits.csv``."""
MOST = 24
"""Training views that pixels are looked for in: of a camera that moves, some of its way."""
BRIGHTEST = 0.5
DEPTHS = (0.5, 1.0, 2.0)
COUNTED = np.array([[213, 94, 0], [240, 228, 66], [86, 180, 233], [0, 158, 115]], np.uint8)  # Okabe and Ito's
NOTHING = 208


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
        seconds = time.perf_counter() - begun
        if given.pictures is not None and job["seed"] == given.seeds[0]:
            look(run, capture, given.pictures, job["folder"].name, job["name"])
    return {
        "capture": job["folder"].name, "motion": job["name"], "seed": job["seed"], "psnr_db": table["psnr_db"].mean(),
        "ssim": table["ssim"].mean(), "psnr_train_db": trained["psnr_db"].mean(), "frames": len(table),
        "kind": "+".join(sorted(set(table["kind"]))), "gaussians": int(run.info["gaussians"]), "views": given.views,
        "width": given.width, "seconds": seconds,
    }  # fmt: skip


# --- what limits a capture -------------------------------------------------------------------------------------------


def look(run, capture, folder: Path, name: str, motion: str) -> None:
    """Write the sheet of a run, and its figures as ``<capture>-<motion>.csv`` beside it."""
    from fourdgs.plots import contact_sheet
    from fourdgs.thinning import spread
    from fourdgs.unseen import read_views

    train, test = capture.select(split="train"), capture.select(split="test")
    views, flat = read_views(run.info["views"]), mean_colour(train, run.model.background)
    rows = spread(len(test), MEASURED).tolist()
    places = spread(len(rows), SHOWN + 2)
    shown = {rows[place] for place in (places[1:-1] if len(places) > 2 else places)}
    figures, cells = [], []
    for row in rows:
        near, angle_deg = nearest(train, test, row, views)
        found, depth, counts = measured(run.model, train, test.cameras[row], views)
        found |= {"nearest_deg": angle_deg} | without_model(train, test, row, near, flat, run.model.background)
        figures.append(found)
        if row in shown:
            cells += sheet_row(run, test.select(rows=[row]), train.select(rows=[near]), depth, counts, found)
    folder.mkdir(parents=True, exist_ok=True)
    titles, images = zip(*cells, strict=True)
    contact_sheet(images, titles, columns=len(images) // len(shown)).savefig(folder / f"{name}-{motion}.png", dpi=200)
    means = pd.DataFrame(figures).mean().to_frame().T
    means.insert(0, "motion", motion)
    means.insert(0, "capture", name)
    means.to_csv(folder / f"{name}-{motion}.csv", index=False, float_format="%.4g")


def measured(model, train, asked, views) -> tuple[dict, np.ndarray, np.ndarray]:
    """One held-out camera at its time: figures, depth [H, W] over that of the focus, views that see a pixel [H, W]."""
    import torch

    from fourdgs import Cameras, at_time
    from fourdgs.covisibility import distinct_views, pixels_seen_by, rendered_depths
    from fourdgs.thinning import spread

    when = float(asked.times[0])
    standing = distinct_views(train.cameras, torch.tensor([views.distance]))
    standing = standing[spread(len(standing), MOST)]
    cameras = Cameras.concatenate([asked, train.cameras[standing]])
    depths = rendered_depths(at_time(model, None if math.isnan(when) else when), cameras)
    others = pixels_seen_by(depths[1:], cameras[1:]) - 1
    middle = focus_depths(cameras, views.focus)
    counts = seen_from(depths, cameras)
    found = shares("held", depths[:1], counts[None], middle[:1]) | shares("train", depths[1:], others, middle[1:])
    for factor in DEPTHS:
        flat = torch.zeros_like(depths)  # nothing hides anything
        flat[0] = factor * middle[0]
        inside = seen_from(flat, cameras)
        found |= {f"frame_{least}_at_{factor:g}": float((inside >= least).float().mean()) for least in (1, 2)}
    return found, (depths[0] / middle[0]).numpy(), torch.where(depths[0] > 0, counts, -1).numpy()


def seen_from(depths, cameras):
    """How many of the cameras after the first see what its pixels show, [H, W], those in its own place among them."""
    from fourdgs.covisibility import distinct_views, pixels_seen_by

    total = 0 * depths[0].long()
    for other in range(1, len(cameras)):
        pair = [0, other]
        alone = len(distinct_views(cameras[pair], depths[pair])) < 2
        total += (depths[0] > 0).long() if alone else pixels_seen_by(depths[pair], cameras[pair])[0] - 1
    return total.clamp(min=0)


def shares(name: str, depths, counts, middle) -> dict[str, float]:
    """Figures of pictures with depths [n, H, W] and counts of other views that see each pixel [n, H, W]."""
    shown, apart = depths > 0, depths / middle[:, None, None]
    found = {f"seen_{least}": ((counts >= least) & shown).float().mean() for least in (1, 2)}
    found |= {"near": (shown & (apart < 0.5)).float().mean(), "depth": apart[shown].median()}
    return {f"{name}_{key}": float(value) for key, value in found.items()}


def mean_colour(train, background):
    """[3], of some training frames over the background."""
    import torch

    from fourdgs.capture import true_pictures
    from fourdgs.thinning import spread

    some = train.select(rows=spread(len(train), MOST).tolist())
    return true_pictures(*some.pictures(), torch.tensor(background)).float().mean(dim=(0, 1, 2)) / 255


def without_model(train, test, row: int, near: int, flat, background) -> dict[str, float]:
    """PSNR, dB, of what needs no training: one colour [3], and the training frame ``near`` in the other one's place."""
    import torch

    from fourdgs.capture import true_pictures
    from fourdgs.metrics import psnr_db

    truth, copied = (
        true_pictures(*each.select(rows=[k]).pictures(), torch.tensor(background)).float() / 255
        for each, k in ((test, row), (train, near))
    )
    fits = copied.shape == truth.shape
    return {
        "flat_db": float(psnr_db(flat.expand_as(truth), truth)),
        "copy_db": float(psnr_db(copied, truth)) if fits else math.nan,
    }


def focus_depths(cameras, focus: np.ndarray):
    """How far the point that the cameras look at lies along each one's axis, [C], world units."""
    import torch

    return cameras.viewmats[:, 2, :3] @ torch.tensor(focus, dtype=torch.float32) + cameras.viewmats[:, 2, 3]


def nearest(train, test, row: int, views) -> tuple[int, float]:
    """The training frame seen from the nearest direction, of those the nearest in time; and the angle, degrees."""
    away = train.cameras.positions.double().numpy() - views.focus
    asked = test.cameras.positions[row].double().numpy() - views.focus
    cosine = away @ asked / (np.linalg.norm(away, axis=1) * np.linalg.norm(asked))
    angle_deg = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    late = (train.cameras.times - test.cameras.times[row]).abs().nan_to_num(0).numpy()
    order = np.lexsort([late, angle_deg.round(3)])
    return int(order[0]), float(angle_deg[order[0]])


def sheet_row(run, asked, near, depth: np.ndarray, counts: np.ndarray, found: dict) -> list[tuple[str, np.ndarray]]:
    """Titles and pictures of one held-out frame and of the training frame nearest to it."""
    from matplotlib import colormaps

    from fourdgs.compare_figures import views_of

    held, known = (views_of({"run": run}, each) for each in (asked, near))
    (_, (drawn,)), (_, (again,)) = held.pictures[0], known.pictures[0]
    error = np.abs(drawn - held.truths[0]).mean(-1)
    frame, other = asked.frames.iloc[0], near.frames.iloc[0]
    deep = colormaps["viridis"](np.clip(depth / 2, 0, 1))[..., :3]
    deep[counts < 0] = NOTHING / 255
    seen = COUNTED[np.clip(counts, 0, len(COUNTED) - 1)]
    seen[counts < 0] = NOTHING
    return [
        (f"held out: camera {frame['camera']}, time {frame['time']:.2f}", held.truths[0]),
        (f"drawn: {held.notes['run'][0]}", drawn),
        ("error", colormaps["inferno"](np.clip(error / BRIGHTEST, 0, 1))[..., :3]),
        (f"depth: {100 * found['held_near']:.0f} % near", deep),
        (f"seen by 1+: {100 * found['held_seen_1']:.0f} %, 2+: {100 * found['held_seen_2']:.0f} %", seen),
        (f"trained: camera {other['camera']}, {found['nearest_deg']:.0f}° away", known.truths[0]),
        (f"drawn: {known.notes['run'][0]}", again),
    ]


def doctors_word(folder: Path, out: Path) -> None:
    """Write what the doctor finds in a capture."""
    import fourdgs as fd

    found = fd.diagnose(fd.load_capture(folder), progress=False)
    lines = [found.verdict(), *(f"{each.severity}, {each.code}: {each.message}" for each in found)]
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{folder.name}.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Run all, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("real_captures.csv"))
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--views", type=int, default=4000)
    parser.add_argument("--gaussians", type=int, default=6000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--motions", nargs="+", choices=MOTIONS, default=list(MOTIONS))
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    jobs = [
        {"given": given, "folder": folder, "seed": seed, "name": name}
        for seed in given.seeds for folder in given.folders for name in given.motions
    ]  # fmt: skip
    if given.pictures is not None:
        for folder in given.folders:
            doctors_word(folder, given.pictures)
    rows: list[dict] = []
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        for row in pool.imap_unordered(work, jobs, chunksize=1):
            rows.append(row)
            pd.DataFrame(rows).to_csv(given.out, index=False, float_format="%.5g")
            print(row, flush=True)
    if given.pictures is not None:
        parts = [pd.read_csv(file) for file in sorted(given.pictures.glob("*-*.csv"))]
        pd.concat(parts, ignore_index=True).to_csv(given.pictures / "limits.csv", index=False)


if __name__ == "__main__":
    main()
