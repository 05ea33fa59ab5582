"""Gaussians bound to the triangles of a rig: they go where its surface goes, for motion that no frame need show."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .basis import hamilton
from .binding import Surface, foot_shares, nearest_faces, surface_of, turned, turns, walked
from .errors import InputError
from .gaussians import Gaussians
from .motion import Motion
from .per_gaussian import PerGaussian

if TYPE_CHECKING:
    from .config import TrainConfig
    from .rig.base import Rig

_STRENGTH = 1e-4  # of the strengths' squares: as much as one that no frame shows needs; 0.1 holds all where they are
_OFFSET = 10.0  # of the offsets' squares (in sizes of the rig), against that of the strain


class Rigged(PerGaussian):
    """Gaussians that the triangles of a rig carry, as GaussianAvatars' (Qian et al., CVPR 2024) are.

    The Gaussians are those of the rig's rest, in world units. Each is bound to a triangle; o0 is the nearest place on
    it. When the rig moves,

        mean = o + s R (mean0 - o0),  rotation = R rotation0,  scale = s scale0

    with o the same place on the moved triangle, and R and s the turn and growth there. Those are of the triangle's
    vertices, blended by the place's barycentric shares (the paper takes one frame a triangle, which tears at edges):
    a Gaussian that crosses an edge moves on alike. Spherical harmonics are not turned. At the rig's neutral drive,
    and at no time, it is the identity.

    Which drive belongs to which time is a track, linear between its times and held beyond them.

    Parameter: ``offsets`` [V, 3], how far the capture's surface lies from the rig's, in sizes of the rig: the binding
    takes place on the moved surface. They start at zero. ``strengths`` [A], what the rig's values, less neutral, are
    multiplied by, whoever gives them: frames with times say how strong an action is on this subject, by their track.
    They start at one; those of actions that no frame shows, and of a rig of its own time, stay. By Gaussian: ``face``
    [N] int64, carried along, not trained.

    Args:
        rig: a rig, or its kind and settings, for `load_state_dict`.
        track: the times [K] in [0, 1], rising, and the rig's values there [K, A]; or K, for `load_state_dict`. By
            default none, or all of a rig's own time.
        residual: what moves the canonical Gaussians beyond the rig, e.g. a `Basis`; learns from frames with times.
        count: N, for `load_state_dict`; before a training, `begin` sets it.

    Raises:
        InputError: a track that the rig cannot play.
    """

    name = "rig"
    CARRIED: ClassVar[tuple[str, ...]] = ("face",)
    TOLD: ClassVar[bool] = True  # moves from the first step, warm-up or not: it is told where to

    def __init__(
        self,
        rig: Rig | dict,
        track: tuple[Any, Any] | int | None = None,
        residual: Motion | dict | None = None,
        count: int = 0,
    ):
        super().__init__()
        if isinstance(rig, dict):
            from .rig import make_rig

            rig = make_rig(rig["kind"], rig["settings"])
        if isinstance(residual, dict):
            from .motions import make_motion

            residual = make_motion(residual["name"], residual["settings"])
        self.rig, self.residual = rig, residual
        self.offsets = nn.Parameter(torch.zeros_like(rig.rest))
        strengths = torch.ones_like(rig.neutral)
        if rig.controls == ("time",):
            self.register_buffer("strengths", strengths)
        else:
            self.strengths = nn.Parameter(strengths)
        self.register_buffer("face", torch.zeros(int(count), dtype=torch.int64, device=rig.rest.device))
        if track is None:
            track = ([0.0, 1.0], [[0.0], [1.0]]) if rig.controls == ("time",) else 0
        if isinstance(track, int):
            track = (torch.zeros(track), torch.zeros(track, len(rig.controls)))
            self.register_buffer("track_times", track[0].to(rig.rest))
            self.register_buffer("track_values", track[1].to(rig.rest))
        else:
            times, values = self._checked(*track)
            self.register_buffer("track_times", times)
            self.register_buffer("track_values", values)
        self._surface: Surface | None = None
        self._beyond: Tensor | None = None  # of the last pose
        self.register_load_state_dict_pre_hook(_without_strengths)
        self.register_load_state_dict_post_hook(_forget)

    def settings(self) -> dict:
        """The constructor's arguments, N as it is now."""
        residual = self.residual and {"name": self.residual.name, "settings": self.residual.settings()}
        return {
            "rig": {"kind": self.rig.kind, "settings": self.rig.settings()},
            "track": len(self.track_times),
            "residual": residual,
            "count": self.count,
        }

    def digest(self) -> str:
        """64 hex digits that name the rig, the track and the residual's kind: what a run is told, not what it finds."""
        settings = self.settings() | {"count": 0}
        if self.residual is not None:
            settings["residual"]["settings"].pop("count", None)
        whole = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for key, value in sorted(self.state_dict().items()):
            if key.startswith(("rig.", "track_")):
                whole.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()

    # --- what plays ---

    def driven(self, track_times: Any, track_values: Any) -> Rigged:
        """A copy that plays another track: times [K] in [0, 1], rising, and the rig's values there [K, A].

        Without the residual, which belongs to the track that it was learned on.

        Raises:
            InputError: the rig cannot play the track.
        """
        times, values = self._checked(track_times, track_values)
        self._beyond = None  # of a graph that cannot be copied
        other = copy.deepcopy(self)
        other.residual, other.track_times, other.track_values = None, times, values
        return other

    def drive_at(self, times: Tensor) -> Tensor:
        """The track's values [T, A] at ``times`` [T]; neutral where there is no time, or no track."""
        neutral = self.rig.neutral.expand(len(times), -1)
        if not len(self.track_times):
            return neutral
        time = torch.nan_to_num(times, nan=0.0).to(self.track_times)
        after = torch.searchsorted(self.track_times, time).clamp(max=len(self.track_times) - 1)
        before = (after - 1).clamp(min=0)
        start, gap = self.track_times[before], (self.track_times[after] - self.track_times[before]).clamp(min=1e-9)
        share = ((time - start) / gap).clamp(0, 1)[:, None]
        values = torch.lerp(self.track_values[before], self.track_values[after], share)
        return torch.where(torch.isnan(times)[:, None], neutral, values)

    def _checked(self, times: Any, values: Any) -> tuple[Tensor, Tensor]:
        # Copied: arrays may be read-only, which torch warns of.
        times, values = (
            (given if isinstance(given, Tensor) else torch.tensor(np.asarray(given))).to(self.rig.rest)
            for given in (times, values)
        )
        wanted = [len(times), len(self.rig.controls)]
        if times.ndim != 1 or list(values.shape) != wanted:
            remedy = f"give times [K] and values [K, {wanted[1]}], in the order of rig.controls"
            raise InputError(f"has shapes {list(times.shape)} and {list(values.shape)}", field="track", remedy=remedy)
        if not torch.isfinite(times).all() or not torch.isfinite(values).all() or (times.diff() <= 0).any():
            raise InputError("has times that do not rise, or values that are not finite", field="track")
        return times, values

    # --- posing ---

    def pose(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """What `at` gives; what is no place, rotation or size keeps its shape [N, ...]."""
        self._check(gaussians)
        if times.device.type == "cpu" and torch.isnan(times).all():  # on a GPU the question would stall the host
            return gaussians
        inner = gaussians if self.residual is None else self.residual.pose(gaussians, times)
        self._beyond = None if self.residual is None else self.residual.displacement(gaussians, inner)
        moved = self._carry(gaussians.means, inner, self.drive_at(times))
        timed = ~torch.isnan(times)[:, None, None]  # what is seen at no time teaches nothing, not even by rounding
        return inner.replace(**{key: torch.where(timed, value, inner.items()[key]) for key, value in moved.items()})

    def displacement(self, gaussians: Gaussians, posed: Gaussians) -> Tensor | None:
        """What the residual moves them by, before the rig does: the rig's own motion is told, not learned."""
        return self._beyond

    def at_drive(self, gaussians: Gaussians, drive: Tensor) -> Gaussians:
        """Gaussians for the rig's values ``drive`` [T, A], without track and residual; differentiable in them.

        Means, rotations and sizes have a leading T; the others keep their shape [N, ...].
        """
        self._check(gaussians)
        return gaussians.replace(**self._carry(gaussians.means, gaussians, drive))

    def _carry(self, means: Tensor, inner: Gaussians, drive: Tensor) -> dict[str, Tensor]:
        """Means, quats and scales of ``inner``, moved with the places nearest to ``means`` [N, 3]; drive [T, A]."""
        surface = self.surface()
        corners = surface.faces[self.face]  # [N, 3]
        shares, foot = self._feet(means, corners, surface)
        vertices = self.rig.vertices(self.rig.neutral + self.strengths * (drive - self.rig.neutral))  # [T, V, 3]
        turn, growth = turns(vertices, surface)
        shift, turn = _blended(torch.cat([vertices - surface.rest, growth[..., None]], -1), turn, corners, shares)
        shift, growth = shift.split((3, 1), -1)
        lever = inner.means - foot
        moved = {
            "means": inner.means + shift + (growth.exp() * turned(turn, lever) - lever),
            "quats": hamilton(turn, inner.quats.expand(turn.shape)),
            "scales": inner.scales + growth,
        }
        still = (drive == self.rig.neutral).all(-1)[:, None, None]
        return {key: _Exact.apply(value, inner.items()[key], still) for key, value in moved.items()}

    def _feet(self, means: Tensor, corners: Tensor, surface: Surface) -> tuple[Tensor, Tensor]:
        """Barycentric shares [N, 3] of the places nearest to ``means`` [N, 3], and those places [N, 3] on the rig."""
        shares = foot_shares(means, self._corners(corners))
        return shares, (shares[:, None] @ surface.rest[corners]).squeeze(1)

    def _corners(self, corners: Tensor) -> Tensor:
        """Where vertices [M, 3] of triangles lie on the capture's surface (the rig's, with offsets): [M, 3, 3]."""
        surface = self.surface()
        return surface.rest[corners] + surface.size * self.offsets[surface.place[corners]]

    def foot(self, means: Tensor, faces: Tensor) -> Tensor:
        """The places [M, 3] on triangles ``faces`` [M] of the capture's surface (the rig's, with offsets) that are
        nearest to ``means`` [M, 3].
        """
        own = self._corners(self.surface().faces[faces])
        return (foot_shares(means, own)[:, None] @ own).squeeze(1)

    def surface(self) -> Surface:
        """The rig's surface at rest."""
        if self._surface is None:
            self._surface = surface_of(self.rig.rest, self.rig.faces, self.rig.weld)
        if self._surface.rest.device != self.rig.rest.device or self._surface.rest.dtype != self.rig.rest.dtype:
            self._surface = self._surface.to(self.rig.rest)
        return self._surface

    # --- binding ---

    @torch.no_grad()
    def _start(self, gaussians: Gaussians) -> dict[str, Tensor]:
        self.to(gaussians.means.device)
        surface = self.surface()
        self.offsets = nn.Parameter(torch.zeros_like(surface.rest))
        return {"face": nearest_faces(gaussians.means, surface.rest, surface.faces)}

    def begin(self, gaussians: Gaussians) -> None:
        """Bind each of N Gaussians to its nearest triangle, on their device."""
        super().begin(gaussians)
        if self.residual is not None:
            self.residual.begin(gaussians)

    @torch.no_grad()
    def place(self, faces: Tensor) -> None:
        """Bind, after `begin`, to triangles [N] that are known, e.g. from `gaussians_on`; lips may be near each other.

        Raises:
            InputError: there are not N, or the rig has no such triangle.
        """
        if len(faces) != self.count or (len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < self.faces):
            remedy = f"give {self.count} numbers from 0 to {self.faces - 1}"
            raise InputError("are not the Gaussians' triangles", field="faces", remedy=remedy)
        self.face.copy_(faces)

    @property
    def faces(self) -> int:
        """F, the number of the rig's triangles."""
        return len(self.rig.faces)

    @torch.no_grad()
    def follow(self, gaussians: Gaussians) -> None:
        """Bind Gaussians that have left their triangles to those that they have come to, across edges only."""
        self._check(gaussians)
        surface = self.surface()
        vertices = surface.rest + surface.size * self.offsets[surface.place]
        self.face.copy_(walked(self.face, gaussians.means, vertices, surface))

    # --- training ---

    def per_gaussian(self) -> dict[str, nn.Parameter]:
        """The residual's parameters [N, ...], by their name in ``named_parameters()``."""
        rows = {} if self.residual is None else self.residual.per_gaussian()
        return {f"residual.{name}": value for name, value in rows.items()}

    def carried(self) -> dict[str, Tensor]:
        """``face`` [N], and what the residual carries."""
        rows = self.residual.carried() if isinstance(self.residual, PerGaussian) else {}
        return super().carried() | {f"residual.{name}": value for name, value in rows.items()}

    def adopt(self, parameters: dict[str, nn.Parameter] | dict[str, Tensor]) -> None:
        """Put tensors in the place of those that `per_gaussian` and `carried` gave; N may be another."""
        super().adopt(parameters)
        rows = {key.removeprefix("residual."): value for key, value in parameters.items() if key != "face"}
        if self.residual is not None and rows:
            self.residual.adopt(rows)

    def learning_rates(self, config: TrainConfig) -> dict[str, float]:
        """A thousandth of the rig's size a step moves the binding across a triangle in some ten steps.

        Strengths at 3e-3 find their way from half or one and a half in 2,500 steps; at 1e-3 two thirds of it.
        """
        rates = {} if self.residual is None else self.residual.learning_rates(config)
        own = {"offsets": 1e-4 * config.lr_motion, "strengths": 3e-3 * config.lr_motion}
        return own | {f"residual.{name}": rate for name, rate in rates.items()}

    def opacity_penalty(self, gaussians: Gaussians, times: Tensor) -> Tensor | None:
        """The residual's."""
        return None if self.residual is None else self.residual.opacity_penalty(gaussians, times)

    def regularisation(self) -> Tensor:
        """The mean squared strain of the offsets along edges, squares of both parameters, and the residual's penalty.

        The strain is the difference of two vertices' offsets over their distance: 1 where it is as large as the
        triangle. So the binding slides as a whole before it bends.
        """
        surface = self.surface()
        total = _OFFSET * self.offsets.square().mean() + _STRENGTH * (self.strengths - 1).square().sum()
        first, second = surface.edges.unbind(1)
        length = (surface.rest[first] - surface.rest[second]).square().sum(-1).clamp(min=1e-6 * surface.size**2)
        bent = (surface.size * (self.offsets[first] - self.offsets[second])).square().sum(-1)
        total = total + (bent / length).mean()
        return total if self.residual is None else total + self.residual.regularisation()


def _blended(values: Tensor, turns: Tensor, corners: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Values and unit quaternions, both [T, V, 4], of three corners [N, 3] each, blended by shares: [T, N, 4] both."""
    first, second, third = corners.unbind(1)
    a, b, c = shares[:, :, None].unbind(1)  # [N, 1]
    one, two, three = (turns.index_select(1, corner) for corner in (first, second, third))
    # Two quaternions are one turn: those of a triangle on one side, or they would cancel.
    with torch.no_grad():
        two_side, three_side = (
            torch.where((one * other).sum(-1, keepdim=True) < 0, -1.0, 1.0).to(one) for other in (two, three)
        )
    turn = nn.functional.normalize(a * one + (b * two_side) * two + (c * three_side) * three, dim=-1)
    first, second, third = (values.index_select(1, corner) for corner in (first, second, third))
    return a * first + b * second + c * third, turn


class _Exact(torch.autograd.Function):
    """``where(still, exact, value)`` with the gradient of ``value`` alone: a drive must find its way out of neutral."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, exact: Tensor, still: Tensor) -> Tensor:
        return torch.where(still, exact, value)

    @staticmethod
    def backward(ctx: Any, v: Tensor):
        return v, None, None


def _without_strengths(motion: Rigged, state: dict, prefix: str, *_: Any) -> None:
    """Models from before there were strengths have them at one."""
    state.setdefault(prefix + "strengths", torch.ones_like(motion.strengths))


def _forget(motion: Rigged, _: Any) -> None:
    """The surface is made of the rig's buffers, which have just been loaded."""
    motion._surface = motion._beyond = None
