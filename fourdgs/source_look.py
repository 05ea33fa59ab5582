"""What a source does to colours and what stands behind its subject, learned with the model and dropped at test.

Pictures of one subject from two sources (an orbit of still frames, a clip of a phone) differ in white balance and in
backdrop. A model that must explain both with one set of Gaussians paints the difference into the air. Here each source
has an affine map of its colours, in the manner of the appearance terms of "NeRF in the Wild" (Martin-Brualla et al.,
CVPR 2021, section 4.1) with the twelve numbers of a colour matrix in place of an embedding (Rematas et al., "Urban
Radiance Fields", CVPR 2022, section 4.2), and a backdrop that varies slowly over the picture. One source is the
reference: it stays as it is, and the model is in its colours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .capture import Capture
from .errors import InputError

_LOOKED_AT = 8  # frames of a source, for its masks and its backdrop


class SourceLook(nn.Module):
    """An affine colour map and a backdrop for each of S sources; the identity over ``background`` at the start.

    Colours go through ``A c + b``. It is linear, so mapping the composited picture of the Gaussians is the same as
    mapping the colour of each. The backdrop is a polynomial in the pixel's place, with 1, 3, 6 or 10 coefficients a
    channel for degree 0 to 3 (products of Legendre polynomials over the picture, [-1, 1] each way).

    Args:
        sources: their names, each once.
        reference: the one that stays the identity over ``background``; it gets no gradient.
        background: [3], behind the reference and the other ``matted`` sources, in [0, 1].
        matted: sources with a mask, composited over ``background``: only their colours are learned.
        degree: of the backdrop, 0 (flat) to 3.
        starts: first backdrop of the sources without a mask, by name; by default ``background``.

    Raises:
        InputError: a source that is there twice or not at all, or a degree that cannot be.
    """

    def __init__(
        self,
        sources: Sequence[str],
        reference: str,
        *,
        background: Sequence[float] = (1.0, 1.0, 1.0),
        matted: Sequence[str] = (),
        degree: int = 0,
        starts: dict[str, Sequence[float]] | None = None,
    ):
        super().__init__()
        names = list(sources)
        starts = {} if starts is None else starts
        if len(set(names)) != len(names) or not names:
            raise InputError(f"are {names}, must be names, each once", field="sources")
        strangers = sorted({reference, *matted, *starts} - set(names))
        if strangers:
            remedy = f"there are {', '.join(names)}"
            raise InputError(f"there is no source {strangers[0]!r}", field="reference", remedy=remedy)
        if degree not in (0, 1, 2, 3):
            raise InputError(f"is {degree!r}, must be 0, 1, 2 or 3", field="degree", remedy="0 is flat")
        self.sources, self.reference, self.degree = tuple(names), reference, int(degree)
        behind = torch.tensor([list(starts.get(name, background)) for name in names], dtype=torch.float32)
        fixed = [name == reference or name in matted for name in names]
        behind[torch.tensor(fixed)] = torch.tensor(list(background), dtype=torch.float32)
        self.colour = nn.Parameter(torch.zeros(len(names), 3, 4))  # what is added to the identity
        self.backdrop = nn.Parameter(torch.zeros(len(names), (degree + 1) * (degree + 2) // 2, 3))
        self.register_buffer("behind", behind)  # [S, 3]
        self.register_buffer("coloured", torch.tensor([float(name != reference) for name in names])[:, None, None])
        self.register_buffer("backed", torch.tensor([float(not each) for each in fixed])[:, None, None])
        self.register_buffer("identity", torch.eye(3, 4))

    @staticmethod
    def of(
        capture: Capture,
        *,
        reference: str | None = None,
        background: Sequence[float] = (1.0, 1.0, 1.0),
        degree: int = 0,
    ) -> SourceLook:
        """For the sources of a capture; backdrops start at the median colour of the pictures' edges.

        Args:
            reference: by default `reference_source`.
        """
        matted = [name for name in capture.sources if _matted(capture, name)]
        plain = [name for name in capture.sources if name not in matted]
        return SourceLook(
            capture.sources,
            reference_source(capture) if reference is None else reference,
            background=background,
            matted=matted,
            degree=degree,
            starts={name: _edge(capture, name) for name in plain},
        )

    def rows(self, sources: Sequence[str]) -> Tensor:
        """The numbers [n] int64 of sources by name, as `apply` takes them. Raises InputError for an unknown one."""
        places = {name: row for row, name in enumerate(self.sources)}
        strangers = sorted(set(sources) - set(places))
        if strangers:
            remedy = f"there are {', '.join(self.sources)}"
            raise InputError(f"there is no source {strangers[0]!r}", field="source", remedy=remedy)
        return torch.tensor([places[name] for name in sources], device=self.behind.device)

    def matrices(self) -> Tensor:
        """The colour maps [S, 3, 4] (A | b); the reference's is the identity."""
        return self.identity + self.coloured * self.colour

    def backdrops(self, width: int, height: int) -> Tensor:
        """What stands behind each source, [S, height, width, 3]."""
        return self._behind(torch.arange(len(self.sources), device=self.behind.device), width, height)

    def apply(self, rgb: Tensor, alpha: Tensor, sources: Tensor) -> Tensor:  # unlike nn.Module's, of pictures
        """Pictures as their sources would show them, [B, H, W, 3]; nothing waits for a GPU.

        Args:
            rgb: [B, H, W, 3], composited over nothing (black): the sum of weight times colour.
            alpha: [B, H, W, 1], the sum of the weights.
            sources: [B] int64 on the same device, see `rows`.
        """
        maps = self.matrices()[sources]  # [B, 3, 4]
        inputs = torch.cat([rgb, alpha], dim=-1).flatten(1, 2)  # [B, H * W, 4]: b goes with the weights' sum
        mapped = torch.bmm(inputs, maps.transpose(1, 2)).view_as(rgb)
        height, width = rgb.shape[1:3]
        return mapped + (1 - alpha) * self._behind(sources, width, height)

    forward = apply

    def _behind(self, sources: Tensor, width: int, height: int) -> Tensor:
        """[B, H, W, 3], or [B, 1, 1, 3] where it is flat."""
        waves = (self.backed * self.backdrop)[sources]  # [B, K, 3]
        flat = self.behind[sources][:, None, None]  # [B, 1, 1, 3]
        if self.degree == 0:
            return (flat + waves[:, :1, None]).expand(-1, height, width, -1)
        basis = _basis(self.degree, width, height, self.behind.device)  # [H * W, K]
        return flat + (basis @ waves).view(len(sources), height, width, 3)

    def regularisation(self) -> Tensor:
        """How far the looks are from none: mean squares of the colour maps' offsets and of what varies in backdrops.

        Means over the sources that have them, so that the weight does not depend on how many there are. A flat
        backdrop is free: nothing is known of it beforehand.
        """
        colours = (self.coloured * self.colour).square().mean((1, 2)).sum() / self.coloured.sum().clamp(min=1)
        if self.degree == 0:
            return colours
        waves = (self.backed * self.backdrop)[:, 1:].square().mean((1, 2)).sum() / self.backed.sum().clamp(min=1)
        return colours + waves


