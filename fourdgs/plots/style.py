"""The house style of the figures, their colours, and the one way to show them."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .. import files
from ..errors import InputError

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, YELLOW, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#C8B400", "#222222",
)  # fmt: skip
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, YELLOW, BLACK)
MARKERS = "osD^vPX*"
KNOWN_SOURCES = {
    "orbit": BLUE, "clip": VERMILION, "clip_clean": ORANGE, "grid": GREEN, "still": PURPLE, "talking": SKY,
}  # fmt: skip
GREY = "#767676"  # the lightest grey that still reads as text on white (4.5 : 1)
CHART_WIDTH = 7.6  # inches: 760 CSS pixels, the text column of a report
SHEET_WIDTH = 10.0  # inches: 1000 CSS pixels, the widest a report shows
_AREAS, _NEAR = 24, 9  # colours that areas of a chart may have; levels of 255 that one may be off
_MANY = 1000  # colours of areas that no chart has, but every sheet of pictures

_FOLDER: ContextVar[Path | None] = ContextVar("fourdgs_figures", default=None)
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 10,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#333333",
    "ytick.labelcolor": "#333333",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: half the size, and it can be searched
    "svg.hashsalt": "fourdgs",  # the same figure gives the same file
    "image.interpolation": "none",
}


def style() -> contextlib.AbstractContextManager[None]:
    """The house style, as a context: ``with plots.style(): ...`` for figures made elsewhere."""
    return mpl.rc_context({**mpl.rcParamsDefault, "backend": mpl.rcParams["backend"], **_STYLE})


def colors_for(names: Sequence[str]) -> dict[str, str]:
    """A colour for each distinct name: known sources keep theirs, others take the free ones in order."""
    distinct = list(dict.fromkeys(str(name) for name in names))
    taken = {KNOWN_SOURCES[name] for name in distinct if name in KNOWN_SOURCES}
    free = [color for color in PALETTE if color not in taken] or list(PALETTE)
    colors: dict[str, str] = {}
    for name in distinct:
        others = len([seen for seen in colors if seen not in KNOWN_SOURCES])
        colors[name] = KNOWN_SOURCES.get(name, free[others % len(free)])
    return colors


@contextlib.contextmanager
def figures_into(folder: str | Path) -> Iterator[Path]:
    """Within the block `show` writes its files into ``folder`` (a headless run sets ``FOURDGS_FIGURES`` instead)."""
    token = _FOLDER.set(Path(folder))
    try:
        yield Path(folder)
    finally:
        _FOLDER.reset(token)


def show(fig: Figure, name: str, alt: str, caption: str = "") -> None:
    """Show a figure under a stable name: in a notebook as a picture with its caption, headless also as files.

    Files ``<name>.png`` (of 256 colours at most) and ``<name>.svg`` go into the folder of `figures_into` or, failing
    that, of the environment variable ``FOURDGS_FIGURES``; with neither, nothing is written.

    Args:
        name: lower-case letters, digits and hyphens; unique within a report, since it names the files.
        alt: what a reader who cannot see the figure has to know.
        caption: printed under the figure; Markdown.

    Raises:
        InputError: a name that is no file name, or no alt text.
        OutputError: the folder cannot be written.
    """
    check_name(name, alt)
    png = _png(fig)
    folder = figure_folder()
    if folder:
        with files.write_aside(folder / f"{name}.png") as aside:
            aside.write_bytes(smaller_png(png))
        files.write_text(folder / f"{name}.svg", _svg(fig))
    _display(png, name, " ".join(alt.split()), caption.strip())


def check_name(name: str, alt: str) -> None:
    """Whether a figure may have this name and this text.

    Raises:
        InputError: a name that is no file name, or no alt text.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InputError(
            f"{name!r} is no figure name", field="name", remedy="lower-case letters, digits and single hyphens"
        )
    if not alt.strip():
        raise InputError("a figure needs a text for readers who cannot see it", field="alt")


def figure_folder() -> Path | None:
    """Where figures are to be written: the folder of `figures_into`, else ``FOURDGS_FIGURES``; None for nowhere."""
    folder = _FOLDER.get() or os.environ.get("FOURDGS_FIGURES")
    return Path(folder) if folder else None


def _is_sheet(fig: Figure) -> bool:
    """Whether a figure is a sheet of pictures rather than a chart."""
    return fig.get_figwidth() > CHART_WIDTH + 0.1


