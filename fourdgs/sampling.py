"""Which frames a training step sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Sampler:
    """An endless sequence of frame numbers, every frame of a group once before any comes again.

    Args:
        sources: the source of each frame.
        sampling: ``uniform`` (all frames are one group) or ``balanced`` (each source is a group; groups take turns, so
            that a source of 10 frames is seen as often as one of 121).
        generator: the run's random numbers.
    """

    def __init__(self, sources: Sequence[str], sampling: str, generator: torch.Generator):
        names = sorted(set(sources)) if sampling == "balanced" else [None]
        self._groups = [
            torch.tensor([i for i, source in enumerate(sources) if name is None or source == name]) for name in names
        ]
        self.generator = generator
        self._orders = [self._shuffled(group) for group in self._groups]
        self._places = [0] * len(names)
        self._turn = 0

    def _shuffled(self, group: Tensor) -> Tensor:
        return group[torch.randperm(len(group), generator=self.generator)]

    def next(self, count: int) -> Tensor:
        """The next ``count`` frame numbers, [count] int64."""
        chosen = []
        for _ in range(count):
            group = self._turn % len(self._groups)
            self._turn += 1
            if self._places[group] == len(self._orders[group]):
                self._orders[group] = self._shuffled(self._groups[group])
                self._places[group] = 0
            chosen.append(self._orders[group][self._places[group]])
            self._places[group] += 1
        return torch.stack(chosen)

    def state(self) -> dict[str, Tensor]:
        """Where the sequence stands, as tensors."""
        places = torch.tensor([self._turn, *self._places])
        return {"places": places} | {f"order{i}": order for i, order in enumerate(self._orders)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        self._turn, *self._places = state["places"].tolist()
        self._orders = [state[f"order{i}"] for i in range(len(self._groups))]
