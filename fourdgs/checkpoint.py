"""A training as it stands, on disk: everything that the rest of it depends on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import InputError
from .files import write_aside
from .gaussians import KEYS, Gaussians

if TYPE_CHECKING:
    from .trainer import Trainer


def save(trainer: Trainer, path: Path) -> None:
    """Write everything that the rest of the training depends on."""
    tensors = {f"parameter.{key}": trainer.parameters[key].detach() for key in KEYS}
    tensors |= {f"motion.{key}": value for key, value in trainer.motion.state_dict().items()}
    tensors |= {f"remedies.{key}": value for key, value in trainer.remedies.state_dict().items()}
    for name, optimiser in trainer.named_optimisers().items():
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{name}.{index}.{key}": value for key, value in state.items()}
    for kind, sampler in trainer.samplers.items():
        tensors |= {f"{kind}.{key}": value for key, value in sampler.state().items()}
    tensors["planned"] = trainer.planned
    tensors["random"] = trainer.generator.get_state()
    tensors["random_sampler"] = trainer.samplers["sampler"].generator.get_state()
    tensors["step"] = torch.tensor(trainer.step)
    tensors["seconds"] = torch.tensor([trainer.seconds, trainer.look_seconds], dtype=torch.float64)
    for place, key in enumerate(trainer.curve[0] if trainer.curve else ()):
        tensors[f"curve.{place}.{key}"] = torch.tensor([row[key] for row in trainer.curve], dtype=torch.float64)
    with write_aside(path) as aside:
        save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, aside)


def restore(trainer: Trainer, path: Path) -> None:
    """Go on from a checkpoint that `save` wrote.

    Raises:
        InputError: the file is damaged.
    """
    try:
        tensors = load_file(path)
        parameters = {key: tensors[f"parameter.{key}"].to(trainer.device) for key in KEYS}
        trainer.adopt(Gaussians(**parameters))
        trainer.motion.load_state_dict(_below(tensors, "motion."))
        if learned := _below(tensors, "remedies."):
            trainer.remedies.adopt(learned)
        for name, optimiser in trainer.named_optimisers().items():
            _restore_adam(optimiser, _below(tensors, f"adam.{name}."))
        for kind, sampler in trainer.samplers.items():
            sampler.restore(_below(tensors, f"{kind}."))
        trainer.expect(tensors["planned"])
        trainer.generator.set_state(tensors["random"])
        trainer.samplers["sampler"].generator.set_state(tensors["random_sampler"])
        trainer.step = int(tensors["step"])
        trainer.seconds, trainer.look_seconds = tensors["seconds"].tolist()
    except Exception as error:  # safetensors, torch and a missing key each have their own
        remedy = "delete it: the training then starts over"
        raise InputError(f"is no checkpoint that can be read: {error}", file=path, remedy=remedy) from error
    columns = {key[2:]: values.tolist() for key, values in sorted(_below(tensors, "curve.").items())}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    trainer.curve = [row | {"step": int(row["step"]), "gaussians": int(row["gaussians"])} for row in rows]


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _restore_adam(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