def smaller_png(png: bytes) -> bytes:
    """The same picture as a PNG with a palette: of 256 colours, of 64 or 128 where it looks the same, as a chart does.

    The original where that is no smaller.
    """
    image = Image.open(io.BytesIO(png))
    image = image.convert("RGBA" if "A" in image.mode else "RGB")
    if image.mode == "RGBA" and image.getextrema()[3][0] == 255:
        image = image.convert("RGB")
    if image.mode == "RGBA":
        small = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    else:
        small = _few_colors(image) or _quantized(image, 256)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return min(buffer.getvalue(), png, key=len)


def _few_colors(image: Image.Image) -> Image.Image | None:
    """The picture in 64 or 128 colours; None where that changes the colour of an area, or the whole below 48 dB."""
    pixels = np.asarray(image)  # uint8 [H, W, 3]
    here = pixels[:-1, :-1]
    flat = ((here == pixels[1:, :-1]) & (here == pixels[:-1, 1:]) & (here == pixels[1:, 1:])).all(-1)
    codes, counts = np.unique(here[flat].astype(np.int32) @ (1, 256, 65536), return_counts=True)
    if not 0 < len(codes) <= _MANY:
        return None
    codes = codes[np.argsort(-counts, kind="stable")[:_AREAS]]
    # Below the picture, a stripe of each area's colour: a palette goes by the number of pixels, and would give a
    # legend's mark the colour of a larger neighbour.
    colors = np.stack([codes >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
    stripes = colors.repeat(max(1, image.height // 4 // len(colors)), 0)[:, None].repeat(image.width, 1)
    striped = Image.fromarray(np.concatenate([pixels, stripes]))
    for count in (64, 128):
        small = _quantized(striped, count).crop((0, 0, *image.size))
        off = np.abs(np.asarray(small.convert("RGB"), np.int16) - pixels)
        if off[:-1, :-1][flat].max() <= _NEAR and (off.astype(np.float32) ** 2).mean() <= 1:
            return small
    return None


def _quantized(image: Image.Image, colors: int) -> Image.Image:
    # Each colour the mean of what it stands for, until all but a thousandth stay what they are: 2 to 3 dB.
    enough = max(1, image.width * image.height // 1000)
    return image.quantize(colors, method=Image.Quantize.MEDIANCUT, kmeans=enough)


def _png(fig: Figure) -> bytes:
    # A picture sheet at 1100 pixels shows all that its thumbnails hold; a chart is drawn for dense screens.
    dpi = 110 if _is_sheet(fig) else 180
    buffer = io.BytesIO()
    with style():
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _svg(fig: Figure) -> str:
    buffer = io.StringIO()
    with style():
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})

    def smaller(match: re.Match[str]) -> str:
        png = base64.b64decode(re.sub(r"\s", "", match.group(1)))
        small, kind = smaller_png(png), "png"
        image = Image.open(io.BytesIO(png)).convert("RGBA")
        if image.getextrema()[3][0] == 255:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=75, optimize=True)
            if len(buffer.getvalue()) < len(small):
                small, kind = buffer.getvalue(), "jpeg"
        return f"data:image/{kind};base64," + base64.b64encode(small).decode()

    text = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", smaller, buffer.getvalue())
    # Matplotlib names clips and markers by a hash of their place to the last bit; a number each will do.
    names: dict[str, str] = {}
    text = re.sub(
        r'(?<=["#])[A-Za-z]\w*?[0-9a-f]{10}(?=["\)])',
        lambda found: names.setdefault(found.group(), f"n{len(names)}"),
        text,
    )
    # A hundredth of a point is finer than any screen; six decimals are a third of a chart's file.
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), text)


def _display(png: bytes, name: str, alt: str, caption: str) -> None:
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is None:
        return
    from IPython.display import publish_display_data

    width = min(1000, round(Image.open(io.BytesIO(png)).width / 1.8))
    mark: dict[str, Any] = {"name": name, "alt": alt, "caption": caption}
    publish_display_data(
        {"image/png": base64.b64encode(png).decode(), "text/plain": alt},
        {"fourdgs": mark, "image/png": {"alt": alt, "width": width}},
    )
    if caption:
        # For those who look at the notebook; the report takes the caption from the figure's own metadata.
        publish_display_data(
            {"text/markdown": f"*{caption}*", "text/plain": caption}, {"fourdgs": {"caption_of": name}}
        )


def as_array(values: Any) -> np.ndarray:
    """NumPy's view of an array, a torch tensor (of any device) or a sequence."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)
