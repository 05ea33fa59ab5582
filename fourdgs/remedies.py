"""What a training does for captures of few cameras or of unlike sources: each a switch, all off by default.

What is learned here (the look of a source, corrections of poses) goes into checkpoints, and is dropped at test.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .cameras import Cameras, Views
from .capture import Capture
from .config import TrainConfig
from .covisibility import covisibility_weights, rendered_depths
from .dropping import drop, drop_rate
from .gaussians import Gaussians
from .model import render_gaussians
from .pose_refine import PoseCorrection
from .source_look import SourceLook

LR_LOOK = 2e-3
LR_POSE = 2e-2  # of the prior's standard deviations
COVISIBLE_AT = 0.3  # share of the training at which the weights are made, once there is a depth to make them of
LOOK_PENALTY = 1e-2
POSE_PENALTY = 1e-3


class Remedies(nn.Module):
    """The remedies that a config switches on, for the frames of a capture on the trainer's device.

    Args:
        background: [3], behind frames with alpha.
        generator: the run's random numbers, on the device.
    """

    def __init__(
        self,
        capture: Capture,
        config: TrainConfig,
        alpha: Tensor | None,
        background: Tensor,
        generator: torch.Generator,
    ):
        super().__init__()
        self.config, self.background, self.generator = config, background, generator
        device = background.device
        degree = {"none": None, "colour": 0, "flat": 0, "smooth": 2}[config.source_look]
        self.look = None
        if degree is not None:
            self.look = SourceLook.of(capture, background=config.background, degree=degree)
            if config.source_look == "colour":
                self.look.backdrop.requires_grad_(False)
            self._sources = self.look.rows(capture.frames["source"].tolist()).to(device)
        self.poses = None
        if config.pose_prior_deg:
            self.poses = PoseCorrection.of(capture, sigma_deg=config.pose_prior_deg)
        # Frames whose background was taken away, and how much of it shows through: uint8 [n, H, W].
        self._clear = 255 - alpha.to(device) if config.random_background and alpha is not None else None
        # In 8 bits, and in checkpoints: what is made of the scene of one step cannot be made again.
        self.register_buffer("weights", torch.empty(0, dtype=torch.uint8))  # [n, H, W]
        self.to(device)

    def optimisers(self) -> dict[str, torch.optim.Adam]:
        """One for each remedy that is learned, by its name."""
        found = {}
        for name, part, rate in (("look", self.look, LR_LOOK), ("poses", self.poses, LR_POSE)):
            values = [] if part is None else [value for value in part.parameters() if value.requires_grad]
            if values:
                found[name] = torch.optim.Adam(values, lr=rate, fused=True)
        return found

    def dropped(self, gaussians: Gaussians, step: int) -> Gaussians:
        """Gaussians with some left out, at a step of the training."""
        if not self.config.drop:
            return gaussians
        return drop(gaussians, drop_rate(step, self.config.iterations, self.config.drop), self.generator)

    def render(self, gaussians: Gaussians, views: Views, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pictures [B, H, W, 3] of frames ``rows`` [B], as their sources show them, and the new backgrounds [B, 3]."""
        if self.poses is not None:
            views = self.poses.correct(views, rows)
        behind = self.background if self.look is None else torch.zeros_like(self.background)
        rgb, alpha = render_gaussians(gaussians, views, behind)
        if self.look is not None:
            rgb = self.look.apply(rgb, alpha, self._sources[rows])
        fresh = None
        if self._clear is not None:
            fresh = torch.rand(len(rows), 3, generator=self.generator, device=rgb.device)
            cut = (self._clear[rows].amax((1, 2)) > 0)[:, None]  # the others keep the background that is theirs
            fresh = torch.where(cut, fresh, self.background)
            rgb = rgb + (1 - alpha) * (fresh - self.background)[:, None, None]
        if len(self.weights):
            rgb = _Weighted.apply(rgb, self.weights[rows])
        return rgb, fresh

    def truth(self, store: Tensor, where: Tensor, rows: Tensor, fresh: Tensor | None) -> tuple[Tensor, Tensor]:
        """The store uint8 [m, H, W, 3] and the rows there [B] of the true pictures, over the new backgrounds."""
        if fresh is None:
            return store, where
        through = self._clear[rows][..., None].float() / 255
        pictures = store[where].float() + 255 * through * (fresh - self.background)[:, None, None]
        return pictures.round_().clamp_(0, 255).to(torch.uint8), torch.arange(len(rows), device=store.device)

    def adopt(self, tensors: dict[str, Tensor]) -> None:
        """What ``state_dict`` gave; the weights may be there already, or not yet."""
        self.weights = tensors["weights"].to(self.background.device)
        self.load_state_dict(tensors)

    def penalty(self) -> Tensor | float:
        """What holds looks and poses near to none, a scalar."""
        total: Tensor | float = 0.0
        if self.look is not None:
            total = total + LOOK_PENALTY * self.look.regularisation()
        if self.poses is not None:
            total = total + POSE_PENALTY * self.poses.regularisation()
        return total

    @torch.no_grad()
    def look_around(self, gaussians: Gaussians, cameras: Cameras, share: float) -> None:
        """Weigh pixels by how many cameras see what they show, once the scene has a shape."""
        if self.config.covisibility and not len(self.weights) and share >= COVISIBLE_AT:
            cameras = cameras.to(gaussians.means.device)
            depths = rendered_depths(gaussians, cameras)
            weights = covisibility_weights(depths, cameras, floor=1 - self.config.covisibility)
            self.weights = (255 * weights).round().to(torch.uint8)


class _Weighted(torch.autograd.Function):
    """Pictures as they are; their gradient times weights: so each pixel's share of any loss is weighed."""

    @staticmethod
    def forward(ctx, rgb: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return rgb.view_as(rgb)

    @staticmethod
    def backward(ctx, v: Tensor):
        (weights,) = ctx.saved_tensors
        return v * (weights[..., None].to(v) / 255), None


def from_stills(canonical: Gaussians, posed: Gaussians, times: Tensor) -> Gaussians:
    """Posed Gaussians of which frames with a time teach the motion alone, and the others the canonical ones.

    Args:
        canonical: [N, ...], with gradients.
        posed: of the same Gaussians detached; tensors [N, ...] or [T, N, ...].
        times: [T]; NaN for frames without a time, which see the canonical scene.
    """
    still = torch.isnan(times)
    both = {}
    for (key, own), moved in zip(canonical.items().items(), posed.items().values(), strict=True):
        batch = still.view(-1, *[1] * own.dim())
        both[key] = torch.where(batch, own, moved)
    return Gaussians(**both)
