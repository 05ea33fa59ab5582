"""D-NeRF, nerfstudio and instant-ngp `transforms*.json`: read, validate, write.

Read from the file or, where a frame says otherwise, from the frame: ``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``, ``h``,
``camera_angle_x``, ``camera_angle_y``, ``k1``-``k4``, ``p1``, ``p2``, ``camera_model``, ``source``. From the frame:
``file_path`` (with or without extension), ``transform_matrix`` (OpenGL camera-to-world), ``time`` (in [0, 1]; null or
missing = none), ``camera``, ``mask_path``, ``frame_id``. From nerfstudio's single file: ``train_filenames``,
``val_filenames``, ``test_filenames``. Other keys are let be; ``applied_transform`` too, since the poses are in the
transformed world already.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ..cameras import Cameras
from ..capture import SPLITS, Capture, sort_frames
from ..errors import InputError
from ..files import folder_aside, write_json
from ..pictures import picture_header
from .fields import Fields, FrameRow, plain_path, read_frame


def read_transforms(path: str | Path, splits: Sequence[str] | None = None) -> Capture:
    """Read and validate a capture.

    Args:
        path: a folder with ``transforms_{train,val,test}.json`` or else ``transforms.json``, or one such file. Frames
            of a file without a split in its name are ``train``, but for those that nerfstudio's ``*_filenames`` name.
        splits: take only these.

    Raises:
        InputError: for the first problem met, naming file, frame and field, and what to do about it.
    """
    path = Path(path)
    wanted = tuple([splits] if isinstance(splits, str) else splits or SPLITS)
    for split in wanted:
        if split not in SPLITS:
            raise InputError(f"is {split!r}, must be one of {', '.join(SPLITS)}", file=path, field="splits")
    root = (path if path.is_dir() else path.parent).resolve()
    rows: list[FrameRow] = []
    for file, split in _files(path, wanted if splits else ()):
        rows += _read_file(file, root, split)
    there = [split for split in SPLITS if any(row.split == split for row in rows)]
    for split in wanted if splits else ():
        if split not in there:
            raise InputError(
                f"split {split!r} has no frames, there are {', '.join(there)}",
                file=path,
                field="splits",
                remedy=f"add transforms_{split}.json, or ask for another split",
            )
    return _capture(root, [row for row in rows if row.split in wanted])


def write_transforms(capture: Capture, folder: str | Path, pictures: str = "copy", overwrite: bool = False) -> Path:
    """Write a capture as D-NeRF-style files, one for each split that has frames.

    Files of pictures and masks are copied byte by byte; pictures in memory, and those of a resized capture, are
    written as PNG. Frame names, cameras, sources and poses (float64) survive the round trip; NaN times become null.

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


# --- reading ---


def _files(path: Path, wanted: Sequence[str]) -> list[tuple[Path, str]]:
    """The files to read, each with the split of its frames."""
    if path.is_file():
        match = re.search(r"_(train|val|test)$", path.stem)
        return [(path, match.group(1) if match else "train")]
    remedy = "give the folder that holds transforms.json or transforms_{train,val,test}.json"
    if not path.is_dir():
        raise InputError("is not there", file=path, remedy=remedy)
    files = [(path / f"transforms_{split}.json", split) for split in SPLITS]
    files = [(file, split) for file, split in files if file.is_file()]
    if files:
        # A file that was not asked for is not read, so that its faults do not stand in the way.
        return [(file, split) for file, split in files if not wanted or split in wanted] or files
    single = path / "transforms.json"
    if not single.is_file():
        raise InputError("holds no transforms file", file=path, remedy=remedy)
    return [(single, "train")]


