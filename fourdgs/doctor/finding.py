"""What the doctor says: a finding, and what can be done about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

SEVERITIES = ("info", "warning", "error")
"""info: good to know. warning: costs decibels or trust. error: the training, or the figure it gives, will be wrong."""


@dataclass(frozen=True)
class Remedy:
    """What to do about a finding.

    Attributes:
        text: a sentence that its reader can act on.
        action: what `apply_remedies` does about it; "" where only a person can.
        arguments: of the action, JSON values.
    """

    text: str = ""
    action: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Finding:
    """Something about a capture that will cost decibels, or trust in them.

    Attributes:
        code: a stable name, as in `fourdgs.doctor.diagnose.CODES`.
        severity: info, warning or error; see `SEVERITIES`.
        message: one plain sentence, with its figures.
        evidence: a small table.
        plot: the figure that shows it (coverage, sources, backdrop, cameras, timeline, pictures), or "".
        remedy: what to do.
        frames: names of frames that it is about, the worst first; at most a few dozen.
        predicted_loss_db: what it costs in held-out PSNR, given all the other findings; NaN where that is not known.
        uncertainty_db: one standard deviation of that.
    """

    code: str
    severity: str
    message: str
    evidence: pd.DataFrame
    plot: str = ""
    remedy: Remedy = Remedy()
    frames: tuple[str, ...] = ()
    predicted_loss_db: float = math.nan
    uncertainty_db: float = math.nan

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"{self.severity!r} is no severity: {', '.join(SEVERITIES)}")

    def __repr__(self) -> str:
        loss = "" if math.isnan(self.predicted_loss_db) else f", -{self.predicted_loss_db:.1f} dB"
        return f"Finding({self.code}, {self.severity}{loss}: {self.message})"