def reference_source(capture: Capture) -> str:
    """The source whose colours the model is in: of those with masks (of all, where none has), that of most cameras.

    Where as many cameras are left, the one with fewer frames (a clip has many of one camera), then the first name.
    """
    matted = [name for name in capture.sources if _matted(capture, name)]
    of_each = capture.frames.groupby("source")
    cameras, frames = of_each["camera"].nunique(), of_each.size()
    return min(matted or capture.sources, key=lambda name: (-cameras[name], frames[name], name))


def _some(capture: Capture, source: str) -> Capture:
    rows = np.flatnonzero((capture.frames["source"] == source).to_numpy())
    return capture.select(rows=rows[np.linspace(0, len(rows) - 1, min(_LOOKED_AT, len(rows))).astype(int)])


def _matted(capture: Capture, source: str) -> bool:
    """Whether the pictures of a source have background taken away, by the pixels: alpha may be there and opaque."""
    some = _some(capture, source)
    if not some.has_alpha:
        return False
    return any(float(some.alpha(row).min()) < 0.5 for row in range(len(some)))


def _edge(capture: Capture, source: str) -> list[float]:
    """The median colour [3] of the outermost pixels of some pictures, in [0, 1]: most of them show the backdrop."""
    some, edges = _some(capture, source), []
    for row in range(len(some)):
        picture = some.image(row)
        edges += [picture[0], picture[:, 0], picture[:, -1]]  # the lower edge often cuts through the subject
    return np.median(np.concatenate(edges), axis=0).tolist()


@functools.lru_cache(maxsize=8)
def _basis(degree: int, width: int, height: int, device: torch.device) -> Tensor:
    """[height * width, K] products of Legendre polynomials of total degree up to ``degree``, the constant first."""
    x, y = (((torch.arange(size, device=device) + 0.5) * 2 / size - 1) for size in (width, height))

    def legendre(t: Tensor) -> list[Tensor]:
        return [torch.ones_like(t), t, (3 * t**2 - 1) / 2, (5 * t**3 - 3 * t) / 2]

    across, down = legendre(x), legendre(y)
    pairs = [(i, total - i) for total in range(degree + 1) for i in range(total + 1)]
    return torch.stack([down[j][:, None] * across[i] for i, j in pairs], dim=-1).flatten(0, 1)
