"""A smooth surface through those pixels of a picture that are known: a penalised tensor spline per channel.

Eilers and Marx 1996, "Flexible smoothing with B-splines and penalties"; fitted on a grid of pixels without ever
writing down its design matrix as in Currie, Durban and Eilers 2006, "Generalized linear array models".
"""

from __future__ import annotations

import functools

import numpy as np
from scipy import interpolate, linalg

_KNOTS = 14
"""Spline intervals a side: a transition (wall to floor) may be a tenth of the picture wide, an outline may not."""

STIFFNESS = 1e-3
"""Of the bending penalty, against one pixel's square: only where no pixel is known does it decide."""


@functools.lru_cache(maxsize=8)
def _basis(length: int) -> np.ndarray:
    """[length, m] cubic B-splines at the pixels' centres."""
    at = (np.arange(length) + 0.5) / length * _KNOTS
    return interpolate.BSpline.design_matrix(at, np.arange(-3.0, _KNOTS + 4), 3).toarray()


@functools.lru_cache(maxsize=8)
def _squares(length: int) -> np.ndarray:
    """[length, m * m]: each pixel's products of two splines."""
    basis = _basis(length)
    return (basis[:, :, None] * basis[:, None, :]).reshape(length, -1)


@functools.lru_cache(maxsize=1)
def _bending() -> np.ndarray:
    """[m * m, m * m]: the thin plate's energy in coefficients."""
    one = np.eye(_KNOTS + 3)
    first, second = np.diff(one, axis=0), np.diff(one, 2, axis=0)
    first, second = first.T @ first, second.T @ second
    return np.kron(second, one) + np.kron(one, second) + 2 * np.kron(first, first)


def fit_surface(picture: np.ndarray, weights: np.ndarray, stiffness: float = STIFFNESS) -> np.ndarray:
    """[3, m, m] coefficients of the smooth surface through a picture [h, w, 3], with weights [h, w]."""
    height, width = weights.shape
    down, across = _basis(height), _basis(width)
    m = down.shape[1]
    normal = (_squares(height).T @ weights @ _squares(width)).reshape(m, m, m, m).transpose(0, 2, 1, 3)
    # A breath of ridge, where weights and bending leave a plane free.
    normal = normal.reshape(m * m, m * m) + stiffness * _bending() + 1e-9 * np.eye(m * m)
    right = np.stack([(down.T @ (weights * picture[..., c]) @ across).ravel() for c in range(3)], axis=1)
    return linalg.solve(normal, right, assume_a="pos").T.reshape(3, m, m)


def surface_at(coefficients: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w, 3] float64, at any size (height, width); not clipped."""
    down, across = _basis(size[0]), _basis(size[1])
    return np.stack([down @ part @ across.T for part in coefficients], axis=-1)
