"""Camera poses corrected while the scene is trained: a small rigid motion for each camera, under a tight prior.

A pose that is off by a degree blurs what all cameras share, and with few cameras nothing averages it out. As in BARF
(Lin et al., ICCV 2021, section 3) each camera has a twist in se(3) that is learned with the scene; here frames of one
camera in one pose share it, and it starts from poses that are nearly right, so it is held by a Gaussian prior.

The cameras as a whole can be moved together with the scene without a change in any picture. Held-out cameras would
not follow, so of all corrections that give the same pictures the one nearest to none is taken: what the cameras have
in common is removed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .cameras import Views
from .capture import Capture
from .errors import InputError
from .gaussians import look_at_point


class PoseCorrection(nn.Module):
    """A twist (rotation, then shift, in the camera's own axes) for each of C cameras; zero at the start.

    Gradients reach it through the view matrices, on the CPU and on CUDA alike. The parameter is in units of the
    prior's standard deviations, so that one learning rate suits rotations and shifts.

    Args:
        viewmats: [n, 4, 4], of all frames.
        cameras: [n] numbers from 0 of the camera of each frame; its first frame's pose stands for it.
        radius: of the subject, world units.
        sigma_deg: of the prior, of the rotation about each axis.
        sigma_share: of the prior, of the shift along each axis, as a share of ``radius``.

    Raises:
        InputError: shapes that do not fit, or a prior that is not positive.
    """

    def __init__(
        self,
        viewmats: Tensor,
        cameras: Sequence[int],
        *,
        radius: float,
        sigma_deg: float = 0.5,
        sigma_share: float = 0.01,
    ):
        super().__init__()
        for name, value in (("radius", radius), ("sigma_deg", sigma_deg), ("sigma_share", sigma_share)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"is {value}, must be a positive number", field=name)
        numbers = torch.as_tensor(np.asarray(cameras, dtype=np.int64))
        if tuple(viewmats.shape) != (len(numbers), 4, 4) or not len(numbers):
            shape = list(viewmats.shape)
            raise InputError(f"has shape {shape}, must be [{len(numbers)}, 4, 4], one a frame", field="viewmats")
        order, first = np.unique(numbers.numpy(), return_index=True)
        if order[0] != 0 or order[-1] != len(order) - 1:
            raise InputError("must be the numbers from 0 on, with none left out", field="cameras")
        self.radius = float(radius)
        sigma = torch.tensor([math.radians(sigma_deg)] * 3 + [sigma_share * radius] * 3)
        self.twist = nn.Parameter(torch.zeros(len(order), 6))  # in units of sigma
        poses = viewmats.detach().cpu().double()[torch.from_numpy(first)]
        carried, common = _gauge(poses, sigma.double(), self.radius)
        self.register_buffer("camera", numbers)  # [n]
        self.register_buffer("sigma", sigma)  # [6]
        self.register_buffer("carried", carried.float())  # [C, 6, 6]
        self.register_buffer("common", common.float())  # [6, C, 6]

    @staticmethod
    def of(capture: Capture, *, sigma_deg: float = 0.5, sigma_share: float = 0.01) -> PoseCorrection:
        """For the frames of a capture: those of one camera name and one pose share a correction."""
        views = capture.cameras.viewmats.detach().cpu()
        poses = np.round(views.double().numpy(), 6) + 0.0
        numbers: dict[tuple[str, bytes], int] = {}
        cameras = [
            numbers.setdefault((name, pose.tobytes()), len(numbers))
            for name, pose in zip(capture.frames["camera"], poses, strict=True)
        ]
        _, radius = look_at_point(capture)
        return PoseCorrection(views, cameras, radius=radius, sigma_deg=sigma_deg, sigma_share=sigma_share)

    def twists(self) -> Tensor:
        """[C, 6]: rotation vectors (radians) and shifts (world units) without what the cameras have in common."""
        common = torch.einsum("gcj,cj->g", self.common, self.twist)
        return (self.twist - torch.einsum("cjg,g->cj", self.carried, common)) * self.sigma

    def apply(self, viewmats: Tensor, rows: Tensor) -> Tensor:  # unlike nn.Module's, of matrices
        """Corrected world-to-camera matrices [B, 4, 4] of frames ``rows`` [B] int64; nothing waits for a GPU."""
        return rigid(self.twists()[self.camera[rows]]) @ viewmats

    forward = apply

    def correct(self, views: Views, rows: Tensor) -> Views:
        """The same views with corrected poses and, for view-dependent colours, the centres that follow from them."""
        viewmats = self.apply(views.viewmats, rows)
        positions = -(viewmats[:, :3, :3].transpose(1, 2) @ viewmats[:, :3, 3:])[..., 0]
        return views._replace(viewmats=viewmats, positions=positions)

    def regularisation(self) -> Tensor:
        """The negative logarithm of the prior's density, mean over the cameras and without its constant; a scalar."""
        return 0.5 * (self.twists() / self.sigma).square().sum(-1).mean()

    @torch.no_grad()
    def sizes(self) -> Tensor:
        """[C, 2], how far each camera is turned (degrees) and shifted (share of the subject's radius)."""
        turn, shift = self.twists().split(3, dim=-1)
        return torch.stack([turn.norm(dim=-1) * (180 / math.pi), shift.norm(dim=-1) / self.radius], dim=-1)


def rigid(twists: Tensor) -> Tensor:
    """The rigid motions [..., 4, 4] of twists [..., 6] (rotation vector in radians, shift): the exponential map.

    With W the cross-product matrix and t the angle, R = I + a W + b W^2 and the shift's matrix V = I + b W + c W^2,
    a = sin t / t, b = (1 - cos t) / t^2, c = (t - sin t) / t^3 (Murray, Li and Sastry 1994, prop. 2.9).
    """
    turn, shift = twists[..., :3], twists[..., 3:]
    square = turn.square().sum(-1)[..., None, None]
    small = square < 1e-2  # below, the quotients lose digits, and have no gradient at 0
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    a = torch.where(small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), angle.sin() / angle)
    b = torch.where(small, 0.5 - square / 24 * (1 - square / 30 * (1 - square / 56)), (1 - angle.cos()) / safe)
    c = torch.where(
        small, 1 / 6 - square / 120 * (1 - square / 42 * (1 - square / 72)), (angle - angle.sin()) / (safe * angle)
    )
    cross = _cross(turn)
    twice = cross @ cross
    one = torch.eye(3, dtype=twists.dtype, device=twists.device)
    rotation = one + a * cross + b * twice
    moved = (one + b * cross + c * twice) @ shift[..., None]
    last = one.new_zeros(*twists.shape[:-1], 1, 4)
    last = torch.cat([last[..., :3], last[..., 3:] + 1], dim=-1)
    return torch.cat([torch.cat([rotation, moved], dim=-1), last], dim=-2)


def _cross(vectors: Tensor) -> Tensor:
    """Matrices [..., 3, 3] whose product with y is the cross product of the vectors [..., 3] with y."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def _gauge(poses: Tensor, sigma: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """How a small motion of the world is seen by each camera [C, 6, 6], and its least-squares fit [6, C, 6] to twists.

    Twists are in units of ``sigma``, so the fit is the one that leaves the most probable corrections. A motion of the
    world g is V g V^-1 to a camera V: the adjoint, [[R, 0], [[t] R, R]] for V = (R, t).
    """
    rotation, shift = poses[:, :3, :3], poses[:, :3, 3]
    adjoint = poses.new_zeros(len(poses), 6, 6)
    adjoint[:, :3, :3] = adjoint[:, 3:, 3:] = rotation
    adjoint[:, 3:, :3] = _cross(shift) @ rotation
    adjoint[:, :, 3:] *= radius  # shifts and turns of like size, for the sake of the fit's condition
    carried = adjoint / sigma[:, None]
    common = torch.linalg.pinv(carried.flatten(0, 1)).view(6, len(poses), 6)
    return carried, common
