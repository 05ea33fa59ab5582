"""The steps of a training, and all that they change."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import checkpoint
from .cameras import Views
from .capture import Capture, true_pictures
from .config import TrainConfig
from .cuda.available import fused
from .densify import Budget
from .errors import InputError
from .feed import Feed
from .gaussians import KEYS, Gaussians, initial_gaussians, look_at_point
from .losses import photometric_to
from .metrics import psnr_db
from .model import Model, render_gaussians
from .motions import motion_for
from .remedies import Remedies, from_stills
from .rig_coherence import RigPrior
from .rig_start import check_alignment, gaussians_on, prior_of
from .rigged import Rigged
from .sampling import Sampler
from .sessions import LOGGER

if TYPE_CHECKING:
    from .rig import Rig

LOOK_FRAMES = 8  # of each kind, at every look at the curve
PLANNED = 64  # steps whose frames are drawn at once
MOVES = "motion."  # before the names of a motion model's parameters


class Trainer:
    """The state of one training: parameters, optimisers, sampler, random numbers, curve."""

    def __init__(self, capture: Capture, config: TrainConfig, device: torch.device, rig: Rig | Rigged | None = None):
        self.config, self.device, self.step = config, device, 0
        self.seconds = self.look_seconds = 0.0
        self.curve: list[dict] = []
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.cameras = capture.cameras
        self.views = self.cameras.views().to(device)
        self.background = torch.tensor(config.background, device=device)
        rgb, alpha = capture.pictures()
        self.feed = Feed(true_pictures(rgb, alpha, self.background.cpu()), device)
        LOGGER.info(self.feed.where)
        self.remedies = Remedies(capture, config, alpha, self.background, self.generator)
        self.planned = torch.empty(0, config.batch, dtype=torch.int64)
        self.samplers = samplers_of(capture, config)
        centre, self.radius = look_at_point(capture)
        count, degree = max(4, round(config.gaussians * config.initial)), config.sh_degree
        if degree < 0:
            degree = degree_for(capture.frames["camera"].nunique())
        self.motion = motion_for(config, capture, centre, self.radius, rig)
        self.prior: RigPrior | None = None
        on_rig = isinstance(self.motion, Rigged) and config.init == "auto"
        if on_rig:
            LOGGER.info(f"the rig overlaps the masks by {check_alignment(self.motion, capture):.2f} (IoU)")
            if config.rig_penalty:
                self.prior = prior_of(self.motion, capture, config.gaussians)
            start, faces = gaussians_on(
                self.motion, count, capture, prior=self.prior, sh_degree=degree, seed=config.seed
            )
            if self.prior is not None:
                self.prior.begin(faces, device)
        else:
            start = initial_gaussians(capture, count, how=config.init, sh_degree=degree, seed=config.seed)
        self.motion.to(device)
        self._timed = bool(capture.frames["time"].notna().any())
        self.adopt(start.to(device))
        if on_rig:
            self.motion.place(faces.to(device))

    def adopt(self, gaussians: Gaussians) -> None:
        """Make the parameters and their optimisers."""
        config = self.config
        rates = {
            "means": config.lr_means * self.radius, "quats": config.lr_quats, "scales": config.lr_scales,
            "opacities": config.lr_opacities, "sh0": config.lr_sh, "shN": config.lr_sh / 20,
        }  # fmt: skip
        self.parameters = {key: torch.nn.Parameter(value.clone()) for key, value in gaussians.items().items()}
        self.motion.begin(self.gaussians())
        rates |= {MOVES + name: rate for name, rate in self.motion.learning_rates(config).items()}
        of_motion = {MOVES + name: value for name, value in self.motion.named_parameters()}
        rows = {MOVES + name for name in self.motion.per_gaussian()}
        # What has a row for each Gaussian is relocated and grows with them, and has an optimiser to itself.
        self.parameters |= {key: value for key, value in of_motion.items() if key in rows}
        self.optimisers = {key: _adam([value], rates[key]) for key, value in self.parameters.items()}
        shared = {key: value for key, value in of_motion.items() if key not in rows}
        self.field_optimisers = [
            _adam([value for key, value in shared.items() if rates[key] == rate], rate)
            for rate in dict.fromkeys(rates[key] for key in shared)
        ]
        moving = [self.optimisers[key] for key in self.parameters if key in rows]
        self._decays = [(self.optimisers["means"], rates["means"], 0.01)]
        self._decays += [(each, each.param_groups[0]["lr"], 0.1) for each in (*moving, *self.field_optimisers)]
        self.remedy_optimisers = self.remedies.optimisers()
        carried = {MOVES + name: value for name, value in self.motion.carried().items()}
        self.budget = Budget(self.parameters, self.optimisers, self.generator, config.gaussians, carried=carried)

    def gaussians(self) -> Gaussians:
        """The parameters as Gaussians that gradients flow into."""
        gaussians = Gaussians(**{key: self.parameters[key] for key in KEYS})
        if not self.config.isotropic:
            return gaussians
        return gaussians.replace(scales=gaussians.scales.mean(-1, keepdim=True).expand_as(gaussians.scales))

    def model(self) -> Model:
        """The model as it stands, detached."""
        still = {key: value.detach().contiguous() for key, value in self.gaussians().items().items()}
        return Model(Gaussians(**still), self.motion, self.config.background)

    def moving(self, step: int) -> bool:
        """Whether things move at a step: the static warm-up is over, or frames have times and the motion is told."""
        warm = self._timed if self.motion.TOLD else step >= self.config.warmup * self.config.iterations
        return self.motion.moves and warm

    def run(
        self,
        out: Path,
        held_out: Capture | None,
        progress: bool | Callable[[int], None],
        validation: Capture | None = None,
    ) -> None:
        """Steps until the end, or until validation says so, with checkpoints and looks at the curve."""
        config = self.config
        bar = tqdm(
            total=config.iterations,
            initial=self.step,
            disable=progress is not True,
            desc=f"train {out.name}",
            mininterval=1,
        )
        tell = progress if callable(progress) else lambda steps: None
        tell(self.step)
        looked_at = {}
        for name, frames in (("psnr_db", held_out), ("psnr_validation_db", validation)):
            if frames is not None and config.evaluate_every:
                looked_at[name] = self._to_look_at(frames)
        with bar:
            while self.step < config.iterations and not self._worse():
                begun = time.perf_counter()
                loss = self.take_step()
                self.seconds += time.perf_counter() - begun
                bar.update()
                tell(1)
                last = self.step == config.iterations
                if config.evaluate_every and (self.step % config.evaluate_every == 0 or last):
                    self._look(float(loss.detach()), looked_at)
                    bar.set_postfix({k: f"{v:.2f}" for k, v in self.curve[-1].items() if k.startswith("psnr")})
                if self.step % config.checkpoint_every == 0 and not last:
                    checkpoint.save(self, out / "checkpoint.safetensors")

    def _worse(self) -> bool:
        """Whether the validation cameras have seen nothing better for so many looks as the config has patience."""
        seen = [row["psnr_validation_db"] for row in self.curve if "psnr_validation_db" in row]
        patience = self.config.patience
        return bool(patience) and len(seen) > patience and max(seen[-patience:]) <= max(seen[:-patience])

    def take_step(self) -> Tensor:
        """One optimiser step; the loss, a scalar."""
        config, remedies = self.config, self.remedies
        self._schedule()
        if not len(self.planned):
            self._plan()
        store, where = self.feed.next()
        views, rows = self._coming.take(-len(self.planned)), self._rows[-len(self.planned)]
        self.planned = self.planned[1:]
        moving = self.moving(self.step)
        gaussians = self.gaussians()
        guarded = gaussians if self.prior is None else self.prior.guarded(gaussians)
        posed = self._posed(gaussians, guarded, views.times) if moving else guarded
        rendered, fresh = remedies.render(remedies.dropped(posed, self.step), views, rows)
        loss = photometric_to(rendered, *remedies.truth(store, where, rows, fresh), config.ssim_weight)
        loss = loss + self._penalties(guarded, views.times, posed if moving else None) + remedies.penalty()
        loss.backward()
        learned = [*self.optimisers.values(), *self.remedy_optimisers.values()]
        self._descend([*learned, *(self.field_optimisers if moving else [])])
        self.step += 1
        share = self.step / config.iterations
        remedies.look_around(gaussians, self.cameras, share)
        if share <= config.refine_until:
            if config.noise:
                self.budget.explore(config.noise * self.optimisers["means"].param_groups[0]["lr"])
            if self.step % config.refine_every == 0:
                self.budget.refine(None if self.prior is None else self.prior.fixed(len(gaussians)))
                self._hand_over()
        return loss

    def _hand_over(self) -> None:
        """Give the motion model what the budget has made of its rows."""
        rows = {name: self.parameters[MOVES + name] for name in self.motion.per_gaussian()}
        self.motion.adopt(rows | {name: self.budget.carried[MOVES + name] for name in self.motion.carried()})
        self.motion.follow(self.gaussians())

    def _posed(self, gaussians: Gaussians, guarded: Gaussians, times: Tensor) -> Gaussians:
        everything = self.config.canonical == "all"
        if self.prior is not None:
            taught = self.prior.revealed(gaussians, others=everything)
        elif everything:
            return self.motion.pose(gaussians, times)
        else:
            taught = Gaussians(**{key: value.detach() for key, value in gaussians.items().items()})
        return from_stills(guarded, self.motion.pose(taught, times), times)

    def _penalties(self, gaussians: Gaussians, times: Tensor, posed: Gaussians | None) -> Tensor:
        """What lets unneeded Gaussians die, and keeps motion smooth and small; a scalar. None: nothing moves yet.

        Motion that no camera sees, along a ray or behind the subject, has next to no gradient; Adam makes steps of its
        noise nevertheless, and it drifts. A penalty on distances, not their squares, holds what is not seen to move.
        """
        config = self.config
        seen = None if posed is None else self.motion.opacity_penalty(gaussians, times)
        weights = config.opacity_penalty, config.scale_penalty / self.radius
        if seen is None and self.device.type == "cuda" and fused():
            from .cuda.penalties import size_penalty

            total = size_penalty(gaussians.opacities, gaussians.scales, *weights)
        else:
            seen = gaussians.opacities.sigmoid().mean() if seen is None else seen
            total = weights[0] * seen + weights[1] * gaussians.scales.exp().mean()
        if posed is not None and config.motion_penalty:
            total = total + config.motion_penalty * self.motion.regularisation()
        if self.prior is not None:
            total = total + config.rig_penalty * self.prior.penalty(self.motion, gaussians)
        moved = self.motion.displacement(gaussians, posed) if posed is not None and config.rest_penalty else None
        if moved is not None:
            moved = moved.square().sum(-1)  # [T, N]
            # Rounded off at a ten-thousandth of the radius: the root has no slope at zero.
            total = total + config.rest_penalty * (moved / self.radius**2 + 1e-8).sqrt().mean()
        return total

    def _plan(self) -> None:
        """Draw the frames of the coming steps, so that they can be sent for, and the host be left alone."""
        steps = min(PLANNED, max(1, self.config.iterations - self.step))
        self.expect(torch.stack([self._sampler(self.step + k).next(self.config.batch) for k in range(steps)]))

    def _sampler(self, step: int) -> Sampler:
        """Where stills alone teach the canonical scene, those with a time wait until something moves."""
        return self.samplers[
            "sampler" if self.moving(step) or "sampler_still" not in self.samplers else "sampler_still"
        ]

    def expect(self, planned: Tensor) -> None:
        """Send for what the coming steps see, frames [steps, B]: cameras of all at once, pictures one step ahead."""
        self.planned = planned
        self._rows = planned.to(self.device)
        self._coming = self.views.take(self._rows)  # tensors [steps, B, ...]
        self.feed.begin(planned)

    def _descend(self, optimisers: list[torch.optim.Adam]) -> None:
        if self.device.type == "cuda" and fused():
            from .cuda.adam import adam_steps

            return adam_steps(optimisers)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def _schedule(self) -> None:
        share = self.step / self.config.iterations
        for optimiser, rate, end in self._decays:
            optimiser.param_groups[0]["lr"] = rate * end**share

    def _look(self, loss: float, looked_at: dict[str, tuple[Views, Tensor]]) -> None:
        """A row of the curve; its time is kept apart from the training's."""
        begun = time.perf_counter()
        row = {"step": self.step, "seconds": self.seconds, "loss": loss, "gaussians": len(self.parameters["means"])}
        rows = _spread(len(self.feed))
        truth = self.feed.pictures(rows).float() / 255
        row["psnr_train_db"] = self._psnr(self.views.take(rows.to(self.device)), truth)
        row |= {name: self._psnr(*frames) for name, frames in looked_at.items()}
        self.curve.append(row)
        LOGGER.info(", ".join(f"{key} {value:.6g}" for key, value in row.items()))
        self.look_seconds += time.perf_counter() - begun

    def _to_look_at(self, held_out: Capture) -> tuple[Views, Tensor]:
        """Cameras and true pictures [n, H, W, 3] of a few held-out frames."""
        some = held_out.select(rows=_spread(len(held_out)).tolist())
        truth = true_pictures(*some.pictures(), self.background.cpu()).to(self.device)
        return some.cameras.views().to(self.device), truth.float() / 255

    @torch.no_grad()
    def _psnr(self, views: Views, truth: Tensor) -> float:
        total = 0.0
        for index in range(len(truth)):
            view = views.take(slice(index, index + 1))
            rgb, _ = render_gaussians(self.motion.at(self.gaussians(), view.times), view, self.background)
            total += float(psnr_db(rgb, truth[index : index + 1]))
        return total / len(truth)

    def named_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """All of them, by names that a checkpoint can have."""
        fields = {f"field{index}": value for index, value in enumerate(self.field_optimisers)}
        return self.optimisers | fields | self.remedy_optimisers


