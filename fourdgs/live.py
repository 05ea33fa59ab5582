"""Pictures of a scene on demand, without any widget: a camera on a sphere, and a thread that draws what was asked last.

`fourdgs.widgets` puts sliders on this.
"""

from __future__ import annotations

import atexit
import io
import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .cameras import Cameras, orbit
from .capture import Capture
from .gaussians import look_at_point
from .metrics import quantise
from .model import Model, render
from .overview import upright

REST_S = 0.25
"""Nothing asked for this long is rest: longer than the gaps between a slider's events, shorter than a wait."""

IDLE_S = 10.0
"""A thread with nothing to do for this long ends; the next request starts another. Forgotten widgets keep none."""


class Newest:
    """One thread that works on the newest request and forgets those that it overtook.

    A request is first answered coarsely; when nothing newer came for `rest_s`, it is answered finely. Requests that
    come while an answer is being made replace each other, so that a slow answer delays the next one but never a queue
    of them. Answers are shown in the order of their requests, and a fine one that was overtaken is not shown at all.

    Args:
        work: ``work(request, fine)`` gives an answer; called in the thread.
        show: ``show(answer, fine)``; called in the thread.
        fail: ``fail(error)`` where one of the two raised; the thread goes on.
    """

    def __init__(
        self,
        work: Callable[[Any, bool], Any],
        show: Callable[[Any, bool], None],
        fail: Callable[[Exception], None],
        *,
        name: str = "fourdgs-live",
        rest_s: float = REST_S,
        idle_s: float = IDLE_S,
    ):
        self.work, self.show, self.fail = work, show, fail
        self.name, self.rest_s, self.idle_s = name, rest_s, idle_s
        self._changed = threading.Condition()
        self._pending: tuple[Any, bool] | None = None  # the request, and whether the user has let go
        self._busy = self._closed = False
        self._thread: threading.Thread | None = None
        _EVERY.add(self)

    def ask(self, request: Any, *, rest: bool = False) -> None:
        """Ask for a picture; returns at once. With ``rest`` the user has let go: the fine answer only, at once."""
        with self._changed:
            if self._closed:
                return
            self._pending = (request, rest)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def settle(self, timeout_s: float = 30.0) -> bool:
        """Wait until the newest request has been answered finely; False where that took longer than ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or not (self._pending or self._busy), timeout_s)

    def close(self) -> None:
        """Forget what was asked and end the thread; nothing is shown afterwards, and nothing can be asked."""
        with self._changed:
            self._closed, self._pending = True, None
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._pending, self.idle_s)
                if self._closed or self._pending is None:
                    self._thread = None
                    return
                (request, rest), self._pending, self._busy = self._pending, None, True
            try:
                self._answer(request, rest)
            except Exception as error:  # whatever it is, the user must read it and the next request must be served
                if not self._closed:
                    self.fail(error)

    def _answer(self, request: Any, rest: bool) -> None:
        if not rest:
            coarse = self.work(request, False)
            if not self._closed:
                self.show(coarse, False)
            if self._overtaken(self.rest_s):
                return
        fine = self.work(request, True)
        if not self._overtaken(0):
            self.show(fine, True)

    def _overtaken(self, within_s: float) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._closed or self._pending, within_s))


_EVERY: weakref.WeakSet[Newest] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A thread inside torch while the interpreter is taken apart would crash it.
    for newest in list(_EVERY):
        newest.close()


@dataclass(frozen=True)
class View:
    """Where the camera of a viewer stands, and when: a hashable state."""

    time: float | None  # in [0, 1]; None: the canonical scene
    azimuth_deg: float
    elevation_deg: float
    radius: float  # world units


@dataclass(frozen=True)
class Stage:
    """The sphere that a viewer's camera moves on.

    Attributes:
        target: [3] the sphere's centre. up: [3] a unit vector. fov_x_deg: the horizontal field of view.
        width, height: pixels of a fine picture, both multiples of ``coarse``.
        coarse: the divisor of both for a coarse picture.
        home: where the camera stands at first.
    """

    target: tuple[float, float, float]
    up: tuple[float, float, float]
    fov_x_deg: float
    width: int
    height: int
    coarse: int
    home: View

    @staticmethod
    def of(model: Model, capture: Capture | None = None, *, size: int = 384, coarse: int = 2) -> Stage:
        """The sphere of a capture's cameras, seen from its first one; without a capture, one that holds the model.

        Args:
            size: the longer side of a fine picture, pixels.
        """
        start = None if model.motion.name == "static" else 0.0
        if capture is None:
            means = model.gaussians.means.detach().double().cpu()
            seen = means[model.gaussians.opacities.detach().cpu().sigmoid() > 0.1]
            seen = seen if len(seen) else means
            target = seen.median(dim=0).values
            extent = float((seen - target).norm(dim=-1).quantile(0.95))
            # As in `orbit`: a subject in the unit ball fills most of the picture from 4 units away.
            home = View(start, 0.0, 0.0, 4 * max(extent, 1e-3))
            side = _multiple(size, coarse)
            return Stage(tuple(target.tolist()), (0.0, 1.0, 0.0), 36.0, side, side, coarse, home)
        cameras = capture.cameras.to("cpu")
        focus, _ = look_at_point(capture)
        target, up = tuple(focus.astype(float).tolist()), upright(cameras)
        width, height = cameras.sizes[0].tolist()
        factor = size / max(width, height)
        fov = math.degrees(2 * math.atan(width / 2 / float(cameras.Ks[0, 0, 0])))
        offsets = cameras.positions.double().numpy() - focus
        radius = round(float(np.median(np.linalg.norm(offsets, axis=1))), 4)
        sizes = (_multiple(width * factor, coarse), _multiple(height * factor, coarse))
        return Stage(target, up, fov, *sizes, coarse, View(start, *_angles(offsets[0], up), radius))

    def camera(self, view: View, fine: bool = True) -> Cameras:
        """The one camera of a view, at the size of a fine or a coarse picture."""
        divisor = 1 if fine else self.coarse
        return orbit(
            1, view.radius, view.elevation_deg, view.azimuth_deg, target=self.target, up=self.up,
            fov_x_deg=self.fov_x_deg, width=self.width // divisor, height=self.height // divisor, times=view.time,
        )  # fmt: skip


def _multiple(size: float, of: int) -> int:
    return max(1, round(size / of)) * of


def _angles(offset: np.ndarray, up: tuple[float, float, float]) -> tuple[float, float]:
    """Azimuth and elevation, degrees, of a direction from the target, as `orbit` counts them."""
    front, side = (orbit(1, 1.0, 0.0, angle, up=up).positions[0].double().numpy() for angle in (0, 90))
    unit = offset / max(np.linalg.norm(offset), 1e-12)
    elevation = math.degrees(math.asin(float(np.clip(unit @ np.asarray(up), -1, 1))))
    azimuth = math.degrees(math.atan2(float(unit @ side), float(unit @ front)))
    # A thousandth of a degree: a slider shows 0, not -1e-8.
    return round(azimuth, 3), round(elevation, 3)


def picture(model: Model, camera: Cameras) -> np.ndarray:
    """What the model looks like from one camera, uint8 [H, W, 3]."""
    return eight_bits(render(model, camera).rgb[0].cpu())


def eight_bits(image: Tensor | np.ndarray) -> np.ndarray:
    """A picture in [0, 1] as the metrics see it: clipped and rounded to uint8."""
    return (quantise(torch.as_tensor(image)) * 255).round().to(torch.uint8).numpy()


def encoded(pixels: np.ndarray, fine: bool) -> tuple[str, bytes]:
    """The format and the bytes of a picture uint8 [H, W, 3]: PNG where it is to be exact, JPEG where it must be quick.

    At 384 pixels a PNG takes 4 ms and 50 KB, a JPEG a tenth and a sixth of that.
    """
    buffer = io.BytesIO()
    if fine:
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        return "png", buffer.getvalue()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return "jpeg", buffer.getvalue()