def _read_file(file: Path, root: Path, split: str) -> list[FrameRow]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=file, remedy="save it as UTF-8 text") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"is not valid JSON: {error}", file=file, remedy="mend that line, or export again") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise InputError("must be a list of objects", file=file, field="frames", remedy="export the file again")
    if not frames:
        remedy = "remove the file, or give it frames"
        raise InputError(f"is empty: the split {split!r} has no frames", file=file, field="frames", remedy=remedy)
    named = _named_splits(file, content)
    rows: list[FrameRow] = []
    pictures: dict[Path, int] = {}
    names: dict[str, int] = {}
    for position, frame in enumerate(frames):
        row = read_frame(Fields(file, position, frame, content), root, split)
        row.split = named.get(plain_path(frame["file_path"]), split)
        for key, value, seen in (("file_path", row.image, pictures), ("frame_id", row.name, names)):
            if value in seen:
                raise InputError(
                    f"{str(value)!r} is that of frame {seen[value]} too",
                    file=file,
                    field=f"frame {position} ({frame['file_path']}): {key}",
                    remedy="remove one of the two frames, or name it otherwise",
                )
            seen[value] = position
        rows.append(row)
    return rows


def _named_splits(file: Path, content: dict) -> dict[str, str]:
    """Splits by path, from nerfstudio's ``{split}_filenames``."""
    named = {}
    for split in SPLITS:
        names = content.get(f"{split}_filenames", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError("must be a list of strings", file=file, field=f"{split}_filenames", remedy="export again")
        named.update({plain_path(name): split for name in names})
    return named


def _capture(root: Path, rows: list[FrameRow]) -> Capture:
    """Rows to a Capture: name the cameras, keep frame names apart, sort."""
    counts = Counter(row.name for row in rows)
    taken = {row.camera for row in rows}
    derived: dict[tuple, str] = {}
    numbers = (name for name in (f"cam{number:03d}" for number in range(10**9)) if name not in taken)
    for row in rows:
        # A picture may be in two splits (the doctor has a word about that); its two frames still need two names.
        if counts[row.name] > 1:
            row.name = f"{row.split}/{row.name}"
        if row.camera is None:
            key = (np.round(row.pose, 6).tobytes(), row.intrinsics, row.size)
            row.camera = derived[key] if key in derived else derived.setdefault(key, next(numbers))
    values = {
        "frame": [row.name for row in rows],
        "camera": [row.camera for row in rows],
        "time": [row.time for row in rows],
        "source": [row.source for row in rows],
        "split": [row.split for row in rows],
        "image": [str(row.image) for row in rows],
        "mask": [row.mask for row in rows],
        "width": [row.size[0] for row in rows],
        "height": [row.size[1] for row in rows],
    }
    frames = pd.DataFrame(values)
    Ks = np.zeros((len(rows), 3, 3))
    for K, row in zip(Ks, rows, strict=True):
        K[:] = [[row.intrinsics[0], 0, row.intrinsics[2]], [0, row.intrinsics[1], row.intrinsics[3]], [0, 0, 1]]
    cameras = Cameras.from_opengl(
        np.stack([row.pose for row in rows]), Ks, sizes=[row.size for row in rows], times=values["time"]
    )
    order = sort_frames(frames)
    return Capture(root, frames.iloc[order], cameras[order])


# --- writing ---


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
    size = (int(row.width), int(row.height))
    if row.frame not in capture.memory and picture_header(row.image, "picture") == size:
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
    if row.frame in capture.memory or picture_header(row.image, "picture") != (row.width, row.height):
        message = f"frame {row.frame} has a picture in memory or of another size"
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
    for index, row in enumerate(capture.frames.itertuples(index=False)):
        image, mask = paths[index]
        frame = {"file_path": image, "frame_id": row.frame, "source": row.source, "camera": row.camera}
        frame["time"] = None if math.isnan(row.time) else row.time
        if mask:
            frame["mask_path"] = mask
        lists[row.split].append(frame | ({} if common else optics[index]) | {"transform_matrix": poses[index]})
    for split in SPLITS:
        if split in lists:
            write_json(folder / f"transforms_{split}.json", {**head, "frames": lists[split]})
        else:
            (folder / f"transforms_{split}.json").unlink(missing_ok=True)
