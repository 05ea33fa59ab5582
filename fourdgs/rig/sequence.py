"""A rig that plays a sequence of meshes of one topology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from .base import Rig
from .welding import weld_columns


class SequenceRig(Rig):
    """K meshes of V vertices, linear between their times and held beyond the ends; its one control is "time".

    Attributes:
        times: [K] rising, in [0, 1] where it plays a capture. frames: [K, V, 3]. The rest is the first of them.
    """

    kind: ClassVar[str] = "sequence"

    def __init__(
        self,
        controls: Sequence[str],
        vertices: int,
        faces: int,
        count: int,
        uv: bool = False,
        colors: bool = False,
    ):
        super().__init__(controls, vertices, faces, uv, colors)
        if len(self.controls) != 1:
            raise ValueError("a sequence has one control, time")
        self.register_buffer("times", torch.zeros(count))
        self.register_buffer("frames", torch.zeros(count, vertices, 3))

    @classmethod
    def make(
        cls, frames: Any, faces: Any, times: Any = None, *, weld: Any = None, uv: Any = None, colors: Any = None
    ) -> SequenceRig:
        """A rig from ``frames`` [K, V, 3] and their ``times`` [K], by default spread evenly over [0, 1].

        Raises:
            InputError: shapes do not fit, times do not rise, or a value is not finite.
        """
        frames = torch.as_tensor(frames)
        if frames.ndim != 3 or not len(frames):
            raise InputError(f"has shape {list(frames.shape)}, must be [K, V, 3]", field="vertices")
        rig = cls(("time",), frames.shape[1], len(faces), len(frames), uv is not None, colors is not None)
        rig._set(frames=frames, faces=faces, times=torch.linspace(0, 1, len(frames)) if times is None else times)
        rig._set(rest=frames[0], neutral=rig.times[:1], uv=uv, colors=colors)
        if (rig.times.diff() <= 0).any():
            raise InputError("do not rise from each to the next", field="times", remedy="sort the meshes by time")
        if weld is None:
            mix = torch.rand(2, len(frames), generator=torch.Generator().manual_seed(0)) / len(frames)
            weld = weld_columns(rig.rest, torch.einsum("kf,fvc->vkc", mix, rig.frames).flatten(1))
        rig._set(weld=weld)
        return rig

    def settings(self) -> dict:
        """The constructor's arguments."""
        return super().settings() | {"count": len(self.times)}

    def vertices(self, drive: Tensor) -> Tensor:
        """[T, V, 3] for ``drive`` [T, 1], a time each.

        Raises:
            InputError: ``drive`` has another number of columns.
        """
        time = self._values(drive)[:, 0] + self.neutral[0]
        if len(self.times) == 1:
            return self.frames.expand(len(time), -1, -1).clone()
        after = torch.searchsorted(self.times, time.detach(), right=True).clamp(1, len(self.times) - 1)
        start, end = self.times[after - 1], self.times[after]
        share = ((time - start) / (end - start)).clamp(0, 1)
        return torch.lerp(self.frames[after - 1], self.frames[after], share[:, None, None])
