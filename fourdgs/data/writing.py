"""A capture as D-NeRF-style `transforms_{train,val,test}.json` with its pictures."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..capture import SPLITS, Capture
from ..errors import InputError
from ..files import folder_aside, write_json
from ..pictures import picture_header


def write_transforms(capture: Capture, folder: str | Path, pictures: str = "copy", overwrite: bool = False) -> Path:
    """Write a capture as D-NeRF-style files, one for each split that has frames.

    Files of pictures and masks are copied byte by byte; pictures in memory, and those of a resized or an undistorted
    capture, are written as PNG (undistorted). Frame names, cameras, sources, weights, poses (float64) and what drives a
    frame (as ``drive``, also where it came from a ``drive_file``) survive the round trip; NaN times become null.

    Args:
        folder: made anew, whole or not at all.
        pictures: "copy", or "keep" where all of them lie in ``folder`` already: then only the JSON files are written.
        overwrite: replace ``folder``, with all that is in it, where it holds a capture.

    Returns:
        The folder.

    Raises:
        InputError: the folder is not empty and may not be replaced, or "keep" does not fit.
        OutputError: the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    if pictures not in ("copy", "keep"):
        raise InputError(f"is {pictures!r}, must be 'copy' or 'keep'", field="pictures")
    if pictures == "keep":
        _write_files(capture, folder, [_kept(row, folder, capture) for row in capture.frames.itertuples(index=False)])
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        holds_capture = folder.is_dir() and any(folder.glob("transforms*.json"))
        if not (overwrite and holds_capture):
            raise InputError(
                "is there already and not empty" + ("" if holds_capture or not overwrite else ", and holds no capture"),
                file=folder,
                field="folder",
                remedy="choose a new folder" + (", or overwrite=True" if holds_capture else ""),
            )
    with folder_aside(folder) as aside:
        names = _file_names(list(capture.frames.frame))
        pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
        try:
            every = range(len(capture))
            written = list(pool.map(lambda index: _write_picture(capture, index, names[index], aside), every))
        finally:
            pool.shutdown(cancel_futures=True)
        _write_files(capture, aside, written)
    return folder


def _file_names(names: list[str]) -> list[str]:
    """Relative paths without extension, as close to the frames' names as file systems and `read_transforms` allow."""
    plain = []
    for name in names:
        parts = [re.sub(r"[^\w.-]", "_", part).strip(".") for part in name.replace("\\", "/").split("/")]
        plain.append("/".join(part for part in parts if part) or "frame")
    # Case is folded, since two names that differ in case are one file on many machines.
    counts = Counter(name.lower() for name in plain)
    return [name if counts[name.lower()] == 1 else f"{name}-{index:05d}" for index, name in enumerate(plain)]


def _write_picture(capture: Capture, index: int, name: str, folder: Path) -> tuple[str, str | None]:
    """Copy or write one frame's picture and mask; returns their paths in the folder."""
    row = capture.frames.iloc[index]
    if _is_as_stored(row, capture):
        image = f"pictures/{name}{Path(row.image).suffix}"
        _copy(row.image, folder / image)
        if not row["mask"]:
            return image, None
        mask = f"masks/{name}{Path(row['mask']).suffix}"
        _copy(row["mask"], folder / mask)
        return image, mask
    rgb, alpha = capture.pictures([index])
    pixels = rgb[0].numpy()
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[0].numpy()[..., None]], axis=-1)
    image = f"pictures/{name}.png"
    (folder / image).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / image)
    return image, None


def _is_as_stored(row: Any, capture: Capture) -> bool:
    """Whether a frame's file holds just what the capture shows."""
    if row.frame in capture.memory or getattr(row, "distortion", ""):
        return False
    return picture_header(row.image, "picture") == (int(row.width), int(row.height))


def _copy(source: str, target: Path) -> None:
    if not Path(source).is_file():
        raise InputError("is missing", file=source, field="picture", remedy="restore it, or take its frame out")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _kept(row: Any, folder: Path, capture: Capture) -> tuple[str, str | None]:
    """The paths of a frame whose files lie in the folder already."""
    paths: list[str | None] = []
    for path in (row.image, row.mask):
        if path and not Path(path).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} does not lie in it", file=folder, field="pictures", remedy="use pictures='copy'")
        paths.append(Path(path).resolve().relative_to(folder.resolve()).as_posix() if path else None)
    if not _is_as_stored(row, capture):
        message = f"frame {row.frame} has a picture in memory, of another size, or one that is undistorted"
        raise InputError(message, file=folder, field="pictures", remedy="use pictures='copy'")
    return paths[0], paths[1]


def _write_files(capture: Capture, folder: Path, paths: list[tuple[str, str | None]]) -> None:
    """One transforms file per split that has frames; what all frames of all splits share goes to the file's head."""
    poses = capture.cameras.to_opengl().tolist()
    Ks = capture.cameras.Ks.double().cpu().numpy()
    sizes = capture.cameras.sizes.tolist()
    optics = [
        {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": size[0], "h": size[1]}
        for K, size in zip(Ks, sizes, strict=True)
    ]
    common = optics[0] if all(optic == optics[0] for optic in optics) else {}
    head = {"camera_model": "PINHOLE", **common}
    if common:
        head["camera_angle_x"] = 2 * math.atan(common["w"] / 2 / common["fl_x"])  # for D-NeRF's own readers
    lists: dict[str, list[dict]] = {split: [] for split in capture.splits}
    drive = capture.drive
    for index, row in enumerate(capture.frames.itertuples(index=False)):
        image, mask = paths[index]
        frame = {"file_path": image, "frame_id": row.frame, "source": row.source, "camera": row.camera}
        frame["time"] = None if math.isnan(row.time) else row.time
        if mask:
            frame["mask_path"] = mask
        if getattr(row, "weight", 1.0) != 1:
            frame["weight"] = float(row.weight)
        if drive is not None and not drive.iloc[index].isna().any():
            frame["drive"] = drive.iloc[index].to_dict()
        lists[row.split].append(frame | ({} if common else optics[index]) | {"transform_matrix": poses[index]})
    for split in SPLITS:
        if split in lists:
            write_json(folder / f"transforms_{split}.json", {**head, "frames": lists[split]})
        else:
            (folder / f"transforms_{split}.json").unlink(missing_ok=True)
