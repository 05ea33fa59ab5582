"""A trained scene as one HTML file that plays in time and turns under the mouse, offline: viser's viewer and its data.

The only importer of viser in the library. What is recorded is what viser can show: colours that do not change with
the direction (degree 0 of the spherical harmonics), and covariances in half precision.
"""

from __future__ import annotations

import contextlib
import html
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files
from ..errors import InputError, MissingDependency

if TYPE_CHECKING:
    from ..cameras import Cameras
    from ..model import Model

_STEPS = 4096  # the scene's width in steps of a centre's position
_COVARIANCE_BITS = 6  # of the mantissa: a standard deviation is right to 0.4 %
# A page that is opened as a file may not start a worker from a blob, and viser, which is not told so, would draw the
# Gaussians unsorted. Where that constructor throws, viser's bundler (Vite) falls back to a data URI, which works.
_WORKERS = """<script>
if (location.protocol === "file:") {
  const Native = Worker;
  window.Worker = class extends Native {
    constructor(url, options) {
      if (String(url).startsWith("blob:")) throw new Error("no worker from a blob in a file's page");
      super(url, options);
    }
  };
}
</script>"""
_SH_C0 = 0.28209479177387814  # 1 / (2 sqrt(pi)), the constant spherical harmonic


def write_scene(
    model: Model,
    path: str | Path,
    *,
    camera: Cameras,
    frames: int = 12,
    fps: float = 12.0,
    limit_mb: float = 10.0,
    title: str = "",
) -> Path:
    """Write a moving scene as a page for any browser with WebGL; it needs no network and no other file.

    A scene that does not move is written once. Positions are rounded to 1/4096 of the scene's width or finer and
    covariances to 0.8 %, which the eye does not see and which lets what stands still cost nothing in later frames.

    Args:
        model: its Gaussians are shown at ``frames`` times from 0 to 1, over its own background.
        path: ends in .html; replaced where it is there.
        camera: [1] where the viewer stands at first; its upward direction is the scene's.
        fps: frames a second.
        limit_mb: the most that the file may take, 10^6 bytes.
        title: of the page.

    Returns:
        The path.

    Raises:
        InputError: no frame, more than one camera, or a file that would be larger than ``limit_mb``.
        MissingDependency: viser is not installed.
        OutputError: the file cannot be written.
    """
    if frames < 1 or fps <= 0:
        raise InputError(f"{frames} frames at {fps} a second", field="frames", remedy="at least one, at more than 0")
    if len(camera) != 1:
        raise InputError(f"{len(camera)} cameras", field="camera", remedy="give one: cameras[:1]")
    buffers = packed(model, frames)
    page = _page(buffers, camera, fps, model.background)
    page = page.replace("<head>", f"<head>{_WORKERS}", 1)
    page = page.replace("<title>Viser</title>", f"<title>{html.escape(title or 'Gaussians')}</title>", 1)
    size_mb = len(page.encode()) / 1e6
    if size_mb > limit_mb:
        raise InputError(
            f"{len(buffers)} frames of {len(buffers[0])} Gaussians take {size_mb:.1f} MB, the limit is {limit_mb:g}",
            file=path,
            field="limit_mb",
            remedy="take fewer frames, or raise the limit",
        )
    files.write_text(path, page)
    return Path(path)


def packed(model: Model, frames: int) -> list[np.ndarray]:
    """The Gaussians of each frame as viser's buffers, uint32 [N, 8]; one frame where nothing moves.

    A Gaussian is 32 bytes: centre (3 x float32), 4 bytes for the viewer, the upper triangle of the covariance
    (6 x float16), red, green, blue and opacity (uint8). Those that no frame shows (opacity below 1/255) are left out.
    """
    import torch

    with torch.no_grad():
        moved = model.at(torch.linspace(0, 1, frames))
    parts = {key: value.detach().cpu().double().numpy() for key, value in moved.items().items()}
    count = parts["means"].shape[-2]
    means, quats, scales = (
        np.broadcast_to(parts[key], (frames, count, size)) for key, size in (("means", 3), ("quats", 4), ("scales", 3))
    )
    opacity = np.broadcast_to(1 / (1 + np.exp(-parts["opacities"])), (frames, count))
    color = np.broadcast_to(0.5 + _SH_C0 * parts["sh0"][..., 0, :], (frames, count, 3))
    bytes4 = np.round(np.concatenate([color, opacity[..., None]], axis=-1).clip(0, 1) * 255).astype(np.uint8)
    seen = bytes4[..., 3].max(axis=0) > 0
    if not seen.any():
        raise InputError("no Gaussian of the model can be seen", field="model")
    buffers = np.zeros((frames, int(seen.sum()), 32), np.uint8)
    buffers[..., 0:12] = _as_bytes(_rounded_means(means[:, seen]))
    buffers[..., 16:28] = _as_bytes(_rounded_half(_covariances(quats[:, seen], scales[:, seen])))
    buffers[..., 28:32] = bytes4[:, seen]
    shown = buffers[:1] if (buffers == buffers[0]).all() else buffers
    return [np.ascontiguousarray(frame).view(np.uint32) for frame in shown]


