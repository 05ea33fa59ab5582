"""A rig carried over to a mesh that shares no vertex with it, against the truth.

    python benchmarks/transfer.py [--out benchmarks/transfer_results.csv] [--cases voxels,voxels-turned]

The avatar's rest is meshed anew: its sheet cut finer and thinned out (lips stay apart), or as a marched distance field
(one closed skin: lips fused, no teeth, no tongue, eyes part of it). What each new vertex should do is known from the
place of the avatar that it lies on. Errors are of vertices of the head, in percent of the head's height; the share is
the error's root mean square over that of the motion itself, so that a mesh that stays still has 1.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage, stats
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fourdgs.data.avatar import build
from fourdgs.data.meshes import Mesh
from fourdgs.data.track import ExpressionTrack
from fourdgs.rig import LinearRig, anny_rig
from fourdgs.rig.registration import Finder, Shape, moved, shape_of
from fourdgs.rig.transfer import transfer

TIMES = np.linspace(0.03, 0.97, 12)  # of the track, at which whole poses are compared


@dataclass
class Target:
    """A new mesh and the rig that says what its vertices should do, in the avatar's place."""

    points: np.ndarray
    faces: np.ndarray
    truth: LinearRig


def truth_rig(rig: LinearRig, points: np.ndarray, faces: np.ndarray, mix) -> LinearRig:
    """``rig`` on other vertices, each a mix [V, k] of the rig's vertices ``mix[0]`` [V, k] by shares ``mix[1]``."""
    which, shares = torch.from_numpy(mix[0]), torch.from_numpy(mix[1]).float()
    deltas = (rig.deltas[:, which] * shares[..., None]).sum(2)
    weights = (rig.weights[which] * shares[..., None]).sum(1)
    joints = {name: getattr(rig, name) for name in ("frames", "binds", "turns", "moves", "grows")}
    return LinearRig.make(
        points, faces, rig.controls, deltas, parents=rig.parents, weights=weights, weld=np.arange(len(points)), **joints
    )


def places(rig: LinearRig) -> tuple[Shape, np.ndarray]:
    """The rig's surface, and a vertex for each of its places."""
    weld = rig.weld.numpy()
    return shape_of(rig.rest.numpy(), rig.faces.numpy(), weld), np.unique(weld, return_index=True)[1]


def sheet(rig: LinearRig, kept: float) -> Target:
    """Every edge halved, then a share of the vertices kept, otherwise joined."""
    import pyvista as pv

    shape, first = places(rig)
    edges = shape.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    pairs, which = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True)
    middle = which.reshape(-1, 3) + len(shape.points)
    a, b, c = shape.faces.T
    ab, bc, ca = middle.T
    faces = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    points = np.concatenate([shape.points, shape.points[pairs].mean(axis=1)])
    mix = np.concatenate([np.repeat(np.arange(len(shape.points))[:, None], 2, 1), pairs])
    packed = np.concatenate([np.full((len(faces), 1), 3), faces], axis=1)
    thin = pv.PolyData(points, packed).decimate_pro(1 - kept, preserve_topology=True)
    near = cKDTree(points).query(np.asarray(thin.points, np.float64))[1]
    order = np.random.default_rng(0).permutation(len(near))
    rank = np.argsort(order)
    new = rank[np.asarray(thin.faces).reshape(-1, 4)[:, 1:]]
    spots = points[near[order]]
    return Target(spots, new, truth_rig(rig, spots, new, (first[mix[near[order]]], np.full((len(near), 2), 0.5))))


def voxels(rig: LinearRig, across: int) -> Target:
    """One closed skin of marching cubes, ``across`` cells to the height."""
    import pyvista as pv

    shape, first = places(rig)
    cell = np.ptp(shape.points[:, 1]) / across
    low = shape.points.min(axis=0) - 4 * cell
    size = np.ceil((shape.points.max(axis=0) - low) / cell + 5).astype(int)
    rng = np.random.default_rng(0)
    area = np.linalg.norm(
        np.cross(*(shape.points[shape.faces[:, k]] - shape.points[shape.faces[:, 0]] for k in (1, 2))), axis=1
    )
    chosen = np.repeat(np.arange(len(area)), np.ceil(area / area.sum() * 400000).astype(int))
    shares = rng.dirichlet([1, 1, 1], len(chosen))
    cloud = np.einsum("sk,skx->sx", shares, shape.points[shape.faces[chosen]])
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1).reshape(-1, 3) * cell + low
    gaps = cKDTree(cloud).query(grid, distance_upper_bound=4 * cell)[0].clip(max=4 * cell).reshape(size)
    outside = ndimage.label(gaps > cell)[0]
    outside = ndimage.binary_dilation(outside == outside[0, 0, 0], iterations=2)
    field = pv.ImageData(dimensions=size, spacing=(cell,) * 3, origin=low)
    field["gap"] = np.where(outside, gaps, 0).ravel(order="F")
    skin = field.contour([cell], scalars="gap").clean().extract_largest()
    points, faces = np.asarray(skin.points, np.float64), np.asarray(skin.faces).reshape(-1, 4)[:, 1:]
    own = Shape(points, faces, np.arange(len(points)))
    if np.einsum("ij,ij->", own.normals * own.areas[:, None], points) < 0:
        faces, own = faces[:, ::-1], Shape(points, faces[:, ::-1], np.arange(len(points)))
    found = Finder(shape, 0.5 * cell)(points, own.normals)
    corners = first[shape.faces[found.faces[:, 0]]]
    # A twentieth of a cell off the skin, so that what folds together stays a surface.
    spots = found.points[:, 0] + 0.05 * (points - found.points[:, 0])
    return Target(spots, faces, truth_rig(rig, spots, faces, (corners, found.shares[:, 0])))


