"""Cameras brought to another number of frames, where no recipe says what lies between them."""

from __future__ import annotations

import numpy as np

from .cameras import Cameras
from .errors import InputError
from .paths import FITS, known_word, passes, whole_number


def closes(cameras: Cameras) -> bool:
    """Whether the step from the last camera to the first is no larger, in place, direction and time, than twice the
    largest within: whether they can be repeated without a seam."""
    if len(cameras) < 3:
        return len(cameras) == 1
    following = cameras[[*range(1, len(cameras)), 0]]
    moved = (following.positions - cameras.positions).norm(dim=-1).double().numpy()
    turned = (following.viewmats[:, :3, :3] - cameras.viewmats[:, :3, :3]).flatten(1).norm(dim=-1).double().numpy()
    times, after = (np.nan_to_num(each.times.double().numpy(), nan=-1e9) for each in (cameras, following))
    steps = np.stack([moved, turned, np.abs(after - times)])  # [3, C]
    # Float32 poses of a camera that stands still differ by rounding.
    return bool((steps[:, -1] <= 2 * steps[:, :-1].max(axis=1) + 1e-5).all())


def fitted(cameras: Cameras, frames: int, fit: str = "auto") -> Cameras:
    """Cameras brought to another number of frames, as `CameraPath.lasting` does, by interpolation between neighbours.

    Centres, intrinsics and times are interpolated linearly, rotations spherically (Shoemake, SIGGRAPH 1985). Times
    more than a half apart are a cut, not a motion: there, as beside frames without a time, the nearest is taken.

    Raises:
        InputError: an unknown ``fit``, or ``loop`` where the last camera does not lead to the first (`closes`).
    """
    known_word(fit, FITS, "fit")
    count = len(cameras)
    if not count:
        raise InputError("there is no camera", field="cameras")
    if fit == "auto":
        fit = "loop" if closes(cameras) else "palindrome"
    elif fit == "loop" and not closes(cameras):
        remedy = "use fit='palindrome'"
        raise InputError("the last camera does not lead to the first, in place or in time", field="fit", remedy=remedy)
    frames = whole_number(frames, "frames")
    if fit == "loop":
        place = passes(frames, "loop", max(1, round(frames / count))) * count
    elif fit == "palindrome":
        place = passes(frames, "palindrome", max(1, round(frames / max(1, 2 * (count - 1))))) * (count - 1)
    else:
        place = passes(frames, "once", 1) * (count - 1)
    return _between(cameras.to("cpu"), place)


def _between(cameras: Cameras, place: np.ndarray) -> Cameras:
    """Cameras at fractional indices [frames] in [0, C); behind the last one comes the first."""
    count = len(cameras)
    before = np.minimum(np.floor(place).astype(np.int64), count - 1)
    share = place - before  # [frames]
    after = (before + 1) % count
    nearest = np.where(share < 0.5, before, after)

    def mixed(values: np.ndarray) -> np.ndarray:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return (1 - weight) * values[before] + weight * values[after]

    from scipy.spatial.transform import Rotation, Slerp  # slow to import

    rotations = Rotation.from_matrix(cameras.viewmats[:, :3, :3].double().numpy())
    around = Rotation.concatenate([rotations, rotations[0]]) if count > 1 else Rotation.concatenate([rotations] * 2)
    turned = Slerp(np.arange(len(around)), around)(np.minimum(place, len(around) - 1)).as_matrix()
    viewmats = np.tile(np.eye(4), (len(place), 1, 1))
    viewmats[:, :3, :3] = turned
    viewmats[:, :3, 3] = -np.einsum("cij,cj->ci", turned, mixed(cameras.positions.double().numpy()))
    times = cameras.times.double().numpy()
    cut = ~(np.abs(times[after] - times[before]) <= 0.5)  # NaN too
    times = np.where(cut, times[nearest], mixed(np.nan_to_num(times)))
    # What lies on a camera is that camera, bit by bit.
    exact = share == 0
    chosen = cameras[before]
    viewmats[exact] = chosen.viewmats[exact].double().numpy()
    return Cameras(viewmats, mixed(cameras.Ks.double().numpy()), chosen.sizes, times)
