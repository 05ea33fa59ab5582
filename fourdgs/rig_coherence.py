"""Where a rig parts what lies side by side, such as lips, and what of it only a motion reveals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from .binding import turned
from .drive.names import is_angle
from .gaussians import Gaussians

if TYPE_CHECKING:
    from .rig.base import Rig
    from .rigged import Rigged

DEGREES = 20.0
"""How far head and eyes are turned to see what parts; actions are done in full."""

WIDE = 0.7
"""A Gaussian's width along the surface at the start, in mean spacings: the surface of a painted ball is then 0.99
opaque, and shows 22.3 dB before any training; a whole spacing blurs it to 21.7 dB."""

SPREAD = 2.0
"""Standard deviations that a Gaussian is taken to reach."""

DENSER = 0.1
"""Of the Gaussians that an even start has, how many more may begin where the rig parts or stretches."""

RINGS = 3
"""Triangles next to those that stills show which count as shown, since grazing rays may see them."""

_NEAR = 96  # neighbours that are looked at
_BEFORE = 4  # places shown that may hide another
_CHUNK = 256
_MOST = 16.0  # times as dense, by reach, and
_STRETCH = 4.0  # by stretch


@torch.no_grad()
def coherent_reach(
    rig: Rig, tolerance: float, shown: np.ndarray | None = None, least: float = 0.0, moves: np.ndarray | None = None
) -> Tensor:
    """How far around each vertex all places move alike: [V] world units, inf where nothing near parts.

    It is the distance to the nearest place whose motion differs from the vertex's own by more than the tolerance in
    any of the rig's actions, each done in full by itself. A Gaussian that reaches farther paints what goes elsewhere.

    Args:
        tolerance: world units. least: what touches has no distance at all; the reach is at least this, world units.
        shown: [V] bool, vertices that pictures show; the others (teeth behind lips) neither count nor get a limit.
        moves: what `probes` gave, where that is known.
    """
    moves = probes(rig) if moves is None else moves  # [A, V, 3]
    _, place, inverse = np.unique(rig.weld.cpu().numpy(), return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    counts = np.ones(len(place), bool)
    if shown is not None:
        counts = np.zeros(len(place), bool)
        np.logical_or.at(counts, inverse, shown)
    reach = np.full(len(place), np.inf)
    if not counts.any() or not len(moves):
        return torch.from_numpy(reach[inverse]).to(rig.rest)
    points = rig.rest.cpu().double().numpy()[place[counts]]
    moves = moves[:, place[counts]].transpose(1, 0, 2).astype(np.float32)  # [P, A, 3]
    tree = cKDTree(points)
    found = np.full(len(points), np.inf)
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        apart, near = tree.query(points[part], k=min(_NEAR, len(points)))
        parted = np.square(moves[part][:, None] - moves[near]).sum(-1).max(-1) > tolerance**2  # [c, k]
        found[part] = np.where(parted, apart, np.inf).min(1)
    reach[counts] = np.maximum(found, least)
    return torch.from_numpy(reach[inverse]).to(rig.rest)


@torch.no_grad()
def probes(rig: Rig) -> np.ndarray:
    """How each control by itself moves the vertices: [A, V, 3] world units; a rig of its own time, at 16 moments."""
    if rig.controls == ("time",):
        drive = torch.linspace(0, 1, 16)[:, None].to(rig.rest)
    else:
        amount = torch.tensor([DEGREES if is_angle(name) else 1.0 for name in rig.controls]).to(rig.rest)
        drive = rig.neutral + torch.diag(amount)
    moved = [(rig.vertices(row[None]) - rig.rest).cpu().numpy() for row in drive]
    return np.concatenate(moved) if moved else np.zeros((0, len(rig.rest), 3), np.float32)


class RigPrior:
    """What a rig knows of its Gaussians beyond where they go: how far each may reach, and which no picture shows.

    Args:
        reach: [V] world units, see `coherent_reach`.
        hidden: [F] bool, triangles that no still shows, and that a motion may reveal.
        density: [F], how much closer than evenly Gaussians begin; by default 1.
    """

    def __init__(self, reach: Tensor, hidden: Tensor, density: np.ndarray | None = None):
        self.reach, self.hidden = reach, hidden
        self.density = np.ones(len(hidden)) if density is None else density
        self._fixed = torch.zeros(0, dtype=torch.bool, device=hidden.device)

    @staticmethod
    def of(rig: Rig, shown: np.ndarray, count: int, pixel: float) -> RigPrior:
        """For ``count`` Gaussians on a rig of which pictures show vertices [V] bool.

        Two places part when their motion differs by half the mean spacing of the Gaussians, or by a pixel, if that is
        more; none has to be smaller than half of that.

        Args:
            pixel: what a pixel of the pictures spans, world units.
        """
        faces = rig.faces.cpu().numpy()
        areas = _areas(rig.rest.cpu().double().numpy(), faces)
        spacing = float(np.sqrt(areas.sum() / count))
        tolerance = max(0.5 * spacing, pixel)
        hidden = ~_grown(shown, faces, rig.weld.cpu().numpy())[faces].any(1)
        moves = probes(rig)
        hidden &= _revealed(rig, moves, tolerance, shown)[faces].any(1)
        reach = coherent_reach(rig, tolerance, shown, 0.5 * tolerance, moves)
        inside = coherent_reach(rig, tolerance, None, 0.5 * tolerance, moves)
        near = torch.where(torch.from_numpy(hidden)[:, None], inside.cpu()[faces], reach.cpu()[faces]).amin(1).numpy()
        wanted = np.clip((SPREAD * WIDE * spacing / near) ** 2, 1, _MOST) * _stretch(rig, moves, areas) - 1
        density = 1 + wanted * min(1.0, DENSER * areas.sum() / max((wanted * areas).sum(), 1e-300))
        return RigPrior(reach, torch.from_numpy(hidden).to(rig.rest.device), density)

    def begin(self, faces: Tensor, device: torch.device) -> None:
        """Hold, from now on and on this device, those Gaussians that begin on hidden ones of these triangles [N]."""
        self.reach, self.hidden = self.reach.to(device), self.hidden.to(device)
        self._fixed = self.hidden[faces.to(device)]

    def fixed(self, count: int) -> Tensor:
        """[N] bool: the Gaussians that began where no still shows them, of which stills can say nothing.

        They stay where they are among the N, since they are not relocated, and others come after them.
        """
        return nn.functional.pad(self._fixed, (0, count - len(self._fixed)))

    def guarded(self, gaussians: Gaussians) -> Gaussians:
        """The same Gaussians, as stills teach them: no gradient flows into those that are `fixed`."""
        fixed = self.fixed(len(gaussians))
        return Gaussians(**{key: _held(value, fixed) for key, value in gaussians.items().items()})

    def revealed(self, gaussians: Gaussians, others: bool) -> Gaussians:
        """The same, as frames with times teach them: of those that are `fixed` the colours, and all of the others or
        none. Where one camera alone sees them, places would be free to go anywhere.
        """
        fixed = self.fixed(len(gaussians))
        taught = {}
        for key, value in gaussians.items().items():
            colour = key.startswith("sh")
            if others:
                taught[key] = value if colour else _held(value, fixed)
            else:
                taught[key] = _held(value, ~fixed) if colour else value.detach()
        return Gaussians(**taught)

    def penalty(self, motion: Rigged, gaussians: Gaussians) -> Tensor:
        """How much Gaussians are too far from their triangles, too large, and turned out of the surface; a scalar.

        The mean over them of max(0, log gap / r) and of max(0, log 2 sigma / r) of each axis, with reach r, and of 1 -
        |cosine| between the shortest axis and the triangle's normal. The thresholds are GaussianAvatars' (Qian et al.,
        CVPR 2024, eq. 5 and 6), there in triangles' sizes; logs, since r spans decades and a step changes log sigma.
        Where nothing parts there is no limit: Gaussians may be where the pictures have them, though the rig's surface
        be elsewhere (holding all within half a spacing cost 1.6 dB).
        """
        normals = _normals(motion.rig.rest, motion.rig.faces)[motion.face]
        shortest = nn.functional.one_hot(gaussians.scales.detach().argmin(-1), 3).to(normals)
        axis = turned(nn.functional.normalize(gaussians.quats, dim=-1), shortest)
        tilt = 1 - (axis * normals).sum(-1).abs()
        faces, means, scales = motion.face, gaussians.means, gaussians.scales
        reach = self.reach[motion.rig.faces].amin(1)[faces]
        rows = _limited(reach)
        faces, means, scales, reach = faces[rows], means[rows], scales[rows], reach[rows]
        with torch.no_grad():
            foot = motion.foot(means, faces)
        gap = 0.5 * ((means - foot).square().sum(-1) / reach.square()).clamp(min=1).log()
        size = (scales + (SPREAD / reach).log()[:, None]).relu()
        return (tilt.sum() + gap.sum() + size.sum() / 3) / max(len(gaussians), 1)


def _limited(reach: Tensor) -> Tensor | slice:
    """Which of reaches [N] are limits; on a GPU all, for the question would stall the host."""
    return torch.isfinite(reach).nonzero().squeeze(1) if reach.device.type == "cpu" else slice(None)


def _normals(points: Tensor, faces: Tensor) -> Tensor:
    """[F, 3] of triangles, unit; zero where one has no area."""
    a, b, c = points[faces].unbind(1)
    return nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-30)


def _areas(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """[..., F] of triangles between points [..., V, 3]."""
    a, b, c = np.moveaxis(points[..., faces, :], -2, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def _stretch(rig: Rig, moves: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """[F] how many times as large an action makes each triangle, from 1 to `_STRETCH`: lids unfold as they shut."""
    most, faces, rest = np.ones(len(areas)), rig.faces.cpu().numpy(), rig.rest.cpu().double().numpy()
    for moved in moves:
        most = np.maximum(most, _areas(rest + moved, faces) / np.maximum(areas, 1e-300))
    return np.where(areas > 0, most.clip(1, _STRETCH), 1)


def _revealed(rig: Rig, moves: np.ndarray, tolerance: float, shown: np.ndarray) -> np.ndarray:
    """Vertices [V] bool that an action moves otherwise than any of the nearest places that are shown."""
    points = rig.rest.cpu().numpy()
    if not shown.any() or not len(moves):
        return np.zeros(len(points), bool)
    _, near = cKDTree(points[shown]).query(points, k=[*range(1, min(_BEFORE, int(shown.sum())) + 1)])
    parted = [np.square(moved[:, None] - moved[shown][near]).sum(-1).max(1) > tolerance**2 for moved in moves]
    return np.any(parted, axis=0)


def _grown(shown: np.ndarray, faces: np.ndarray, weld: np.ndarray) -> np.ndarray:
    """Vertices [V] bool that are shown, or `RINGS` triangles or less from those that are."""
    place = np.unique(weld, return_inverse=True)[1].reshape(-1)
    for _ in range(RINGS):
        near = np.zeros(place.max() + 1, bool)
        near[place[faces[shown[faces].any(1)]]] = True
        shown = near[place]
    return shown


def _held(value: Tensor, rows: Tensor) -> Tensor:
    """[N, ...] with no gradient into rows [N] bool."""
    return torch.where(rows.view(-1, *[1] * (value.dim() - 1)), value.detach(), value)
