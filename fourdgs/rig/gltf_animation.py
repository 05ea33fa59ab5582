"""Animations of a glTF file as a table of control values over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from .gltf_controls import PATHS, moving_paths, target_names
from .gltf_file import GltfFile
from .gltf_tree import Tree, angles_of, read_tree, turn_of


def load_gltf_animation(path: str | Path, animation: int | str = 0, fps: float = 30.0) -> pd.DataFrame:
    """An animation of a file as ``time_s`` and the controls of `load_gltf_rig` that it drives, a row a moment.

    Moments are the keys of all its channels and every 1 / ``fps`` in between, so that what turns (slerp) or bends
    (CUBICSPLINE) is close to straight from row to row. A step is a ramp of a tenth of a millisecond; of keys at one
    time the last counts. Where meshes give a control that they share other values, those of most change count.

    Args:
        animation: its number or its name.

    Raises:
        InputError: the file cannot be read or has no such animation.
    """
    try:
        file = GltfFile(path)
        return _table(file, read_tree(file), _chosen(file, animation), fps)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise InputError(f"is not as glTF says it must be: {error!r}", file=path, remedy="export it anew") from error


def gltf_animations(path: str | Path) -> list[str]:
    """The names of a file's animations, in their order.

    Raises:
        InputError: the file cannot be read.
    """
    return _names(GltfFile(path))


def _names(file: GltfFile) -> list[str]:
    return [row.get("name") or f"animation{number}" for number, row in enumerate(file.rows("animations"))]


def _chosen(file: GltfFile, animation: int | str) -> dict:
    names = _names(file)
    number = names.index(animation) if animation in names else animation
    if not isinstance(number, int) or not 0 <= number < len(names):
        remedy = f"it has {', '.join(names)}" if names else "it has none: give a track of another file"
        raise InputError(f"there is no animation {animation!r}", file=file.path, field="animations", remedy=remedy)
    return file.rows("animations")[number]


def _table(file: GltfFile, tree: Tree, animation: dict, fps: float) -> pd.DataFrame:
    channels, moments = [], []
    driven = moving_paths(file, tree)
    bones = {node for skin in file.rows("skins") for node in skin["joints"]}
    for channel in animation["channels"]:
        node, path = channel["target"].get("node"), channel["target"]["path"]
        sampler = animation["samplers"][channel["sampler"]]
        keys = file.array(sampler["input"])[:, 0].astype(np.float64)
        if not len(keys) or (np.diff(keys) < 0).any():
            raise InputError("has times that fall", file=file.path, field="animations", remedy="export it anew")
        known = path in driven.get(node, ()) or (path == "rotation" and node in bones) or path == "weights"
        if node not in tree.parents or not known:
            continue
        channels.append((node, path, keys, sampler))
        moments.append(keys)
        if sampler.get("interpolation") == "STEP":
            moments.append(np.maximum(keys[1:] - 1e-4, (keys[1:] + keys[:-1]) / 2))
    if not channels:
        raise InputError("drives nothing of its scene", file=file.path, field="animations")
    times = np.concatenate(moments)
    count = int(np.floor((times.max() - times.min()) * fps))
    times = np.unique(np.round([*times, *(times.min() + np.arange(count + 1) / fps)], 7))
    columns: dict[str, np.ndarray] = {"time_s": times}
    for node, path, keys, sampler in channels:
        with np.errstate(all="ignore"):  # what is not finite is told below
            found = _columns(file, tree, node, path, _sample(file, sampler, keys, times, path))
        for name, values in found.items():
            if name not in columns or not np.ptp(values) <= np.ptp(columns[name]):
                columns[name] = values
    wrong = next((name for name, values in columns.items() if not np.isfinite(values).all()), None)
    if wrong is not None:
        raise InputError(f"gives {wrong} a value that is not finite", file=file.path, field="animations")
    return pd.DataFrame(columns)


def _columns(file: GltfFile, tree: Tree, node: int, path: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Controls of one channel: ``values`` [T, n] relative to the node's rest where the rig's are."""
    row = file.row("nodes", node)
    if path == "weights":
        return dict(zip(target_names(file, row["mesh"]), values.T, strict=True)) if "mesh" in row else {}
    place, scale = tree.rest(node)
    if path == "rotation":
        angles = np.radians(angles_of(place[:3, :3].T @ turn_of(values)))
        values = np.degrees(np.unwrap(angles, axis=0))
    elif path == "translation":
        values = (values - place[:3, 3]) @ place[:3, :3]
    else:
        values = values / np.where(np.diag(scale)[:3] == 0, 1, np.diag(scale)[:3])
    return {f"{tree.name(node)}.{PATHS[path]}{axis}": values[:, column] for column, axis in enumerate("XYZ")}


def _sample(file: GltfFile, sampler: dict, keys: np.ndarray, times: np.ndarray, path: str) -> np.ndarray:
    """[T, n] at ``times``, held beyond the ends (glTF 2.0, appendix C)."""
    how = sampler.get("interpolation", "LINEAR")
    if how not in ("LINEAR", "STEP", "CUBICSPLINE"):
        raise InputError(f"{how!r} is unknown", file=file.path, field="interpolation")
    table = file.array(sampler["output"]).astype(np.float64)
    # Morph weights are stored one by one: all targets of a key after another.
    table = table.reshape(len(keys), 3 if how == "CUBICSPLINE" else 1, -1)
    last = np.append(np.diff(keys) > 0, True)
    keys, table = keys[last], table[last]
    after = np.clip(np.searchsorted(keys, times + 1e-7, side="right"), 1, max(len(keys) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(keys) - 1)
    span = np.maximum(keys[after] - keys[before], 1e-12)
    share = np.clip((times - keys[before]) / span, 0, 1)[:, None]
    if how == "STEP":
        return table[np.where(times + 1e-7 >= keys[after], after, before), 0]
    if how == "LINEAR":
        start, end = table[before, 0], table[after, 0]
        return _slerp(start, end, share) if path == "rotation" else start + share * (end - start)
    _, start, leave = table[before].transpose(1, 0, 2)
    arrive, end, _ = table[after].transpose(1, 0, 2)
    s, span = share, span[:, None]
    rise = 3 * s**2 - 2 * s**3
    return (1 - rise) * start + span * (s**3 - 2 * s**2 + s) * leave + rise * end + span * (s**3 - s**2) * arrive


def _slerp(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    """[T, 4] between quaternions on the shorter way round (Shoemake 1985)."""
    cosine = (start * end).sum(axis=-1, keepdims=True)
    end, cosine = np.where(cosine < 0, -end, end), np.minimum(np.abs(cosine), 1)
    angle = np.arccos(cosine)
    near = angle < 1e-4
    sine = np.where(near, 1, np.sin(angle))
    one = np.where(near, 1 - share, np.sin((1 - share) * angle) / sine)
    two = np.where(near, share, np.sin(share * angle) / sine)
    return one * start + two * end
