"""What a notebook shows that is no figure: two pictures under a divider, a video, a scene to turn.

Each works in a notebook that is run by hand, and leaves its files (headless) where `plots.show` leaves figures.
"""

from __future__ import annotations

import base64
import html
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files
from ..errors import InputError

if TYPE_CHECKING:
    from ..cameras import Cameras
    from ..model import Model

INLINE_MB = 8.0  # a file larger than this is not put into a notebook's output
SHOWN = 480  # CSS pixels: small pictures are shown at least this wide


def show_wipe(
    left: Any, right: Any, name: str, alt: str, caption: str = "", labels: Sequence[str] = ("truth", "rendered")
) -> None:
    """Show two pictures of the same view, one over the other, with a divider to move (mouse, finger, arrow keys).

    Without JavaScript, in print and in Markdown the two stand side by side. Files: ``<name>-left.png`` and
    ``<name>-right.png``.

    Args:
        left, right: [H, W, 3] of one size, float in [0, 1] (overshoot is clipped) or uint8; numpy or torch.
        name, alt, caption: as for `plots.show`.
        labels: what the left and the right picture are.

    Raises:
        InputError: pictures of two sizes, or no pictures; a name that is no file name; no alt text.
        OutputError: the folder cannot be written.
    """
    _check(name, alt)
    pictures = [_picture(left, "left"), _picture(right, "right")]
    if pictures[0].shape != pictures[1].shape or len(labels) != 2:
        raise InputError(
            f"pictures of {pictures[0].shape} and {pictures[1].shape} with {len(labels)} labels", field="right",
            remedy="give two pictures of one view and size, and a label for each",
        )  # fmt: skip
    height, width = pictures[0].shape[:2]
    data = [_png(picture) for picture in pictures]
    names = [f"{name}-left.png", f"{name}-right.png"]
    _keep(dict(zip(names, data, strict=True)))
    from .pages import wipe_html, wipe_parts

    mark = _mark("wipe", name, alt, caption, names, (width, height), labels)
    style, script = wipe_parts()
    page = wipe_html(data, mark["alt"], mark["labels"], mark["size"])
    _display(f"<style>{style}</style>{page}<script>{script}</script>", mark)


def show_video(path: str | Path, name: str, alt: str, caption: str = "") -> None:
    """Show an MP4: it plays in a loop, silent at first, when the reader starts it.

    In a report it is embedded while it is small, and lies in ``figures/`` in any case. Files: ``<name>.mp4`` and its
    first picture, ``<name>-poster.jpg``.

    Args:
        path: an H.264 MP4 (what `fourdgs.data.video.write_video` makes), which every browser plays.
        name, alt, caption: as for `plots.show`.

    Raises:
        InputError: no MP4, or one that cannot be read; a name that is no file name; no alt text.
        OutputError: the folder cannot be written.
    """
    from ..data.video import read_video

    path = Path(path)
    _check(name, alt)
    if path.suffix.lower() not in (".mp4", ".m4v"):
        raise InputError(f"ends in {path.suffix!r}", file=path, remedy="give an MP4: browsers play no other everywhere")
    first = read_video(path, end_s=0.1, progress=False).frames[0]
    names = [f"{name}.mp4", f"{name}-poster.jpg"]
    _keep({names[0]: path, names[1]: _poster(first)})
    mark = _mark("video", name, alt, caption, names, (first.shape[1], first.shape[0]))
    if path.stat().st_size > INLINE_MB * 1e6:
        _display(f"<p>{html.escape(mark['alt'])}: <code>{html.escape(str(path))}</code></p>", mark)
        return
    uri = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    _display(f'<video controls loop muted playsinline width="{mark["size"][0]}" src="{uri}"></video>', mark)


def show_scene(
    model: Model,
    camera: Cameras,
    name: str,
    alt: str,
    caption: str = "",
    *,
    frames: int = 12,
    fps: float = 12.0,
    limit_mb: float = 10.0,
) -> None:
    """Show a trained scene in three dimensions, playing in time; see `write_scene`.

    Files: ``<name>.html``, which works on its own, and ``<name>-poster.jpg``, the scene from ``camera``.

    Args:
        camera: [1] where the viewer stands at first.
        name, alt, caption: as for `plots.show`.
        frames, fps, limit_mb: as for `write_scene`.

    Raises:
        InputError, MissingDependency, OutputError: as for `write_scene`; a name that is no file name; no alt text.
    """
    from ..model import render
    from .scene import write_scene

    _check(name, alt)
    view = camera.resized(round(SHOWN * camera.width / max(camera.width, camera.height)),
                          round(SHOWN * camera.height / max(camera.width, camera.height)))  # fmt: skip
    poster = _poster(_picture(render(model, view).rgb[0], "model"))
    names = [f"{name}.html", f"{name}-poster.jpg"]
    with tempfile.TemporaryDirectory(prefix="fourdgs-scene-") as scratch:
        page = write_scene(
            model, Path(scratch, names[0]), camera=camera, frames=frames, fps=fps, limit_mb=limit_mb, title=alt
        )
        _keep({names[0]: page, names[1]: poster})
        mark = _mark("scene", name, alt, caption, names, (view.width, view.height))
        inside = html.escape(page.read_text(encoding="utf-8"), quote=True)
    _display(f'<iframe srcdoc="{inside}" width="100%" height="480" style="border: 0"></iframe>', mark)


# --- parts -----------------------------------------------------------------------------------------------------------


def _check(name: str, alt: str) -> None:
    from ..plots.style import check_name

    check_name(name, alt)


def _mark(kind: str, name: str, alt: str, caption: str, names: list[str], size: tuple[int, int],
          labels: Sequence[str] = ()) -> dict[str, Any]:  # fmt: skip
    """What the report has to know; small pictures are shown larger than they are."""
    width, height = size
    shown = max(width, SHOWN * width // max(width, height))
    return {
        "kind": kind, "name": name, "alt": " ".join(alt.split()), "caption": caption.strip(), "files": names,
        "size": [shown, round(shown * height / width)], "labels": [str(label) for label in labels],
    }  # fmt: skip


def _picture(values: Any, field: str) -> np.ndarray:
    """uint8 [H, W, 3]."""
    from ..plots.style import as_array

    picture = as_array(values)
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(f"has the shape {picture.shape}", field=field, remedy="give [height, width, 3]")
    if picture.dtype == np.uint8:
        return picture
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _poster(picture: np.ndarray) -> bytes:
    """A picture that stands for what is started by hand: a small one will do."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def _keep(contents: dict[str, bytes | Path]) -> None:
    """Write files, bytes or copies, where figures go; nowhere when a notebook is run by hand."""
    from ..plots.style import figure_folder

    folder = figure_folder()
    for name, content in contents.items() if folder else ():
        with files.write_aside(folder / name) as aside:
            if isinstance(content, bytes):
                aside.write_bytes(content)
            else:
                shutil.copyfile(content, aside)


def _display(page: str, mark: dict[str, Any]) -> None:
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is None:
        return
    from IPython.display import publish_display_data

    from ..plots.style import figure_folder

    if figure_folder():  # headless: the files are what is shown, and the notebook stays small
        page = f"<p>{html.escape(mark['alt'])}</p>"
    elif mark["caption"]:
        page += f"<p><em>{html.escape(mark['caption'])}</em></p>"
    publish_display_data({"text/html": page, "text/plain": mark["alt"]}, {"fourdgs": mark})
