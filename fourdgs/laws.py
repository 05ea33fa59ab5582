"""Laws of held-out PSNR over cameras and times: a few simple shapes, and how they are fitted to measured cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_UNIT = 10.0  # cameras and times are counted in tens, so that the terms of a law are of one size
_DB = 10 / math.log(10)
_BOUNDS = {
    "mse": (math.log(1e-9), 0.0),
    "power": (math.log(0.1), math.log(10.0)),
    "slope": (math.log(1e-3), 3.0),
    "db": (-20.0, 90.0),
}

# Parameters are [..., k] in the space that they are fitted in: logarithms but for a level in dB, so that errors stay
# positive and PSNR never falls with a camera or a time more.


def _mse(db: Any) -> np.ndarray:
    return 10 ** (-np.asarray(db, dtype=np.float64) / 10)


def _powers(x: Any, log_power: np.ndarray) -> np.ndarray:
    return (np.asarray(x, dtype=np.float64) / _UNIT) ** -np.exp(log_power)


def _inverse(ratio: np.ndarray, log_power: np.ndarray) -> np.ndarray:
    """The x at which (x / 10)^-power is ``ratio``; infinite where that is not above 0."""
    with np.errstate(divide="ignore", over="ignore"):
        x = _UNIT * np.exp(-np.log(np.maximum(ratio, 0)) / np.exp(log_power))
    return np.where(ratio > 0, x, np.inf)


def _sum_psnr(p: np.ndarray, cameras: Any, times: Any) -> np.ndarray:
    error = np.exp(p[..., 1]) * _powers(cameras, p[..., 2]) + np.exp(p[..., 3]) * _powers(times, p[..., 4])
    return -_DB * np.log(np.exp(p[..., 0]) + error)


def _sum_times(p: np.ndarray, db: Any, cameras: Any) -> np.ndarray:
    left = _mse(db) - np.exp(p[..., 0]) - np.exp(p[..., 1]) * _powers(cameras, p[..., 2])
    return _inverse(left / np.exp(p[..., 3]), p[..., 4])


def _with_floor(p: np.ndarray) -> np.ndarray:
    """Parameters of the sum without a floor, with one that is nothing."""
    return np.concatenate([np.full((*p.shape[:-1], 1), -np.inf), p], -1)


def _product_psnr(p: np.ndarray, cameras: Any, times: Any) -> np.ndarray:
    return -_DB * np.log(
        np.exp(p[..., 0]) + np.exp(p[..., 1]) * _powers(cameras, p[..., 2]) * _powers(times, p[..., 3])
    )


def _product_times(p: np.ndarray, db: Any, cameras: Any) -> np.ndarray:
    left = _mse(db) - np.exp(p[..., 0])
    return _inverse(left / (np.exp(p[..., 1]) * _powers(cameras, p[..., 2])), p[..., 3])


def _logs_psnr(p: np.ndarray, cameras: Any, times: Any) -> np.ndarray:
    logs = [np.log2(np.asarray(x, dtype=np.float64) / _UNIT) for x in (cameras, times)]
    return p[..., 0] + np.exp(p[..., 1]) * logs[0] + np.exp(p[..., 2]) * logs[1]


def _logs_times(p: np.ndarray, db: Any, cameras: Any) -> np.ndarray:
    octaves = (np.asarray(db, dtype=np.float64) - _logs_psnr(p, cameras, _UNIT)) / np.exp(p[..., 2])
    return _UNIT * 2 ** np.minimum(octaves, 900)


@dataclass(frozen=True)
class Form:
    """A law's shape.

    Attributes:
        kinds: of each parameter, a key of _BOUNDS.
        swap: the order of the parameters in which cameras and times change places.
    """

    words: str
    kinds: tuple[str, ...]
    swap: tuple[int, ...]
    psnr: Callable[..., np.ndarray]
    times: Callable[..., np.ndarray]
    names: tuple[str, ...]


FORMS: dict[str, Form] = {
    "sum with a floor": Form(
        "-10 log10(e + a (C/10)^-p + b (T/10)^-q)", ("mse", "mse", "power", "mse", "power"), (0, 3, 4, 1, 2),
        _sum_psnr, _sum_times, ("e", "a", "p", "b", "q"),
    ),
    "sum": Form(
        "-10 log10(a (C/10)^-p + b (T/10)^-q)", ("mse", "power", "mse", "power"), (2, 3, 0, 1),
        lambda p, c, t: _sum_psnr(_with_floor(p), c, t), lambda p, db, c: _sum_times(_with_floor(p), db, c),
        ("a", "p", "b", "q"),
    ),
    "product with a floor": Form(
        "-10 log10(e + a (C/10)^-p (T/10)^-q)", ("mse", "mse", "power", "power"), (0, 1, 3, 2),
        _product_psnr, _product_times, ("e", "a", "p", "q"),
    ),
    "logarithms": Form(
        "a + b log2(C/10) + c log2(T/10)", ("db", "slope", "slope"), (0, 2, 1), _logs_psnr, _logs_times,
        ("a", "b", "c"),
    ),
}  # fmt: skip
"""PSNR in dB of C cameras and T times. Sums add mean squared errors: what a run cannot learn, what lies between
cameras, and what lies between times."""


# --- fitting ---------------------------------------------------------------------------------------------------------


def fitted(form: Form, cells: np.ndarray, weights: np.ndarray, start: np.ndarray, steps: int = 150) -> np.ndarray:
    """Weighted least squares in dB by Levenberg and Marquardt's method, B fits at once.

    Args:
        cells: [n, 3], cameras, times, dB. weights: [B, n]. start: [B, k].

    Returns:
        [B, k].
    """
    cameras, times, psnr = cells.T
    low, high = np.array([_BOUNDS[kind] for kind in form.kinds]).T
    k = len(low)

    def residuals(p: np.ndarray) -> np.ndarray:  # [..., k] -> [..., n]
        return form.psnr(p[..., None, :], cameras, times) - psnr

    p = np.clip(start, low, high)
    now = residuals(p)
    loss = (weights * now**2).sum(-1)
    damping = np.full(len(p), 1e-2)
    for _ in range(steps):
        moved = residuals(p[:, None] + 1e-6 * np.eye(k))  # [B, k, n]
        jacobian = (moved - now[:, None]) / 1e-6
        normal = np.einsum("bin,bn,bjn->bij", jacobian, weights, jacobian)
        gradient = np.einsum("bin,bn,bn->bi", jacobian, weights, now)
        size = damping[:, None] * (np.einsum("bii->bi", normal) + 1e-6)
        step = np.linalg.solve(normal + size[:, :, None] * np.eye(k), gradient[:, :, None])[..., 0]
        tried = np.clip(p - np.clip(step, -1, 1), low, high)
        found = residuals(tried)
        lower = (weights * found**2).sum(-1)
        better = lower < loss
        p[better], now[better], loss[better] = tried[better], found[better], lower[better]
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-9, 1e9)
    return p


def _starts(form: Form, cells: np.ndarray) -> np.ndarray:
    """Places to start from, [S, k]: small to large floors, flat to steep powers."""
    level = math.log(float(np.median(_mse(cells[:, 2]))))
    choices = {
        "mse": (level - 4, level - 1),
        "power": (-1.0, 0.7),
        "slope": (-1.0, 1.0),
        "db": (float(cells[:, 2].mean()),),
    }
    axes = [choices[kind] for kind in form.kinds]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes)).astype(np.float64)


def best_fit(form: Form, cells: np.ndarray) -> np.ndarray:
    starts = _starts(form, cells)
    found = fitted(form, cells, np.ones((len(starts), len(cells))), starts)
    errors = ((form.psnr(found[:, None], cells[:, 0], cells[:, 1]) - cells[:, 2]) ** 2).sum(-1)
    return found[errors.argmin()]


def left_out_errors(form: Form, cells: np.ndarray, best: np.ndarray) -> np.ndarray:
    """What each cell is mistaken by under the law of all the others: [n], dB."""
    count = len(cells)
    found = fitted(form, cells, 1 - np.eye(count), np.tile(best, (count, 1)))
    return form.psnr(found, cells[:, 0], cells[:, 1]) - cells[:, 2]
