"""A camera path as an MP4: rendered, encoded while the next pictures render, described by a manifest beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cameras import Cameras
from ..capture import Capture
from ..data.video import write_video
from ..data.video_encode import sound_duration
from ..errors import InputError
from ..files import hash_file, hash_json, write_json
from ..gaussians import look_at_point
from ..gaussians_io import model_digest, read_ply
from ..model import Model, render_bytes
from ..motion import Static
from ..paths import PATHS, CameraPath, frame_count, recipe, whole_number
from ..resample import fitted
from ..runs import Run, load_run, phase
from .columns import hstack, label_strip


@dataclass(frozen=True, eq=False)
class _Shown:
    """One column of the picture: what it is called, what renders it, and what the manifest says of it."""

    label: str
    model: Model
    about: dict[str, Any]
    run: Run | None = None


def render_path(
    runs: Any,
    cameras: Cameras | CameraPath | str,
    path: str | Path,
    fps: float | Fraction = 25,
    *,
    audio: str | Path | None = None,
    duration_s: float | None = None,
    fit: str = "auto",
    background: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    chunk: int | None = None,
    quality: float = 18,
    progress: bool = True,
    again: bool = False,
) -> Path:
    """Render a camera path to an MP4, and write a manifest (JSON) beside it.

    Pictures are encoded in a thread of their own while the next ``chunk`` renders; a few chunks are in memory at a
    time, so the path may be of any length. Both files are whole or absent. What is there already, of the same models,
    cameras and settings, is left as it is. The seconds are kept as the runs' phase ``render``.

    Args:
        runs: a `Run`, a `Model`, a run's folder, a ``.ply`` or a model file; or several of them, in a list or by
            their label, to stand side by side.
        cameras: cameras, a recipe, or the name of a path (`fourdgs.paths.PATHS`).
        path: ends in .mp4.
        fps: pictures a second.
        audio: a narration or music; the path is brought to its length (rounded up to a whole frame) and it is muxed.
        duration_s: seconds to bring the path to where there is no audio, or another length is wanted.
        fit: how the path is brought to a length: see `CameraPath.lasting`. The default leads from the last frame to
            the first, so that a player may repeat it.
        background: behind the scene, three numbers in [0, 1]; None: each model's own.
        labels: over the columns; by default the runs' names where there are several.
        chunk: cameras rendered at once; by default 8, on CUDA 32.
        quality: see `write_video`.
        again: render also what is there already.

    Returns:
        The MP4's path; the manifest is `manifest_path` of it.

    Raises:
        InputError: a run, camera path, audio file or setting that cannot be used.
        MissingDependency: PyAV is not installed.
        OutputError: the files cannot be written or the disk is full.
    """
    path, fps = Path(path), _rate(fps)
    if chunk is not None:
        whole_number(chunk, "chunk")
    shown = _columns(runs, labels, background)
    sound_s = None if audio is None else sound_duration(audio)
    filmed, about_path = _filmed(cameras, sound_s if duration_s is None else duration_s, float(fps), fit)
    strip = None
    if labels or len(shown) > 1:
        strip = label_strip([each.label for each in shown], filmed.width, filmed.height)
    about = {
        "format": 1,
        "runs": [each.about for each in shown],
        "path": about_path,
        "fit": None if duration_s is None and audio is None else fit,
        "fps": float(fps),
        "frames": len(filmed),
        "duration_s": round(len(filmed) / float(fps), 6),
        "audio": None if audio is None else {"sha256": hash_file(audio), "duration_s": round(sound_s or 0, 6)},
        "labels": [each.label for each in shown] if strip is not None else [],
        "quality": float(quality),
    }
    about = {"hash": hash_json(about)} | about
    if not again and _is_there(path, about["hash"]):
        return path
    paid_by = [each.run for each in shown if each.run is not None]
    with phase(paid_by, "render"), torch.no_grad(), _encoder(path, fps, audio, quality) as add:
        for pictures in _bar(_chunks(shown, filmed, chunk, strip), len(filmed), path, progress):
            add(pictures)
    size = (pictures.shape[2], pictures.shape[1])
    names = {"video": path.name, "sha256": hash_file(path), "width": size[0], "height": size[1]}
    if audio is not None:
        about["audio"]["file"] = Path(audio).name
    write_json(manifest_path(path), names | about)
    return path


def manifest_path(video: str | Path) -> Path:
    """Where the manifest of a video lies: ``x.mp4`` has ``x.mp4.json``."""
    video = Path(video)
    return video.with_name(video.name + ".json")


def framing(capture: Capture) -> dict[str, Any]:
    """How a path should look at a capture: the target, up, radius and fov_x_deg for `CameraPath.framed`.

    The target is the point nearest to all optical axes; radius and field of view are the cameras' medians; up is the
    direction most nearly at right angles to all the pictures' rows, as it is where cameras are held level.
    """
    target, _ = look_at_point(capture)
    cameras = capture.cameras
    rows, ups = cameras.viewmats[:, 0, :3].double().numpy(), -cameras.viewmats[:, 1, :3].double().numpy()
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    mean = ups.mean(0)
    # Cameras side by side share one row direction, and any up at right angles to it would do: then their own.
    up = vectors[:, 0] * np.sign(vectors[:, 0] @ mean) if values[1] > 0.02 else mean
    focal = cameras.Ks[:, 0, 0].double().numpy()
    fov = 2 * np.degrees(np.arctan(cameras.sizes[:, 0].double().numpy() / 2 / focal))
    distance = np.linalg.norm(cameras.positions.double().numpy() - target, axis=1)
    return {
        "target": [round(float(value), 6) for value in target],
        "up": [round(float(value), 6) for value in up / np.linalg.norm(up)],
        "radius": round(float(np.median(distance)), 6),
        "fov_x_deg": round(float(np.median(fov)), 6),
    }


# --- what is rendered ---


def _rate(fps: Any) -> Fraction:
    try:
        rate = Fraction(fps)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"is {fps!r}, must be a number", field="fps") from error
    if rate <= 0:
        raise InputError(f"is {fps}, must be positive", field="fps")
    return rate


def _columns(runs: Any, labels: Sequence[str] | None, background: Sequence[float] | None) -> list[_Shown]:
    if isinstance(runs, Mapping):
        labels, runs = [*runs] if labels is None else labels, [*runs.values()]
    many = list(runs) if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    if not many:
        raise InputError("there is no run", field="runs")
    if labels is not None and (isinstance(labels, str) or len(labels) != len(many)):
        raise InputError(f"{labels!r} for {len(many)} runs", field="labels", remedy="give one for each run")
    shown = [_column(each, None if labels is None else str(labels[index])) for index, each in enumerate(many)]
    if background is None:
        return shown
    color = tuple(float(value) for value in background)
    if len(color) != 3 or not all(0 <= value <= 1 for value in color):
        raise InputError(f"is {list(color)}, must be three numbers in [0, 1]", field="background")
    return [
        replace(each, model=replace(each.model, background=color), about=each.about | {"background": list(color)})
        for each in shown
    ]


def _column(what: Any, label: str | None) -> _Shown:
    name, capture, run = "model", None, None
    if isinstance(what, Model):
        model = what
    elif isinstance(what, str | Path) and Path(what).suffix.lower() in (".ply", ".safetensors"):
        what = Path(what)
        name = what.stem
        model = Model(read_ply(what), Static()) if what.suffix.lower() == ".ply" else Model.load(what)
    elif isinstance(what, Run | str | Path):
        run = load_run(what.path if isinstance(what, Run) else what)
        name, model = run.name, run.model
        model = model.to("cuda") if torch.cuda.is_available() else model
        capture = {key: run.info["capture"].get(key) for key in ("name", "digest")}
    else:
        remedy = "give a Run, a Model, a run's folder, or a .ply"
        raise InputError(f"is a {type(what).__name__}", field="runs", remedy=remedy)
    about = {
        "name": name,
        "model": model_digest(model),
        "motion": model.motion.name,
        "gaussians": len(model.gaussians),
        "background": list(model.background),
        "capture": capture,
    }
    return _Shown(label or name, model, about, run)


def _filmed(
    cameras: Cameras | CameraPath | str, duration_s: float | None, fps: float, fit: str
) -> tuple[Cameras, dict[str, Any]]:
    """The cameras to render, and the recipe that the manifest keeps."""
    if isinstance(cameras, str):
        cameras = recipe(cameras)
    if isinstance(cameras, CameraPath):
        cameras = cameras if duration_s is None else cameras.lasting(duration_s, fps, fit)
        return cameras.cameras(), cameras.to_dict()
    if not isinstance(cameras, Cameras):
        remedy = f"give Cameras, a CameraPath or one of {', '.join(PATHS)}"
        raise InputError(f"is a {type(cameras).__name__}", field="cameras", remedy=remedy)
    if duration_s is not None:
        cameras = fitted(cameras, frame_count(duration_s, fps), fit)
    if not len(cameras):
        raise InputError("there is no camera", field="cameras")
    digest = hashlib.sha256()
    for tensor in (cameras.viewmats, cameras.Ks, cameras.sizes, cameras.times):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return cameras, {"cameras": len(cameras), "sha256": digest.hexdigest()}


def _chunks(shown: list[_Shown], cameras: Cameras, chunk: int | None, strip: np.ndarray | None) -> Iterator[np.ndarray]:
    """uint8 [n, H, W, 3] of the whole picture, ``chunk`` frames at a time."""
    for parts in zip(*(render_bytes(each.model, cameras, chunk=chunk) for each in shown), strict=True):
        yield hstack([part.numpy() for part in parts], strip)


def _bar(chunks: Iterator[np.ndarray], total: int, path: Path, progress: bool) -> Iterator[np.ndarray]:
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=path.name, unit="frame", disable=not progress, leave=False) as bar:
        for pictures in chunks:
            yield pictures
            bar.update(len(pictures))


def _is_there(path: Path, wanted: str) -> bool:
    """Whether the video is there, whole, and the manifest beside it is of the same inputs."""
    try:
        about = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        return about["hash"] == wanted and about["sha256"] == hash_file(path)
    except (OSError, ValueError, TypeError, KeyError):
        return False


# --- encoding in a thread ---


class _Broken(Exception):
    """Ends the encoder's thread where rendering broke off."""


@contextlib.contextmanager
def _encoder(
    path: Path, fps: Fraction, audio: str | Path | None, quality: float
) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that takes pictures [n, H, W, 3]; they are encoded in a thread, and in the file at the end."""
    waiting: queue.Queue = queue.Queue(maxsize=2)

    def pictures() -> Iterator[np.ndarray]:
        while (chunk := waiting.get()) is not None:
            if isinstance(chunk, _Broken):
                raise chunk
            yield from chunk

    def add(chunk: np.ndarray | None) -> None:
        while True:
            if writing.done():
                writing.result()  # it failed: raise that here
                return
            with contextlib.suppress(queue.Full):
                return waiting.put(chunk, timeout=0.2)

    with ThreadPoolExecutor(1, thread_name_prefix="encoder") as pool:
        writing = pool.submit(write_video, pictures(), path, fps, audio=audio, quality=quality, progress=False)
        try:
            yield add
            add(None)
            writing.result()
        except BaseException:
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.get_nowait()
            waiting.put(_Broken())
            raise
