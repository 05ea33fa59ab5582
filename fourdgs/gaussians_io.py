"""Gaussians in and out of .ply files as 3D Gaussian splatting programs exchange them (SuperSplat and the like).

The layout: one element ``vertex`` of little-endian float32 ``x y z nx ny nz f_dc_0..2 f_rest_0.. opacity scale_0..2
rot_0..3``. Raw values throughout, as in `Gaussians`: opacity as logit, scales as logarithms, rotation wxyz. ``f_rest``
holds the higher spherical harmonics channel by channel: all of red, then green, then blue; normals are zero.

A .ply has no time: a scene that moves is written as it is at one time (`write_ply` of ``at_time``), or as one file
for each of many times (`write_ply_sequence`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import InputError
from .files import hash_json, write_aside, write_json
from .gaussians import Gaussians
from .model import Model

__all__ = ["at_time", "model_digest", "read_ply", "write_ply", "write_ply_sequence"]

SEQUENCE = "sequence.json"
"""The file in a sequence's folder that says which model its files are of, and at which times."""

HEADER_BYTES = 65536
"""The longest header that is read: one of a file for degree 3 has 1.5 kB."""

_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4", "float": "<f4",
    "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4",
    "float32": "<f4", "float64": "<f8",
}  # fmt: skip
_GROUPS = {
    "means": ("x", "y", "z"),
    "sh0": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacities": ("opacity",),
    "scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
_HALF_TURN_SIGNS = (-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1)
"""What a half turn about z does to the real spherical harmonics of degrees 1 to 3, m = -l..l: (-1)^m."""
_REMEDY = "give a .ply that a 3D Gaussian splatting program saved uncompressed"


# --- out ---


def at_time(model: Model, time: float | None = None) -> Gaussians:
    """A model's Gaussians [N] at a time in [0, 1]; None: the canonical scene.

    Raises:
        InputError: a time outside [0, 1].
    """
    with torch.no_grad():
        moved = model.at(torch.tensor([math.nan if time is None else _time(time)], device=model.gaussians.means.device))
        return Gaussians(**{key: value[0] for key, value in moved.items().items()})


def write_ply(gaussians: Gaussians, path: str | Path, *, y_down: bool = False) -> Path:
    """Write Gaussians [N] as a .ply, whole or not at all; `read_ply` gives the same float32 values back.

    Args:
        path: ends in .ply; replaced where it is there.
        y_down: turn the scene by half a turn about z. Viewers expect scenes with y downwards, as COLMAP makes them,
            and would hang one with y upwards by its feet.

    Raises:
        InputError: not one set of Gaussians, or a value that is not finite.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".ply":
        raise InputError(f"ends in {path.suffix!r}", file=path, field="path", remedy="name it something.ply")
    if gaussians.means.ndim != 2:
        remedy = "take one time: at_time(model, 0.5)"
        raise InputError(f"has shape {list(gaussians.means.shape)}, must be [N, 3]", field="means", remedy=remedy)
    table = _table(_half_turned(gaussians, forwards=True) if y_down else gaussians)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in table.dtype.names]
    with write_aside(path) as aside, open(aside, "wb") as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
        file.write(table.tobytes())
    return path


def write_ply_sequence(
    model: Model,
    folder: str | Path,
    times: int | Sequence[float],
    *,
    name: str = "frame",
    y_down: bool = False,
    progress: bool = True,
) -> list[Path]:
    """A .ply of the model for each of many times, ``<folder>/<name>_00000.ply`` and so on.

    Each file is whole or absent, and a run that was broken off goes on where it was. ``sequence.json`` in the folder
    says which file is which time, and of which model.

    Args:
        times: in [0, 1], or how many, evenly from 0 to 1.
        y_down: see `write_ply`.

    Raises:
        InputError: a time outside [0, 1], or the folder holds another sequence.
        OutputError: the folder cannot be written.
    """
    from tqdm.auto import tqdm

    folder = Path(folder)
    if isinstance(times, int | np.integer):
        if times < 1:
            raise InputError(f"is {times}, must be at least 1", field="times")
        times = np.linspace(0, 1, times).tolist() if times > 1 else [0.0]
    moments = [_time(time) for time in times]
    if not moments:
        raise InputError("there is no time", field="times")
    files = [f"{name}_{index:05d}.ply" for index in range(len(moments))]
    about = {"format": 1, "model": model_digest(model), "y_down": y_down, "times": moments, "files": files}
    about["hash"] = hash_json(about)
    known = folder / SEQUENCE
    if known.exists():
        try:
            same = json.loads(known.read_text(encoding="utf-8"))["hash"] == about["hash"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"cannot be read: {error}", file=known, remedy="choose another folder") from error
        if not same:
            message = "is a sequence of another model, or of other times"
            raise InputError(message, file=known, remedy="choose another folder, or remove this one")
    elif any((folder / file).exists() for file in files):
        raise InputError("holds .ply files of that name", file=folder, field="folder", remedy="choose another folder")
    write_json(known, about)
    for leftover in folder.glob(f".{name}_*.ply"):  # of a run that was killed in the middle of one
        leftover.unlink(missing_ok=True)
    jobs = [(folder / file, moment) for file, moment in zip(files, moments, strict=True)]
    for path, moment in tqdm(jobs, desc=str(folder), unit="file", disable=not progress, leave=False):
        if not path.exists():
            write_ply(at_time(model, moment), path, y_down=y_down)
    return [path for path, _ in jobs]


def model_digest(model: Model) -> str:
    """A SHA-256 of all that a model's pictures depend on, as 64 hex digits."""
    digest = hashlib.sha256()
    about = {"motion": model.motion.name, "settings": model.motion.settings(), "background": list(model.background)}
    digest.update(json.dumps(about, sort_keys=True).encode())
    for key, value in [*model.gaussians.items().items(), *sorted(model.motion.state_dict().items())]:
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"|{key}{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _table(gaussians: Gaussians) -> np.ndarray:
    """[N] records of float32 in the layout's order."""
    values = {key: value.detach().cpu().float().numpy() for key, value in gaussians.items().items()}
    for key, value in values.items():
        if not np.isfinite(value).all():
            row = int(np.argwhere(~np.isfinite(value))[0][0])
            raise InputError(f"Gaussian {row} is not finite", field=key, remedy="the training diverged: train again")
    count = len(gaussians)
    rest = values["shN"].transpose(0, 2, 1).reshape(count, -1)  # [N, 3 (K-1)], channel-major
    columns = np.concatenate(
        [values["means"], np.zeros((count, 3), np.float32), values["sh0"].reshape(count, 3), rest]
        + [values["opacities"][:, None], values["scales"], values["quats"]],
        axis=1,
    )
    names = [*_GROUPS["means"], "nx", "ny", "nz", *_GROUPS["sh0"], *(f"f_rest_{k}" for k in range(rest.shape[1]))]
    names += [*_GROUPS["opacities"], *_GROUPS["scales"], *_GROUPS["quats"]]
    return np.ascontiguousarray(columns, "<f4").view([(name, "<f4") for name in names])[:, 0]


def _half_turned(gaussians: Gaussians, forwards: bool) -> Gaussians:
    """Gaussians turned by half a turn about z: (x, y, z) -> (-x, -y, z). There and back gives the same bits."""
    w, x, y, z = gaussians.quats.unbind(-1)
    quats = torch.stack([-z, -y, x, w] if forwards else [z, y, -x, -w], dim=-1)  # k q, and -k q
    signs = torch.tensor(_HALF_TURN_SIGNS[: gaussians.shN.shape[-2]], device=quats.device)
    means = gaussians.means * gaussians.means.new_tensor([-1, -1, 1])
    return gaussians.replace(means=means, quats=quats, shN=gaussians.shN * signs.to(gaussians.shN)[:, None])


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise InputError(f"is {value!r}, must be in [0, 1]", field="time")
    return float(value)


# --- in ---


def read_ply(path: str | Path, *, y_down: bool = False) -> Gaussians:
    """Gaussians [N] of a 3D Gaussian splatting .ply (binary, little-endian), spherical harmonics of degree 0 to 3.

    The properties may come in any order and number type; those not needed (normals) are passed over.

    Args:
        y_down: the file's scene has y downwards; see `write_ply`, whose files it turns back.

    Raises:
        InputError: the file is missing, cut short, too long, text, big-endian, compressed, no Gaussians, empty, or
            holds a value that is not finite.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
            count, record, start = _layout(path, head, size)
            degrees = _degrees(path, record.names)
            file.seek(start)
            data = np.frombuffer(file.read(count * record.itemsize), record)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path, remedy=_REMEDY) from error
    values = {key: _columns(path, data, names) for key, names in _GROUPS.items()}
    rest = _columns(path, data, [f"f_rest_{k}" for k in range(3 * (degrees - 1))])
    gaussians = Gaussians(
        means=values["means"],
        quats=values["quats"],
        scales=values["scales"],
        opacities=values["opacities"][:, 0].contiguous(),
        sh0=values["sh0"][:, None],
        shN=rest.reshape(count, 3, degrees - 1).transpose(1, 2).contiguous(),
    )
    return _half_turned(gaussians, forwards=False) if y_down else gaussians


def _layout(path: Path, head: bytes, size: int) -> tuple[int, np.dtype, int]:
    """How many records of what kind begin at which byte."""

    def fail(message: str, remedy: str = _REMEDY) -> InputError:
        return InputError(message, file=path, field="header", remedy=remedy)

    if not head.startswith((b"ply\n", b"ply\r\n")):
        raise fail("is not a PLY file" if head else "is empty")
    end = head.find(b"\nend_header")
    start = head.find(b"\n", end + 1) + 1
    if end < 0 or not start:
        raise fail("has no end_header: it is cut short, or no PLY file")
    lines = [line.split() for line in head[:end].decode("latin-1").split("\n")[1:]]
    lines = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    if not lines or lines[0] != ["format", "binary_little_endian", "1.0"]:
        raise fail(f"has {' '.join(lines[0]) if lines else 'no format'}, must be format binary_little_endian 1.0")
    elements = [line for line in lines if line[0] == "element"]
    names = [line[1] if len(line) == 3 else "?" for line in elements]
    if "chunk" in names:
        raise fail("is a compressed PLY", "open it in SuperSplat and export it as an uncompressed .ply")
    if not names or names[0] != "vertex" or lines[1] != elements[0]:
        raise fail(f"begins with {' '.join(lines[1]) if len(lines) > 1 else 'nothing'}, must be element vertex <count>")
    own = lines[2 : lines.index(elements[1])] if len(elements) > 1 else lines[2:]
    properties = []
    for line in own:
        if len(line) != 3 or line[0] != "property" or line[1] not in _PLY_TYPES:
            raise fail(f"has the line {' '.join(line)[:80]!r}, must be property <type> <name>")
        properties.append((line[2], _PLY_TYPES[line[1]]))
    if len({name for name, _ in properties}) != len(properties):
        raise fail("names a property twice")
    if not properties:
        raise fail("names no property")
    text = elements[0][2]
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise fail(f"has {text[:40]!r} vertices, must be a whole number")
    record, count = np.dtype(properties), int(text)
    there = (size - start) // record.itemsize
    if not count:
        raise fail("holds no Gaussian")
    if there < count:
        raise fail(f"names {count} Gaussians, but the file has bytes for {there}: it is cut short", "get it again")
    if len(elements) == 1 and size - start != count * record.itemsize:
        raise fail(f"names {count} Gaussians, but {size - start - count * record.itemsize} bytes follow them")
    return count, record, start


def _degrees(path: Path, names: Sequence[str]) -> int:
    """How many spherical harmonics each channel has: 1, 4, 9 or 16."""
    missing = [name for group in _GROUPS.values() for name in group if name not in names]
    if missing == ["scale_2"]:
        raise InputError("has flat Gaussians (2DGS)", file=path, field="scale_2", remedy=_REMEDY)
    if missing:
        kind = "is a point cloud or mesh, no Gaussians: it lacks" if len(missing) > 8 else "lacks"
        raise InputError(f"{kind} {', '.join(missing)}", file=path, field="properties", remedy=_REMEDY)
    rest = {name for name in names if name.startswith("f_rest_")}
    if len(rest) not in (0, 9, 24, 45) or rest != {f"f_rest_{k}" for k in range(len(rest))}:
        message = f"has {len(rest)} f_rest properties, must be f_rest_0 to f_rest_8, 23 or 44, or none"
        raise InputError(message, file=path, field="properties", remedy=_REMEDY)
    return len(rest) // 3 + 1


def _columns(path: Path, data: np.ndarray, names: Sequence[str]) -> torch.Tensor:
    """[N, len(names)] float32."""
    result = np.empty((len(data), len(names)), np.float32)
    for column, name in enumerate(names):
        with np.errstate(over="ignore"):
            result[:, column] = data[name]
        bad = ~np.isfinite(result[:, column])
        if bad.any():
            message = f"is not finite in {int(bad.sum())} of {len(data)} Gaussians, the first one number {bad.argmax()}"
            raise InputError(message, file=path, field=name, remedy="the training that made it diverged")
    return torch.from_numpy(result)
