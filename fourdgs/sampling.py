"""Which frames a training step sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Sampler:
    """An endless sequence of frame numbers, every frame of a group once before any comes again.

    Args:
        sources: the source of each frame.
        sampling: ``uniform`` (over frames) or ``balanced`` (over sources: one of 10 frames is seen as often as one of
            121).
        generator: the run's random numbers.
        weights: how often each frame comes, relative to the others (of its source, where sources are balanced).
            Frames of one weight are one group.
        rows: the frames' numbers; by default 0, 1, ...
    """

    def __init__(
        self,
        sources: Sequence[str],
        sampling: str,
        generator: torch.Generator,
        weights: Sequence[float] | None = None,
        rows: Sequence[int] | None = None,
    ):
        weights = [1.0] * len(sources) if weights is None else [float(weight) for weight in weights]
        labels = [source if sampling == "balanced" else "" for source in sources]
        totals = {label: sum(w for w, other in zip(weights, labels, strict=True) if other == label) for label in labels}
        groups: dict[tuple[str, float], list[int]] = {}
        numbers = range(len(labels)) if rows is None else rows
        for row, key in zip(numbers, zip(labels, weights, strict=True), strict=True):
            groups.setdefault(key, []).append(row)
        names = sorted(groups)
        self._groups = [torch.tensor(groups[name]) for name in names]
        self._shares = [weight * len(groups[label, weight]) / totals[label] / len(totals) for label, weight in names]
        self.generator = generator
        self._orders = [self._shuffled(group) for group in self._groups]
        self._places = [0] * len(names)
        self._credits = [0.0] * len(names)

    def _shuffled(self, group: Tensor) -> Tensor:
        return group[torch.randperm(len(group), generator=self.generator)]

    def next(self, count: int) -> Tensor:
        """The next ``count`` frame numbers, [count] int64."""
        chosen = []
        for _ in range(count):
            # The group that is owed most: no draw is ever more than one away from its share.
            self._credits = [credit + share for credit, share in zip(self._credits, self._shares, strict=True)]
            group = self._credits.index(max(self._credits))
            self._credits[group] -= 1
            if self._places[group] == len(self._orders[group]):
                self._orders[group] = self._shuffled(self._groups[group])
                self._places[group] = 0
            chosen.append(self._orders[group][self._places[group]])
            self._places[group] += 1
        return torch.stack(chosen)

    def state(self) -> dict[str, Tensor]:
        """Where the sequence stands, as tensors."""
        orders = {f"order{i}": order for i, order in enumerate(self._orders)}
        return {
            "places": torch.tensor(self._places),
            "credits": torch.tensor(self._credits, dtype=torch.float64),
        } | orders

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        self._places = state["places"].tolist()
        self._credits = state["credits"].tolist()
        self._orders = [state[f"order{i}"] for i in range(len(self._groups))]
