"""A rig carried over to a still mesh: poses of both, and where the mesh's are guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from ..errors import InputError
from .pictures import as_picture, draw_picture
from .style import SHEET_WIDTH, VERMILION, style


def transfer_sheet(titles: Sequence[str], source: Sequence[Any], made: Sequence[Any], unsure: Sequence[Any]) -> Figure:
    """The source's poses above the mesh's, and to the right the mesh coloured by how unsure its motion is.

    Args:
        titles: of the P poses. source, made: P pictures each, [H, W, 3] or [H, W, 4]. unsure: two pictures, from the
            front and from the side.
    """
    if not len(titles) == len(source) == len(made) or len(unsure) != 2 or not titles:
        sizes = f"{len(titles)} titles, {len(source)} and {len(made)} poses, {len(unsure)} unsure"
        raise InputError(
            f"pictures do not go together: {sizes}", field="made", remedy="as many poses of both, 2 unsure"
        )
    columns = len(titles) + 1
    cell = SHEET_WIDTH / (columns + 0.35)
    with style():
        fig = Figure(figsize=(SHEET_WIDTH, 2 * cell + 0.3), layout="constrained")
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
        axes = fig.subplots(2, columns)
        for row, pictures in enumerate((source, made)):
            for axis, picture in zip(axes[row], pictures, strict=False):
                draw_picture(axis, as_picture(picture))
            draw_picture(axes[row, -1], as_picture(unsure[row]))
        for axis, title in zip(axes[0], (*titles, "how unsure"), strict=True):
            axis.set_title(title, fontsize=8.5, fontweight="normal", loc="center", pad=3)
        for row, name in enumerate(("the rig", "the mesh")):
            axes[row, 0].set_ylabel(name, fontsize=9)
        scale = LinearSegmentedColormap.from_list("unsure", ["#e1e1e1", VERMILION])
        bar = fig.colorbar(ScalarMappable(Normalize(0, 1), scale), ax=list(axes[:, -1]), fraction=0.08, aspect=24)
        bar.set_ticks([0, 1], labels=["0", "1"])
    return fig
