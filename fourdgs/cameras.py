"""Cameras: poses, intrinsics, picture sizes and times, in one convention.

Inside the library a camera is a world-to-camera matrix with OpenCV axes (x right, y down, z forward) and pinhole
intrinsics in pixels, where the centre of the left-top pixel is (0.5, 0.5):

    u = fx * x / z + cx,    v = fy * y / z + cy.

Files carry OpenGL camera-to-world matrices (x right, y up, z backward). The two meet in `Cameras.from_opengl` and
`Cameras.to_opengl`, and nowhere else. Worlds made here are right-handed with y up; azimuth 0 is on +z and grows
towards +x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import InputError

ROTATION_TOLERANCE = 1e-3
"""How far R R^T may be from the identity, and det R from 1, before a pose is refused."""

_FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))  # OpenGL <-> OpenCV camera axes


class Views(NamedTuple):
    """Cameras of one picture size with all that drawing needs: using them asks a GPU nothing, and never waits."""

    viewmats: Tensor  # [C, 4, 4] world-to-camera
    Ks: Tensor  # [C, 3, 3] pixels
    positions: Tensor  # [C, 3] centres in the world
    times: Tensor  # [C], NaN = no time
    width: int
    height: int

    def take(self, rows: Tensor | slice | int) -> Views:
        """Some of them, by anything that indexes the tensors' first axis."""
        return Views(*(tensor[rows] for tensor in self[:4]), self.width, self.height)

    def to(self, device: torch.device | str) -> Views:
        """The same on another device, in its own time where their memory is pinned."""
        return Views(*(tensor.to(device, non_blocking=True) for tensor in self[:4]), self.width, self.height)


