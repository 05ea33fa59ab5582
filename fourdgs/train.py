"""Training: from a capture and a config to a run on disk that can be stopped and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from .cameras import Views
from .capture import Capture, true_pictures
from .choose_motion import choose_motion
from .config import TrainConfig
from .cuda.available import fused
from .densify import Budget
from .errors import InputError, OutOfMemory
from .feed import Feed
from .files import write_aside
from .gaussians import KEYS, Gaussians, initial_gaussians, look_at_point
from .hypothesis import Hypothesis
from .losses import photometric_to
from .metrics import psnr_db
from .model import Model, render_gaussians
from .motions import motion_for
from .runs import Run, write_table
from .sampling import Sampler
from .sessions import LOGGER, describe, hold, stands_finished

LOOK_FRAMES = 8  # of each kind, at every look at the curve
PLANNED = 64  # steps whose frames are drawn at once
MOVES = "motion."  # before the names of a motion model's parameters


def train(
    capture: Capture,
    config: TrainConfig,
    out: str | Path,
    *,
    held_out: Capture | None = None,
    overwrite: bool = False,
    progress: bool | Callable[[int], None] = True,
    device: str | torch.device | None = None,
    hypothesis: str | Path | Hypothesis | None = None,
) -> Run:
    """Train a model on every frame of ``capture``.

    A folder that already holds the finished run of the same config on the same capture is returned as it is; an
    unfinished one goes on from its last checkpoint, with the same result as if it had never stopped (on the CPU).
    Where another process trains this very run, this one waits for it. The folder's ``log.txt`` has the library's
    messages and Python's warnings; ``$FOURDGS_PRICE_PER_HOUR``, or `runs.set_price` afterwards, gives the run a cost.

    Args:
        capture: the training frames; select them before (``capture.select(split="train")``).
        config: the settings.
        out: the run's folder.
        held_out: frames never trained on; a few of them are rendered for the curve every ``evaluate_every`` steps.
        progress: a bar, nothing, or a function that is told of the steps taken as they are taken.
        overwrite: replace another run that stands in ``out``, unless it was promoted.
        device: ``cpu`` or ``cuda``; by default CUDA where there is one.
        hypothesis: what was written down before the run, or its file (see `hypothesis.register`); by default
            ``hypothesis.json`` beside ``out``, where there is one. Its words go into ``run.json``.

    Raises:
        InputError: ``out`` holds a run of another config or capture, or its checkpoint is damaged; a hypothesis that
            cannot be read.
        OutputError: the folder cannot be written.
        OutOfMemory: the GPU's memory is too small; the text says what to lower.
    """
    out = Path(out)
    if config.motion == "auto":
        choice = choose_motion(capture)
        config = replace(config, motion=choice.name)
        LOGGER.info(f"motion {choice.name}: {choice.reason}")
        if progress is True:
            tqdm.write(f"{out.name}: motion {choice.name}. {choice.reason}")
    identity = {"config": config.to_dict(), "capture": describe(capture)}
    if stands_finished(out, identity):
        return _nothing_to_do(out, progress)

    def waiting() -> None:
        tqdm.write(f"{out.name}: waiting for another process, which trains this run")

    with hold(
        out, identity, capture, held_out=held_out, overwrite=overwrite, hypothesis=hypothesis, waiting=waiting
    ) as session:
        if session.done:
            return _nothing_to_do(out, progress)
        with session.phase("data"):
            trainer = Trainer(capture, config, _device(device))
            checkpoint = out / "checkpoint.safetensors"
            if checkpoint.exists():
                trainer.restore(checkpoint)
        session.goes_on(trainer.step)
        try:
            trainer.run(out, held_out, progress)
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemory(_too_much(trainer, capture)) from error
        finally:
            session.seconds |= {"train": trainer.seconds, "look": trainer.look_seconds}
        trainer.model().save(out / "model.safetensors")
        write_table(out / "curve.csv", pd.DataFrame(trainer.curve))
        session.finish(gaussians=len(trainer.parameters["means"]))
    return Run(out)


def _device(wanted: str | torch.device | None) -> torch.device:
    there = torch.cuda.is_available()
    device = torch.device(wanted or ("cuda" if there else "cpu"))
    if device.type == "cuda" and not there:
        lacks = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        remedy = "leave it out to train on the CPU, or install torch with CUDA and a driver for it (nvidia-smi)"
        raise InputError(f"is {str(device)!r}, but {lacks}", field="device", remedy=remedy)
    return device


def _too_much(trainer: Trainer, capture: Capture) -> str:
    """What to do where a GPU's memory was not enough."""
    config, free = trainer.config, torch.cuda.mem_get_info()
    size = f"{capture.frames.width.max()} x {capture.frames.height.max()}"
    return (
        f"the GPU's memory ran out at step {trainer.step} of {config.iterations} ({free[1] / 2**30:.1f} GB in all, "
        f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB of it used here): lower batch ({config.batch}), gaussians "
        f"({config.gaussians}) or the pictures' size ({size}, capture.scaled(0.5)), or end what else runs there"
    )


