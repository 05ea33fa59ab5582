"""The embedded avatar as a rig."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..data.track import HEAD
from .linear import LinearRig

if TYPE_CHECKING:
    from ..data.avatar import Avatar


def anny_rig(avatar: Avatar | None = None, seed: int = 0) -> LinearRig:
    """The rig of an avatar, by default of `fourdgs.data.avatar.build(seed)`; it poses as `Avatar.posed` does.

    Its controls are the avatar's face actions and the head angles, in degrees.

    Raises:
        MissingDependency: anny is not installed.
    """
    from ..data import avatar as avatars

    avatar = avatars.build(seed) if avatar is None else avatar
    count = len(avatar.joints)
    frames, binds = np.tile(np.eye(4), (2, count, 1, 1))
    frames[:, :3, 3] = np.diff(avatar.joints, axis=0, prepend=np.zeros((1, 3)))
    binds[:, :3, 3] = -avatar.joints
    # The controls come as yaw, pitch, roll; the joints' axes as x (pitch), y (yaw), z (roll).
    axes = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    return LinearRig.make(
        avatar.points,
        avatar.faces,
        (*avatar.actions, *HEAD),
        avatar.deltas,
        parents=range(-1, count - 1),
        weights=avatar.weights,
        frames=frames,
        binds=binds,
        turns=np.array(avatars.SHARES)[:, None, None] * axes,
        weld=avatar.weld,
        uv=avatar.uv,
        colors=avatar.colors,
    )
