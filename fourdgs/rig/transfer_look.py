"""Pictures of a transfer: poses beside the source's, and where it is unsure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..cameras import Cameras
from ..data.meshes import Mesh
from ..data.orbit import render_mesh
from .linear import LinearRig
from .transfer import Transfer

POSES: tuple[tuple[str, dict[str, float]], ...] = (
    ("at rest", {}),
    ("jawOpen", {"jawOpen": 1.0}),
    ("eyeBlinkLeft", {"eyeBlinkLeft": 1.0}),
    ("smile", {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}),
    ("headYaw 20", {"headYaw": 20.0}),
)
"""What is drawn, under its title; controls that the rig does not have are left out."""

_SURE, _UNSURE = np.array([225, 225, 225]), np.array([213, 94, 0])


@dataclass(frozen=True, eq=False)
class TransferPictures:
    """uint8 [P, H, W, 4] of the source and of the mesh in P poses with ``titles``, and [2, H, W, 4] unsure places."""

    titles: list[str]
    source: np.ndarray
    made: np.ndarray
    unsure: np.ndarray


def transfer_pictures(
    rig: LinearRig,
    done: Transfer,
    poses: Sequence[tuple[str, Mapping[str, float]]] = POSES,
    mesh: Mesh | None = None,
    size: int = 256,
) -> TransferPictures:
    """The same poses of both, seen from the same place before the face, and the unsure places from the front and side.

    Args:
        mesh: what the source looks like, where it has a texture: its vertices are the rig's.

    Raises:
        MissingDependency: no mesh can be drawn on this machine.
    """
    matrix = np.array(done.moved["matrix"])
    rest = rig.rest.detach().cpu().double().numpy()
    loud = rig.deltas.detach().cpu().norm(dim=2).amax(0).numpy()
    acting = rest[loud > 0.1 * loud.max()]
    middle, height = (acting.min(axis=0) + acting.max(axis=0)) / 2, float(np.ptp(acting[:, 1]))
    looks = [middle + 4.6 * height * np.array(way) for way in ((0.12, 0.05, 1), (0.95, 0.05, 0.3))]
    kept = [(title, {key: v for key, v in pose.items() if key in rig.controls}) for title, pose in poses]

    def performance(time: float) -> Mapping[str, float]:
        return kept[round(time * max(len(kept) - 1, 1))][1]

    def views(at: np.ndarray, place: np.ndarray, times: Sequence[float]) -> Cameras:
        turn = place[:3, :3] / np.cbrt(np.linalg.det(place[:3, :3]))
        spots = at @ place[:3, :3].T + place[:3, 3]
        middles = middle @ place[:3, :3].T + place[:3, 3]
        return Cameras.look_at(
            spots, middles, up=turn[:, 1], fov_x_deg=26.0, width=size, height=size, times=list(times)
        )  # fmt: skip

    times = np.linspace(0, 1, len(kept)) if len(kept) > 1 else [0.0]
    posed = rig.mesh(performance)
    posed = posed if mesh is None else replace(mesh, motion=posed.motion)
    front = np.repeat(looks[0][None], len(kept), axis=0)
    options: dict[str, Any] = {"progress": False}
    source = render_mesh(posed, views(front, np.eye(4), times), **options)
    made = render_mesh(done.drawn(performance), views(front, matrix, times), **options)
    still = views(np.stack(looks), matrix, [float("nan")] * 2)
    unsure = render_mesh(unsure_mesh(done), still, **options)
    return TransferPictures([title for title, _ in kept], source, made, unsure)


def unsure_mesh(done: Transfer) -> Mesh:
    """The mesh at rest, pale grey where the transfer is sure and vermilion where it is not."""
    share = done.uncertainty[:, None]
    colors = np.rint(_SURE + share * (_UNSURE - _SURE)).astype(np.uint8)
    return Mesh(done.mesh.points, done.mesh.faces, colors=colors, weld=done.mesh.weld)