def turned() -> np.ndarray:
    """[4, 4]: five degrees, a tenth larger, and off to the side."""
    matrix = np.eye(4)
    matrix[:3, :3] = 1.1 * Rotation.from_rotvec(np.radians(5) * np.array([0.6, 0.7, 0.39])).as_matrix()
    matrix[:3, 3] = 0.10, -0.05, 0.08
    return matrix


def other_person(points: np.ndarray) -> np.ndarray:
    """A space in which the face is another's: longer, narrower at the jaw, the nose further out, not quite even."""
    x, y, z = points.T
    jaw = np.exp(-(((y - 0.15) / 0.15) ** 2))
    face = np.exp(-((x / 0.12) ** 2) - ((y - 0.33) / 0.07) ** 2) * np.clip(z / 0.2, 0, 1)
    long = 0.10 * (y - 0.4) * np.exp(-(((y - 0.4) / 0.35) ** 2))
    return np.stack([x * (1 - 0.10 * jaw) + 0.02 * x * y, y + long, z * (1 + 0.06 * np.sin(3 * y)) + 0.02 * face], 1)


def cases(names: set[str]):
    """(name, source rig, target, where its points go) of each case."""
    base = anny_rig(build(0))
    made = {
        "sheet": lambda: sheet(base, 0.6),
        "voxels": lambda: voxels(base, 110),
        "coarse": lambda: voxels(base, 64),
        "seed": lambda: voxels(anny_rig(build(1)), 110),
    }
    matrix = turned()
    ways = {
        "": lambda points: points,
        "-turned": lambda points: moved(matrix, points),
        "-other": lambda points: moved(matrix, other_person(points)),
    }
    for kind, make in made.items():
        asked = [(kind + word, way) for word, way in ways.items() if not names or kind + word in names]
        target = make() if asked else None
        for name, way in asked:
            yield name, base, target, way


def measure(name: str, rig: LinearRig, target: Target, way) -> tuple[dict, list[dict]]:
    """A line for the case, and one an action and a pose."""
    begun = time.perf_counter()
    done = transfer(rig, Mesh(way(target.points), target.faces))
    seconds = time.perf_counter() - begun
    head = (target.truth.weights.sum(1) > 0.5).numpy()
    rest = way(target.points)
    height = np.ptp(rest[head, 1])
    track = ExpressionTrack(0)
    poses = {action: {action: 1.0} for action in rig.controls[: len(rig.deltas)]}
    poses |= {"headYaw": {"headYaw": 15.0}, "headPitch": {"headPitch": 10.0}, "headRoll": {"headRoll": 10.0}}
    poses |= {f"track {at:.2f}": track.at(at) for at in TIMES}
    rows, worst = [], np.zeros(len(rest))
    for pose, values in poses.items():
        known = {key: value for key, value in values.items() if key in rig.controls}
        with torch.no_grad():
            true = way(target.truth.vertices(target.truth.drive(known)[None])[0].double().numpy())
            got = done.rig.vertices(done.rig.drive(known)[None])[0].double().numpy()
        off, motion = np.linalg.norm(got - true, axis=1), np.linalg.norm(true - rest, axis=1)
        worst = np.maximum(worst, off)
        acting = head & (motion > 0.1 * motion[head].max())
        rows.append(
            {
                "case": name,
                "pose": pose,
                "mean_pct": 100 * off[head].mean() / height,
                "p95_pct": 100 * np.quantile(off[head], 0.95) / height,
                "acting_mean_pct": 100 * off[acting].mean() / height if acting.any() else np.nan,
                "motion_max_pct": 100 * motion[head].max() / height,
                "share": np.sqrt((off[head] ** 2).sum() / max((motion[head] ** 2).sum(), 1e-300)),
            }
        )
    table = pd.DataFrame(rows)
    acts, track_rows = table[~table.pose.str.contains("track|head")], table[table.pose.str.startswith("track")]
    moving = acts[acts.motion_max_pct > 0.5]
    line = {
        "case": name,
        "vertices": len(rest),
        "seconds": seconds,
        "actions_mean_pct": acts.mean_pct.mean(),
        "actions_p95_pct": acts.p95_pct.mean(),
        "share_median": moving.share.median(),
        "share_worst": moving.share.max(),
        "worst": moving.pose[moving.share.idxmax()],
        "track_mean_pct": track_rows.mean_pct.mean(),
        "track_p95_pct": track_rows.p95_pct.mean(),
        "track_share": track_rows.share.mean(),
        "unsure_vs_error": stats.spearmanr(done.uncertainty[head], worst[head]).statistic,
        "worst5_unsure": done.uncertainty[head][worst[head] >= np.quantile(worst[head], 0.95)].mean(),
        "rest_unsure": done.uncertainty[head][worst[head] < np.quantile(worst[head], 0.95)].mean(),
        "bridges": done.moved["bridges"],
        "fit_pct_face": 100 * done.moved["fit"],
    }
    return line, rows


def main() -> None:
    """Print the table of cases and of actions; write every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks/transfer_results.csv")
    parser.add_argument("--cases", default="")
    asked = parser.parse_args()
    lines, rows = [], []
    for case in cases(set(filter(None, asked.cases.split(",")))):
        line, own = measure(*case)
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}, flush=True)
        lines.append(line)
        rows += own
    table = pd.DataFrame(rows)
    table.round(4).to_csv(Path(asked.out), index=False)
    print(pd.DataFrame(lines).round(3).to_string(index=False))
    print(table.pivot(index="pose", columns="case", values="share").round(3).to_string())


if __name__ == "__main__":
    main()