def _nothing_to_do(out: Path, progress: bool | Callable[[int], None]) -> Run:
    if progress is True:
        tqdm.write(f"{out.name}: finished already; nothing to train")
    return Run(out)


class Trainer:
    """The state of one training: parameters, optimisers, sampler, random numbers, curve."""

    def __init__(self, capture: Capture, config: TrainConfig, device: torch.device):
        self.config, self.device, self.step = config, device, 0
        self.seconds = self.look_seconds = 0.0
        self.curve: list[dict] = []
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.views = capture.cameras.views().to(device)
        self.background = torch.tensor(config.background, device=device)
        self.feed = Feed(true_pictures(*capture.pictures(), self.background.cpu()), device)
        LOGGER.info(self.feed.where)
        self._planned = torch.empty(0, config.batch, dtype=torch.int64)
        # Frames are drawn on the CPU: the order is then the same on every device.
        weights = capture.frames["weight"].tolist() if "weight" in capture.frames else None
        self.sampler = Sampler(
            capture.frames["source"].tolist(), config.sampling, torch.Generator().manual_seed(config.seed), weights
        )
        centre, self.radius = look_at_point(capture)
        count = max(4, round(config.gaussians * config.initial))
        start = initial_gaussians(capture, count, how=config.init, sh_degree=config.sh_degree, seed=config.seed)
        self.motion = motion_for(config, capture, centre, self.radius).to(device)
        self._adopt(start.to(device))

    def _adopt(self, gaussians: Gaussians) -> None:
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
        self.budget = Budget(self.parameters, self.optimisers, self.generator, config.gaussians)

    def gaussians(self) -> Gaussians:
        """The parameters as Gaussians that gradients flow into."""
        return Gaussians(**{key: self.parameters[key] for key in KEYS})

    def model(self) -> Model:
        """The model as it stands, detached."""
        still = Gaussians(**{key: self.parameters[key].detach() for key in KEYS})
        return Model(still, self.motion, self.config.background)

    @property
    def warm(self) -> bool:
        """Whether the static warm-up is over."""
        return self.step >= self.config.warmup * self.config.iterations

    def run(self, out: Path, held_out: Capture | None, progress: bool | Callable[[int], None]) -> None:
        """Steps until the end, with checkpoints and looks at the curve."""
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
        looked_at = None if held_out is None or not config.evaluate_every else self._to_look_at(held_out)
        with bar:
            while self.step < config.iterations:
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
                    self.save(out / "checkpoint.safetensors")

    def take_step(self) -> Tensor:
        """One optimiser step; the loss, a scalar."""
        config = self.config
        self._schedule()
        if not len(self._planned):
            self._plan()
        store, rows = self.feed.next()
        views = self._coming.take(-len(self._planned))
        self._planned = self._planned[1:]
        moving = self.warm and self.motion.moves
        posed = self.motion.pose(self.gaussians(), views.times) if moving else self.gaussians()
        rendered, _ = render_gaussians(posed, views, self.background)
        loss = photometric_to(rendered, store, rows, config.ssim_weight)
        loss = loss + self._penalties(views.times, posed if moving else None)
        loss.backward()
        self._descend([*self.optimisers.values(), *(self.field_optimisers if moving else [])])
        self.step += 1
        share = self.step / config.iterations
        if share <= config.refine_until:
            if config.noise:
                self.budget.explore(config.noise * self.optimisers["means"].param_groups[0]["lr"])
            if self.step % config.refine_every == 0:
                self.budget.refine()
                self.motion.adopt({name: self.parameters[MOVES + name] for name in self.motion.per_gaussian()})
        return loss

    def _penalties(self, times: Tensor, posed: Gaussians | None) -> Tensor:
        """What lets unneeded Gaussians die, and keeps motion smooth and small; a scalar. None: nothing moves yet.

        Motion that no camera sees, along a ray or behind the subject, has next to no gradient; Adam makes steps of its
        noise nevertheless, and it drifts. A penalty on distances, not their squares, holds what is not seen to move.
        """
        config, gaussians = self.config, self.gaussians()
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
        if posed is not None and config.rest_penalty and posed.means.dim() == 3:
            moved = (posed.means - gaussians.means).square().sum(-1)  # [T, N]
            # Rounded off at a ten-thousandth of the radius: the root has no slope at zero.
            total = total + config.rest_penalty * (moved / self.radius**2 + 1e-8).sqrt().mean()
        return total

    def _plan(self) -> None:
        """Draw the frames of the coming steps, so that they can be sent for, and the host be left alone."""
        steps = min(PLANNED, max(1, self.config.iterations - self.step))
        self._expect(torch.stack([self.sampler.next(self.config.batch) for _ in range(steps)]))

    def _expect(self, planned: Tensor) -> None:
        """Send for what the coming steps see, frames [steps, B]: cameras of all at once, pictures one step ahead."""
        self._planned = planned
        self._coming = self.views.take(planned.to(self.device))  # tensors [steps, B, ...]
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

    def _look(self, loss: float, held_out: tuple[Views, Tensor] | None) -> None:
        """A row of the curve; its time is kept apart from the training's."""
        begun = time.perf_counter()
        row = {"step": self.step, "seconds": self.seconds, "loss": loss, "gaussians": len(self.parameters["means"])}
        rows = _spread(len(self.feed))
        truth = self.feed.pictures(rows).float() / 255
        row["psnr_train_db"] = self._psnr(self.views.take(rows.to(self.device)), truth)
        if held_out is not None:
            row["psnr_db"] = self._psnr(*held_out)
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

    def save(self, path: Path) -> None:
        """Write everything that the rest of the training depends on."""
        tensors = {f"parameter.{key}": self.parameters[key].detach() for key in KEYS}
        tensors |= {f"motion.{key}": value for key, value in self.motion.state_dict().items()}
        for name, optimiser in self._named_optimisers().items():
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"adam.{name}.{index}.{key}": value for key, value in state.items()}
        tensors |= {f"sampler.{key}": value for key, value in self.sampler.state().items()}
        tensors["planned"] = self._planned
        tensors["random"] = self.generator.get_state()
        tensors["random_sampler"] = self.sampler.generator.get_state()
        tensors["step"] = torch.tensor(self.step)
        tensors["seconds"] = torch.tensor([self.seconds, self.look_seconds], dtype=torch.float64)
        for place, key in enumerate(self.curve[0] if self.curve else ()):
            tensors[f"curve.{place}.{key}"] = torch.tensor([row[key] for row in self.curve], dtype=torch.float64)
        with write_aside(path) as aside:
            save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, aside)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint that `save` wrote.

        Raises:
            InputError: the file is damaged.
        """
        try:
            tensors = load_file(path)
            parameters = {key: tensors[f"parameter.{key}"].to(self.device) for key in KEYS}
            self._adopt(Gaussians(**parameters))
            self.motion.load_state_dict(_below(tensors, "motion."))
            for name, optimiser in self._named_optimisers().items():
                _restore_adam(optimiser, _below(tensors, f"adam.{name}."))
            self.sampler.restore(_below(tensors, "sampler."))
            self._expect(tensors["planned"])
            self.generator.set_state(tensors["random"])
            self.sampler.generator.set_state(tensors["random_sampler"])
            self.step = int(tensors["step"])
            self.seconds, self.look_seconds = tensors["seconds"].tolist()
        except Exception as error:  # safetensors, torch and a missing key each have their own
            remedy = "delete it: the training then starts over"
            raise InputError(f"is no checkpoint that can be read: {error}", file=path, remedy=remedy) from error
        columns = {key[2:]: values.tolist() for key, values in sorted(_below(tensors, "curve.").items())}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        self.curve = [row | {"step": int(row["step"]), "gaussians": int(row["gaussians"])} for row in rows]

    def _named_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return self.optimisers | {f"field{index}": value for index, value in enumerate(self.field_optimisers)}


def _spread(count: int) -> Tensor:
    """At most `LOOK_FRAMES` of so many rows, evenly spread."""
    return torch.linspace(0, count - 1, min(LOOK_FRAMES, count)).long()


def _adam(parameters: list[Tensor], rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=rate, eps=1e-15, betas=(0.9, 0.999), fused=True)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _restore_adam(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
