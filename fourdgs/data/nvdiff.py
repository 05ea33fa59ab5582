"""Pictures of a mesh drawn on an NVIDIA GPU by nvdiffrast: the optional second engine of `orbit`.

nvdiffrast (Laine et al., Modular Primitives for High-Performance Differentiable Rendering, 2020) is not on PyPI and has
a licence of its own; nothing here needs it but this engine. It takes OpenGL clip coordinates, gives pictures from the
bottom row up, puts (0, 0) of a texture at its first row, and draws both sides of a triangle.

Vertices are posed and lit as for pyvista, and a pixel is the same mean of samples. What differs is how a texture is
filtered where mipmaps are on (no anisotropy here, and only as many levels as both extents halve evenly), and which of
two triangles owns a sample on their common edge.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import MissingDependency
from .meshes import Mesh
from .orbit import Stage

INSTALL = "pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast (0.3.3 or newer; mind its licence)"


def has_nvdiffrast() -> bool:
    """Whether the package and a CUDA device are there."""
    return importlib.util.find_spec("nvdiffrast") is not None and torch.cuda.is_available()


def require_nvdiffrast() -> None:
    """Make sure that this engine can draw.

    Raises:
        MissingDependency: the package or a CUDA device is missing.
    """
    if importlib.util.find_spec("nvdiffrast") is None:
        raise MissingDependency(f"the engine nvdiffrast needs the package of that name: {INSTALL}")
    if not torch.cuda.is_available():
        raise MissingDependency(
            "the engine nvdiffrast needs an NVIDIA GPU and a CUDA build of PyTorch; without them use engine='pyvista'"
        )


class NvdiffStage(Stage):
    """nvdiffrast's: the mesh and its textures on the device, one context for all pictures."""

    def __init__(
        self, mesh: Mesh, width: int, height: int, supersample: int, shading: bool, mipmaps: bool, device: str = "cuda"
    ):
        super().__init__(mesh, width, height, supersample, shading, mipmaps)
        import nvdiffrast.torch as dr

        self.dr, self.device = dr, torch.device(device)
        self.context = dr.RasterizeCudaContext(device=self.device)
        looks = mesh.looks()
        # Triangles of one texture lie together, so that a triangle's number says which texture it wears.
        self.triangles = self._tensor(np.concatenate([faces for faces, _ in looks]), torch.int32)  # [F, 3]
        self.uv = None if mesh.uv is None else self._tensor(mesh.uv, torch.float32)[None]  # [1, V, 2]
        self.pictures: list[tuple[int, int, Tensor]] = []  # first triangle, one past the last, [1, h, w, 3]
        start = 0
        for faces, picture in looks:
            if picture is not None:
                # The first row of nvdiffrast's textures is the bottom one.
                texels = self._tensor(np.ascontiguousarray(picture[::-1]), torch.float32)[None] / 255
                self.pictures.append((start, start + len(faces), texels))
            start += len(faces)

    def _tensor(self, values: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values)).to(self.device, dtype).contiguous()

    def _move(self, points: np.ndarray, colors: np.ndarray) -> None:
        ones = np.ones((len(points), 1))
        self.places = self._tensor(np.concatenate([points.astype(np.float64), ones], axis=1), torch.float64)  # [V, 4]
        self.shades = self._tensor(colors, torch.float32)[None] / 255  # [1, V, 3]

    def _draw(self, viewmat: np.ndarray, projection: np.ndarray, near: float, far: float) -> np.ndarray:
        clip = self._tensor(clip_matrix(viewmat, projection), torch.float64)
        # Multiplied in double precision, as the differences between the samples of a large picture are small.
        corners = (self.places @ clip.T).float()[None].contiguous()  # [1, V, 4]
        size = [self.height * self.supersample, self.width * self.supersample]
        hits, slopes = self.dr.rasterize(self.context, corners, self.triangles, resolution=size)
        colors, _ = self.dr.interpolate(self.shades, hits, self.triangles)  # [1, Hs, Ws, 3]
        triangle = hits[..., 3].long() - 1  # -1 where nothing is hit
        if self.pictures:
            uv, uv_slopes = self.dr.interpolate(self.uv, hits, self.triangles, rast_db=slopes, diff_attrs="all")
            for first, end, texels in self.pictures:
                worn = self._worn(texels, uv.contiguous(), uv_slopes.contiguous())
                inside = ((triangle >= first) & (triangle < end))[..., None]
                colors = torch.where(inside, colors * worn, colors)
        covered = (triangle >= 0)[0]  # [Hs, Ws]
        # Eight bits a sample, as in the frame buffer that pyvista's pictures are read from.
        samples = (colors[0].clamp(0, 1) * 255).round().int() * covered[..., None]
        return average(samples, covered, self.supersample).cpu().numpy()

    def _worn(self, texels: Tensor, uv: Tensor, uv_slopes: Tensor) -> Tensor:
        """[1, Hs, Ws, 3]: a texture at uv [1, Hs, Ws, 2]."""
        if not self.mipmaps:
            return self.dr.texture(texels, uv, filter_mode="linear", boundary_mode="wrap")
        levels = mip_levels(*texels.shape[1:3])
        return self.dr.texture(
            texels, uv, uv_slopes, filter_mode="linear-mipmap-linear", boundary_mode="wrap", max_mip_level=levels
        )


def clip_matrix(viewmat: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """[4, 4] from world to OpenGL clip coordinates.

    Args:
        viewmat: [4, 4] world-to-camera, OpenCV axes. projection: [4, 4], for OpenGL axes (y up, z backward).
    """
    return projection @ np.diag([1.0, -1.0, -1.0, 1.0]) @ viewmat


def mip_levels(height: int, width: int) -> int:
    """How often both extents of a texture halve evenly (an extent of 1 stays), which is all that nvdiffrast allows."""
    levels = 0
    while max(height, width) > 1 and all(extent == 1 or extent % 2 == 0 for extent in (height, width)):
        height, width, levels = max(height // 2, 1), max(width // 2, 1), levels + 1
    return levels


def average(colors: Tensor, covered: Tensor, scale: int) -> Tensor:
    """Pixels from samples, exactly as for pyvista: the mean colour of the covered samples, and their share as alpha.

    Args:
        colors: [H s, W s, 3] int in [0, 255], 0 where not covered. covered: [H s, W s] bool. Both bottom row first.
        scale: s.

    Returns:
        [H, W, 4] uint8, straight alpha, top row first.
    """

    def total(values: Any) -> Tensor:
        height, width = values.shape[0] // scale, values.shape[1] // scale
        return values.reshape(height, scale, width, scale, -1).long().sum(dim=(1, 3)).flip(0)  # [H, W, channels]

    count = total(covered)
    color = torch.where(count > 0, (2 * total(colors) + count) // (2 * count).clamp(min=1), 0)
    alpha = (2 * 255 * count + scale**2) // (2 * scale**2)
    return torch.cat([color, alpha], dim=-1).to(torch.uint8)
