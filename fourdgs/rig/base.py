"""Rigs: meshes that named controls pose, batched and differentiable, in one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..drive.names import near_names, plain_name
from ..errors import InputError
from ..headed import headed, save_headed

if TYPE_CHECKING:
    from ..data.meshes import Mesh

KINDS: dict[str, type[Rig]] = {}
"""The kinds of rigs by name; a subclass with a ``kind`` of its own puts itself in."""


class Rig(nn.Module):
    """V vertices and F triangles that A named controls move; world units, y up, the face towards +z.

    Attributes:
        controls: the A names: face actions as ARKit names them, head angles in degrees (`fourdgs.data.track.HEAD`).
        rest: [V, 3] the vertices at ``neutral``. neutral: [A]. faces: [F, 3] int64, seen from outside
            anticlockwise. weld: [V] int64, equal for vertices that are one place in every pose.
        uv: [V, 2], (0, 0) at the texture's left-bottom, or None. colors: [V, 3] uint8 sRGB, or None.
    """

    kind: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.kind:
            KINDS[cls.kind] = cls

    def __init__(self, controls: Sequence[str], vertices: int, faces: int, uv: bool = False, colors: bool = False):
        super().__init__()
        self.controls = tuple(controls)
        if len(set(self.controls)) < len(self.controls):
            twice = next(name for name in self.controls if self.controls.count(name) > 1)
            raise InputError(
                f"{twice!r} is there twice", field="controls", remedy="give each control a name of its own"
            )
        self._column = {name: column for column, name in enumerate(self.controls)}
        self.register_buffer("neutral", torch.zeros(len(self.controls)))
        self.register_buffer("rest", torch.zeros(vertices, 3))
        self.register_buffer("faces", torch.zeros(faces, 3, dtype=torch.int64))
        self.register_buffer("weld", torch.zeros(vertices, dtype=torch.int64))
        self.register_buffer("uv", torch.zeros(vertices, 2) if uv else None)
        self.register_buffer("colors", torch.zeros(vertices, 3, dtype=torch.uint8) if colors else None)

    def vertices(self, drive: Tensor) -> Tensor:
        """[T, V, 3] for ``drive`` [T, A], on the rig's device; differentiable in ``drive``."""
        raise TypeError(f"{type(self).__name__} does not say where its vertices are")

    def forward(self, drive: Tensor) -> Tensor:
        """The same as `vertices`."""
        return self.vertices(drive)

    def drive(self, values: Mapping[str, float]) -> Tensor:
        """[A] for named values, the others neutral; names in the spelling of another maker are understood.

        Raises:
            InputError: a name is unknown, or a value is not a number.
        """
        row = self.neutral.tolist()
        for name, value in values.items():
            column = self._column.get(name, self._column.get(plain_name(name)))
            if column is None:
                raise InputError(f"{name!r} is unknown", field="drive", remedy=near_names(name, self.controls))
            try:
                row[column] = float(value)
            except (TypeError, ValueError):
                raise InputError(f"is {value!r}, must be a number", field=f"drive.{name}") from None
        return torch.tensor(row, dtype=self.rest.dtype, device=self.rest.device)

    def settings(self) -> dict:
        """What the constructor needs to make this rig again, as JSON values; the tensors are its buffers."""
        return {
            "controls": list(self.controls),
            "vertices": len(self.rest),
            "faces": len(self.faces),
            "uv": self.uv is not None,
            "colors": self.colors is not None,
        }

    def mesh(self, performance: Callable[[float], Mapping[str, float]] | None = None) -> Mesh:
        """For `orbit.render_mesh`: still, or moved by ``performance``, a time in [0, 1] -> named values."""
        from ..data.meshes import Mesh

        def moved(time: float | None):
            if time is None:
                return rest
            with torch.no_grad():
                return self.vertices(self.drive(performance(time))[None])[0].cpu().numpy()

        rest = self.rest.cpu().numpy()
        uv, colors = (None if part is None else part.cpu().numpy() for part in (self.uv, self.colors))
        motion = None if performance is None else moved
        return Mesh(rest, self.faces.cpu().numpy(), uv, None, colors, motion, self.weld.cpu().numpy())

    def save(self, path: str | Path) -> None:
        """Write the rig as one safetensors file, whole or not at all."""
        save_headed(path, {"rig": self.kind, "settings": self.settings()}, self.state_dict())

    def _set(self, **tensors: Any) -> None:
        """Fill buffers, checked for shape; None leaves one as it is."""
        for name, value in tensors.items():
            if value is None:
                continue
            buffer = getattr(self, name)
            # A copy of what is no tensor: torch takes no array that runs backwards.
            value = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
            if value.shape != buffer.shape:
                raise InputError(f"has shape {list(value.shape)}, must be {list(buffer.shape)}", field=name)
            if not torch.isfinite(value).all():
                raise InputError("holds a value that is not finite", field=name)
            buffer.copy_(value)
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < len(self.rest):
            raise InputError(f"a triangle names a vertex outside 0 to {len(self.rest) - 1}", field="faces")

    def _values(self, drive: Tensor) -> Tensor:
        """``drive`` checked for its width, less ``neutral``."""
        if drive.ndim != 2 or drive.shape[1] != len(self.controls):
            shape = ["T", len(self.controls)]
            raise InputError(f"has shape {list(drive.shape)}, must be {shape}", field="drive", remedy="use drive()")
        return drive.to(self.neutral) - self.neutral


def make_rig(kind: str, settings: dict) -> Rig:
    """A rig of a kind, its buffers still to be loaded.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"{kind!r} is unknown", field="rig", remedy=f"use {' or '.join(KINDS)}")
    return KINDS[kind](**settings)


def read_rig(path: str | Path) -> Rig:
    """A rig that `Rig.save` wrote.

    Raises:
        InputError: the file is missing, damaged, or not a rig.
    """
    with headed(path, "a rig", "give a file written by Rig.save") as (about, tensors):
        rig = make_rig(about["rig"], about["settings"])
        rig.load_state_dict(tensors)
    return rig