def _spread(count: int) -> Tensor:
    """At most `LOOK_FRAMES` of so many rows, evenly spread."""
    return torch.linspace(0, count - 1, min(LOOK_FRAMES, count)).long()


def _adam(parameters: list[Tensor], rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=rate, eps=1e-15, betas=(0.9, 0.999), fused=True)


def samplers_of(capture: Capture, config: TrainConfig) -> dict[str, Sampler]:
    """What draws the frames of a training: ``sampler``, and ``sampler_still`` where stills alone teach the scene."""
    # Frames are drawn on the CPU: the order is then the same on every device.
    random = torch.Generator().manual_seed(config.seed)
    frames = capture.frames
    column = {"uniform": "source", "balanced": "source"}.get(config.sampling, config.sampling)
    labels = [str(value) for value in frames[column]]  # no time is a label of its own
    weights = frames["weight"].tolist() if "weight" in frames else None
    how = "uniform" if config.sampling == "uniform" else "balanced"
    found = {"sampler": Sampler(labels, how, random, weights)}
    if config.canonical == "stills":
        rows = torch.nonzero(torch.isnan(capture.cameras.times)).flatten().tolist()
        if not rows:
            remedy = 'give stills no time (capture.with_times(None)), or leave canonical at "all"'
            raise InputError('is "stills", but every frame has a time', field="canonical", remedy=remedy)
        picked = None if weights is None else [weights[row] for row in rows]
        found["sampler_still"] = Sampler([labels[row] for row in rows], how, random, picked, rows=rows)
    return found


def degree_for(cameras: int) -> int:
    """The degree of spherical harmonics that so many cameras can tell from shape: 0 below 20, 1, 2 and from 100 on 3.

    A degree-d colour has (d + 1)^2 coefficients a channel, and a surface point is seen by about a third of the cameras.
    """
    return sum(cameras >= least for least in (20, 50, 100))
