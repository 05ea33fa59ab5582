"""The smallest rig that bends."""

from __future__ import annotations

import torch

from fourdgs.rig import LinearRig


def tent_rig() -> LinearRig:
    """Two slopes; one control folds them, another turns all about y."""
    points = torch.tensor([[x, 0.3 * (x == 0), z] for z in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)])
    faces = torch.tensor([face for a in (0, 1, 3, 4) for face in ((a, a + 3, a + 1), (a + 1, a + 3, a + 4))])
    deltas = torch.zeros(1, 9, 3)
    deltas[0, :, 1] = points[:, 0].abs()
    turns = torch.tensor([[[0.0], [1.0], [0.0]]])
    joint = {"parents": (-1,), "weights": torch.ones(9, 1), "turns": turns}
    return LinearRig.make(points, faces, ("fold", "headYaw"), deltas, **joint)