def _rounded_means(means: np.ndarray) -> np.ndarray:
    """Centres [T, N, 3] to a power of two that is at most 1/4096 of the scene's width, float32."""
    low, high = np.percentile(means, [1, 99], axis=(0, 1))
    width = float((high - low).max()) or 1.0
    step = 2.0 ** math.floor(math.log2(width / _STEPS))
    return (np.round(means / step) * step).astype(np.float32)


def _covariances(quats: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The upper triangles xx, xy, xz, yy, yz, zz of R diag(s)^2 R^T, [T, N, 6]."""
    w, x, y, z = np.moveaxis(quats / np.linalg.norm(quats, axis=-1, keepdims=True), -1, 0)
    rotation = np.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        axis=-1,
    ).reshape(*w.shape, 3, 3)  # fmt: skip
    root = rotation * np.exp(scales)[..., None, :]
    full = root @ np.swapaxes(root, -1, -2)
    return full[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]


def _rounded_half(values: np.ndarray) -> np.ndarray:
    """Half precision with the last bits of the mantissa rounded away."""
    drop = 10 - _COVARIANCE_BITS
    bits = values.clip(-6e4, 6e4).astype(np.float16).view(np.uint16).astype(np.uint32)
    return ((bits + (1 << (drop - 1))) >> drop << drop).astype(np.uint16).view(np.float16)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8)


def _page(buffers: list[np.ndarray], camera: Cameras, fps: float, background: tuple[float, float, float]) -> str:
    """viser's own page with a recording of the buffers in it."""
    try:
        import viser
    except ImportError as error:
        raise MissingDependency("a 3D view needs viser: pip install viser") from error
    count = len(buffers[0])
    with _quiet():
        server = viser.ViserServer(host="127.0.0.1", port=_free_port(), verbose=False)
        try:
            _stand(server, camera)
            server.scene.set_background_image(_plain(background))
            flat = np.zeros((count, 3, 3))
            node = server.scene.add_gaussian_splats(
                "/scene", flat[..., 0], flat, flat[..., 0], np.zeros((count, 1)), visible=True
            )
            node.buffer = buffers[0]
            recorder = server.get_scene_serializer()
            for number, buffer in enumerate(buffers):
                if number:
                    node.buffer = buffer
                if len(buffers) > 1:
                    recorder.insert_sleep(1 / fps)
            return recorder.as_html()
        finally:
            server.stop()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """viser greets with its port, whatever it is told, and says goodbye."""
    import rich

    console = rich.get_console()
    quiet, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = quiet


def _stand(server: Any, camera: Cameras) -> None:
    """Put the viewer where the camera is, looking at the world's point nearest to its axis's crossing of the scene."""
    view = camera.viewmats[0].double().cpu().numpy()
    position = -view[:3, :3].T @ view[:3, 3]
    ahead = view[2, :3]
    # The distance to look at: where the axis passes nearest to the origin, about which a capture lies.
    distance = max(float(-position @ ahead), 0.1 * float(np.linalg.norm(position)), 1e-3)
    server.scene.set_up_direction(tuple(-view[1, :3]))
    server.initial_camera.position = tuple(position)
    server.initial_camera.look_at = tuple(position + distance * ahead)
    server.initial_camera.up = tuple(-view[1, :3])
    server.initial_camera.fov = 2 * math.atan(camera.height / (2 * float(camera.Ks[0, 1, 1])))


def _plain(background: tuple[float, float, float]) -> np.ndarray:
    return np.full((2, 2, 3), np.round(np.array(background) * 255), np.uint8)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