@dataclass(frozen=True, eq=False)
class Cameras:
    """A batch of C pinhole cameras.

    Attributes:
        viewmats: [C, 4, 4] float32, world-to-camera, OpenCV axes.
        Ks: [C, 3, 3] float32, pixels.
        sizes: [C, 2] int64, (width, height) in pixels.
        times: [C] float32 in [0, 1]; NaN = no time, the camera sees the canonical scene.

    Raises:
        InputError: a shape does not fit. (Values are checked where they come in: `from_opengl`, `look_at`,
            `with_times`.)
    """

    viewmats: Tensor
    Ks: Tensor
    sizes: Tensor
    times: Tensor

    def __post_init__(self) -> None:
        viewmats = torch.as_tensor(self.viewmats).to(torch.float32)
        device = viewmats.device
        values = {
            "viewmats": viewmats,
            "Ks": torch.as_tensor(self.Ks).to(device, torch.float32),
            "sizes": torch.as_tensor(self.sizes).to(device, torch.int64),
            "times": torch.as_tensor(self.times).to(device, torch.float32),
        }
        count = viewmats.shape[0] if viewmats.ndim else 0
        shapes = {"viewmats": (count, 4, 4), "Ks": (count, 3, 3), "sizes": (count, 2), "times": (count,)}
        for name, value in values.items():
            if tuple(value.shape) != shapes[name]:
                raise InputError(f"has shape {list(value.shape)}, must be {list(shapes[name])}", field=name)
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __getitem__(self, index: Any) -> Cameras:
        """A batch again, whatever the index: an int, a slice, a list, or a bool or int tensor or array."""
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index} of {len(self)}")
            index = [int(index)]
        if not isinstance(index, slice):
            index = torch.as_tensor(np.asarray(index) if not isinstance(index, Tensor) else index)
            index = torch.atleast_1d(index if index.numel() else index.long()).to(self.viewmats.device)
        return Cameras(self.viewmats[index], self.Ks[index], self.sizes[index], self.times[index])

    def __iter__(self) -> Iterator[Cameras]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        sizes = sorted({(width, height) for width, height in self.sizes.tolist()})
        text = ", ".join(f"{width}x{height}" for width, height in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
        timed = int((~self.times.isnan()).sum())
        return f"Cameras({len(self)} of {text or 'no size'}, {timed} with a time)"

    @property
    def width(self) -> int:
        """The width of all the pictures. Raises InputError where they differ."""
        return self._common(0, "width")

    @property
    def height(self) -> int:
        """The height of all the pictures. Raises InputError where they differ."""
        return self._common(1, "height")

    def _common(self, column: int, name: str) -> int:
        values = self.sizes[:, column].unique().tolist()
        if len(values) != 1:
            raise InputError(
                f"the cameras have {len(values)} different {name}s: {values[:8]}" if values else "there is no camera",
                field=name,
                remedy="resize them to one size, or take them one by one",
            )
        return int(values[0])

    @property
    def positions(self) -> Tensor:
        """[C, 3], the cameras' centres in the world."""
        views = self.viewmats.double()
        return -torch.linalg.solve(views[:, :3, :3], views[:, :3, 3:])[..., 0].to(self.viewmats.dtype)

    @property
    def forwards(self) -> Tensor:
        """[C, 3], unit vectors along which the cameras look, in the world."""
        return torch.nn.functional.normalize(self.viewmats[:, 2, :3], dim=-1)

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.viewmats.device

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return Cameras(self.viewmats.to(device), self.Ks.to(device), self.sizes.to(device), self.times.to(device))

    def views(self) -> Views:
        """The same cameras, ready to be drawn from.

        Raises:
            InputError: their pictures differ in size.
        """
        return Views(self.viewmats, self.Ks, self.positions, self.times, self.width, self.height)

    def with_times(self, times: float | Sequence[float] | Tensor | np.ndarray | None) -> Cameras:
        """The same cameras at other times: one for all, or one each; None or NaN = no time.

        Raises:
            InputError: a time outside [0, 1], or not as many times as cameras.
        """
        return Cameras(self.viewmats, self.Ks, self.sizes, _times(times, len(self)).to(self.device))

    def resized(self, width: Any, height: Any) -> Cameras:
        """The same cameras with pictures of another size, the same scene filling them.

        Args:
            width, height: pixels; one number for all, or [C].
        """
        new = torch.stack(
            [torch.as_tensor(value, device=self.device).long().expand(len(self)) for value in (width, height)], dim=-1
        )  # [C, 2]
        if bool((new <= 0).any()):
            raise InputError("a picture needs at least one pixel each way", field="width, height")
        factors = new.double() / self.sizes.double()  # [C, 2]
        # With pixel centres at +0.5 the corner of the picture is (0, 0), so all of K's first two rows scale alike.
        rows = torch.cat([factors, torch.ones_like(factors[:, :1])], dim=-1)  # [C, 3]
        return Cameras(self.viewmats, (self.Ks.double() * rows[..., None]).float(), new, self.times)

    @classmethod
    def from_opengl(
        cls,
        c2w: Any,
        Ks: Any = None,
        *,
        sizes: Any,
        fov_x_deg: Any = None,
        focal: Any = None,
        times: Any = None,
    ) -> Cameras:
        """Cameras from what files hold.

        Args:
            c2w: [C, 4, 4] camera-to-world, OpenGL axes.
            Ks: [C, 3, 3] or [3, 3] pixels; or else one of ``fov_x_deg`` (the horizontal field of view) and ``focal``
                (pixels), a number or [C], with the principal point in the middle.
            sizes: (width, height) or [C, 2].
            times: None, a number or [C].

        Raises:
            InputError: a pose is not finite or not a rigid motion; intrinsics, sizes or times cannot be.
        """
        c2w = torch.as_tensor(_array(c2w))
        if c2w.ndim != 3 or tuple(c2w.shape[1:]) != (4, 4):
            raise InputError(f"has shape {list(c2w.shape)}, must be [C, 4, 4]", field="c2w")
        for index, pose in enumerate(c2w.numpy()):
            fault = pose_fault(pose)
            if fault:
                raise InputError(f"of camera {index} {fault}", field="c2w")
        viewmats = _clean(torch.linalg.inv(c2w @ _FLIP))
        sizes = _sizes(sizes, len(c2w))
        return cls(viewmats, _intrinsics(sizes, Ks, fov_x_deg, focal), sizes, _times(times, len(c2w)))

    def to_opengl(self) -> Tensor:
        """[C, 4, 4] float64 camera-to-world matrices with OpenGL axes, on the CPU."""
        return _clean(torch.linalg.inv(self.viewmats.detach().cpu().double()) @ _FLIP)

    @classmethod
    def look_at(
        cls,
        positions: Any,
        targets: Any = (0.0, 0.0, 0.0),
        *,
        up: Any = (0.0, 1.0, 0.0),
        fov_x_deg: Any = None,
        focal: Any = None,
        width: int,
        height: int,
        times: Any = None,
    ) -> Cameras:
        """Cameras at ``positions`` that hold ``targets`` in the middle of the picture, ``up`` upwards in it.

        Args:
            positions: [C, 3] or [3]. targets, up: [3] or [C, 3].
            fov_x_deg, focal: one of them; see `from_opengl`.

        Raises:
            InputError: a camera sits on its target or looks along ``up``.
        """
        positions = torch.atleast_2d(torch.as_tensor(_array(positions)))  # [C, 3]
        forward = torch.as_tensor(_array(targets)) - positions
        distance = forward.norm(dim=-1, keepdim=True)
        if not bool(torch.isfinite(distance).all()) or bool((distance < 1e-9).any()):
            raise InputError("a camera sits on its target, or a coordinate is not finite", field="positions")
        forward = forward / distance
        right = torch.linalg.cross(forward, torch.as_tensor(_array(up)).expand_as(forward))
        length = right.norm(dim=-1, keepdim=True)
        if bool((length < 1e-6).any()):
            raise InputError("a camera looks along it", field="up", remedy="give another up for that camera")
        right = right / length
        down = torch.linalg.cross(forward, right)
        rotation = torch.stack([right, down, forward], dim=-2)  # [C, 3, 3], rows are the camera's axes
        viewmats = torch.eye(4, dtype=torch.float64).repeat(len(positions), 1, 1)
        viewmats[:, :3, :3] = rotation
        viewmats[:, :3, 3] = -(rotation @ positions[..., None])[..., 0]
        sizes = _sizes((width, height), len(positions))
        return cls(_clean(viewmats), _intrinsics(sizes, None, fov_x_deg, focal), sizes, _times(times, len(positions)))

    @staticmethod
    def concatenate(cameras: Sequence[Cameras]) -> Cameras:
        """One batch of many, on the first one's device."""
        if not cameras:
            raise InputError("nothing to concatenate", field="cameras")
        device = cameras[0].device
        parts = [batch.to(device) for batch in cameras]
        return Cameras(*(torch.cat([getattr(b, name) for b in parts]) for name in ("viewmats", "Ks", "sizes", "times")))


def orbit(
    frames: int,
    radius: float = 4.0,
    elevation_deg: float = 0.0,
    azimuth_start_deg: float = 0.0,
    turns: float = 1.0,
    *,
    target: Any = (0.0, 0.0, 0.0),
    fov_x_deg: float = 36.0,
    width: int = 400,
    height: int = 400,
    up: Any = (0.0, 1.0, 0.0),
    times: Any = None,
) -> Cameras:
    """A circle of ``frames`` cameras about ``target``, the last one a step short of closing it.

    Azimuth 0 is on +z and grows towards +x (for ``up`` along +z: on -y, towards +x). The default field of view lets
    a subject in the unit ball fill 80 % of a square picture at the default radius.

    Args:
        radius: distance from ``target``, in units of the world. turns: of the whole path; negative goes the other way.
        times: None (no time), one for all, or [frames].

    Raises:
        InputError: no frame, a radius that is not positive, an ``up`` of no length.
    """
    if int(frames) < 1:
        raise InputError(f"is {frames}, must be at least 1", field="frames")
    azimuth = math.radians(azimuth_start_deg) + 2 * math.pi * turns * torch.arange(
        int(frames), dtype=torch.float64
    ) / int(frames)
    lens = {"fov_x_deg": fov_x_deg, "width": width, "height": height}
    return on_sphere(azimuth, math.radians(elevation_deg), radius, target=target, up=up, times=times, **lens)


def on_sphere(
    azimuths_rad: Any,
    elevations_rad: Any,
    radii: Any,
    *,
    target: Any = (0.0, 0.0, 0.0),
    up: Any = (0.0, 1.0, 0.0),
    fov_x_deg: float = 36.0,
    width: int = 400,
    height: int = 400,
    times: Any = None,
) -> Cameras:
    """Cameras that look at ``target`` from given directions, with `orbit`'s azimuths and elevations, and distances.

    Args:
        azimuths_rad: [C]. elevations_rad, radii: [C] or one for all; an elevation above 0 looks down on the target.

    Raises:
        InputError: a radius that is not positive, an ``up`` of no length.
    """
    azimuth = torch.atleast_1d(torch.as_tensor(_array(azimuths_rad)))
    elevation = torch.as_tensor(_array(elevations_rad)).expand_as(azimuth)[:, None]  # [C, 1]
    radius = torch.as_tensor(_array(radii)).expand_as(azimuth)[:, None]
    if not bool((torch.isfinite(radius) & (radius > 0)).all()):
        raise InputError(f"is {radii}, must be positive", field="radius")
    axis = torch.as_tensor(_array(up))
    if not float(axis.norm()) > 1e-9:
        raise InputError("has no length", field="up")
    axis = axis / axis.norm()
    front = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    if float(torch.linalg.cross(axis, front).norm()) < 1e-6:
        front = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    front = torch.nn.functional.normalize(front - (front @ axis) * axis, dim=0)
    side = torch.linalg.cross(axis, front)
    outward = azimuth.cos()[:, None] * front + azimuth.sin()[:, None] * side  # [C, 3], in the horizontal plane
    positions = torch.as_tensor(_array(target)) + radius * (elevation.cos() * outward + elevation.sin() * axis)
    # The direction in which the elevation grows: the picture's up, and defined above the poles too.
    ups = elevation.cos() * axis - elevation.sin() * outward
    return Cameras.look_at(positions, target, up=ups, fov_x_deg=fov_x_deg, width=width, height=height, times=times)


def pose_fault(c2w: np.ndarray) -> str | None:
    """What is wrong with a [4, 4] pose as a rigid motion, in words; None where nothing is."""
    if not np.isfinite(c2w).all():
        return "is not finite (it holds a NaN or an infinity)"
    if not np.allclose(c2w[3], [0, 0, 0, 1], atol=1e-6):
        return f"has the last row {c2w[3].tolist()}, must be [0, 0, 0, 1]"
    rotation = c2w[:3, :3].astype(np.float64)
    determinant = float(np.linalg.det(rotation))
    if np.abs(rotation @ rotation.T - np.eye(3)).max() <= ROTATION_TOLERANCE:
        return "mirrors the scene (its determinant is -1)" if determinant < 0 else None
    scale = float(np.cbrt(abs(determinant)))
    if scale > 0 and np.abs(rotation @ rotation.T / scale**2 - np.eye(3)).max() <= ROTATION_TOLERANCE:
        return f"is a rotation times a scale of {scale:.6g}, must be a rotation"
    return "is not a rotation (its axes are not perpendicular and of unit length)"


def _clean(poses: Tensor) -> Tensor:
    # Rounding leaves 1e-17 where a clean pose has 0; without it a pose survives writing and reading bit by bit.
    return torch.where(poses.abs() < 1e-12, 0.0, poses)


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        return value.detach().cpu().double().numpy()
    return np.array(value, dtype=np.float64)


def _times(times: Any, count: int) -> Tensor:
    """[count] float32; raises InputError outside [0, 1]."""
    values = np.atleast_1d(_array(float("nan") if times is None else times))
    if values.shape not in ((1,), (count,)):
        raise InputError(f"has shape {list(values.shape)}, must be one number or [{count}]", field="times")
    timed = values[~np.isnan(values)]
    if ((timed < 0) | (timed > 1)).any():
        raise InputError(
            f"range from {timed.min():g} to {timed.max():g}, must be in [0, 1] or NaN",
            field="times",
            remedy="divide by the last time",
        )
    return torch.from_numpy(np.broadcast_to(values, (count,)).astype(np.float32))


def _sizes(sizes: Any, count: int) -> Tensor:
    """[count, 2] int64; raises InputError for an empty picture."""
    values = np.atleast_2d(_array(sizes))
    if values.shape not in ((1, 2), (count, 2)) or not (values >= 1).all():
        raise InputError(f"must be (width, height) or [{count}, 2], positive", field="sizes")
    return torch.from_numpy(np.broadcast_to(values, (count, 2)).astype(np.int64))


def _intrinsics(sizes: Tensor, Ks: Any, fov_x_deg: Any, focal: Any) -> Tensor:
    """[C, 3, 3] float64 from exactly one of the three."""
    if sum(value is not None for value in (Ks, fov_x_deg, focal)) != 1:
        raise InputError("give exactly one of Ks, fov_x_deg and focal", field="intrinsics")
    count = len(sizes)
    if Ks is not None:
        values = torch.as_tensor(_array(Ks))
        if tuple(values.shape) not in ((3, 3), (count, 3, 3)):
            raise InputError(f"has shape {list(values.shape)}, must be [{count}, 3, 3]", field="Ks")
        result = values.expand(count, 3, 3)
    else:
        if fov_x_deg is not None:
            half = torch.deg2rad(torch.as_tensor(_array(fov_x_deg)) / 2)
            if not bool(((half > 0) & (half < math.pi / 2)).all()):
                raise InputError(f"is {fov_x_deg}, must be between 0 and 180", field="fov_x_deg")
            pixels = sizes[:, 0] / 2 / half.tan()
        else:
            pixels = torch.as_tensor(_array(focal)).expand(count)
        result = torch.zeros(count, 3, 3, dtype=torch.float64)
        result[:, 0, 0] = result[:, 1, 1] = pixels
        result[:, :2, 2] = sizes / 2
        result[:, 2, 2] = 1
    focals = torch.stack([result[:, 0, 0], result[:, 1, 1]])
    if not bool(torch.isfinite(result).all()) or not bool((focals > 0).all()):
        raise InputError("the focal lengths must be finite and positive", field="focal")
    return result
