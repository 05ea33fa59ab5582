"""All checks on a capture, worst finding first, and what they add up to in plain words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import pandas as pd
from tqdm.auto import tqdm

from ..capture import Capture
from . import appearance, coverage, poses, quality, structure
from .finding import SEVERITIES, Finding
from .predict import Prediction, predict
from .survey import THUMBNAIL, Survey
from .survey import survey as look

CHECKS: tuple[Callable[[Survey], list[Finding]], ...] = (
    *poses.CHECKS,
    *structure.CHECKS,
    *coverage.CHECKS,
    *appearance.CHECKS,
    *quality.CHECKS,
)


CODES = {
    "axis_convention": "poses are written in another axis convention than they are read in",
    "no_common_point": "the cameras do not look at a common point",
    "poses_off": "poses, lenses or single cameras are off by pixels",
    "camera_time_confounded": "each view has a time of its own, so a movement and a change of view are one",
    "still_frames_timed": "frames of a scene that stood still carry times",
    "one_view_per_time": "a single moving camera saw each moment from one side",
    "no_multiview_signal": "no second camera saw what moved",
    "low_covisibility": "cameras that look on at one time hardly see the same surface",
    "camera_dominates": "one camera takes most of the training steps",
    "source_dominates": "one source takes most of the training steps and shows few views",
    "time_gap": "the subject moves far between two moments that are seen",
    "too_few_cameras": "too few cameras for the radius and field of view",
    "no_held_out": "nothing is held out",
    "held_out_thin": "too little is held out for a figure with an interval",
    "held_out_outside": "held-out views lie far from, or outside, the training cameras",
    "held_out_leaked": "held-out pictures are in the training frames",
    "mixed_resolution": "pictures have different sizes",
    "sources_differ_background": "a source has its own background",
    "sources_differ_color": "a source is brighter, darker or of another tint",
    "sources_differ_scale": "the subject is larger or smaller in a source",
    "sources_differ_silhouette": "the subject has another outline in a source",
    "mask_missing": "some frames lack the mask that others have",
    "mask_inverted": "masks keep the surroundings and cut the subject out",
    "mask_wrong": "masks contradict those of other views or times",
    "frozen_clip": "time goes on, the picture does not",
    "near_duplicates": "frames show the same picture",
    "motion_blur": "frames are smeared against their neighbours",
}
"""What each finding's code means; codes are stable."""


class Diagnosis(list[Finding]):
    """Findings, worst first, with the survey and the prediction that they come from."""

    def __init__(self, findings: Iterable[Finding], survey: Survey, prediction: Prediction):
        super().__init__(findings)
        self.survey, self.prediction = survey, prediction

    def table(self, severity: str = "info") -> pd.DataFrame:
        """One row a finding of at least this severity: severity, finding, loss_db, uncertainty_db, message, remedy,
        automatic (whether `apply_remedies` can do it)."""
        rows = [
            {
                "severity": finding.severity,
                "finding": finding.code,
                "loss_db": finding.predicted_loss_db,
                "uncertainty_db": finding.uncertainty_db,
                "message": finding.message,
                "remedy": finding.remedy.text,
                "automatic": bool(finding.remedy.action),
            }
            for finding in self
            if SEVERITIES.index(finding.severity) >= SEVERITIES.index(severity)
        ]
        columns = ["severity", "finding", "loss_db", "uncertainty_db", "message", "remedy", "automatic"]
        return pd.DataFrame(rows, columns=columns)

    def verdict(self) -> str:
        """What to expect, why, and what to do, in a few plain sentences."""
        errors, warnings = (sum(finding.severity == name for finding in self) for name in ("error", "warning"))
        expected = self.prediction.sentence()
        if not errors and not warnings:
            return " ".join(["Nothing stands in the way of a training on this capture.", expected]).strip()
        worst = self[0]
        head = "This capture will not train well as it is." if errors else "This capture will train, with losses."
        counted = _count(errors, "error") + (" and " if errors and warnings else "") + _count(warnings, "warning")
        parts = [head, expected, f"There {'is' if (errors or warnings) == 1 else 'are'} {counted}. {worst.message}"]
        serious = [finding for finding in self if finding.severity != "info"]
        cure = [finding for finding in serious if finding.remedy.action]
        if cure:
            after = self.prediction.cured([finding.code for finding in cure])
            gain = after.psnr_db - self.prediction.psnr_db
            what = f"`apply_remedies` can deal with {_of(len(cure), len(serious))}"
            if math.isfinite(gain) and gain >= 0.1:
                what += f", which should win back about {gain:.0f} dB" if gain >= 2 else f", for about {gain:.1f} dB"
            parts.append(what + ".")
        left = [finding for finding in serious if not finding.remedy.action]
        if left:
            parts.append(f"What only you can do first: {left[0].remedy.text}")
        return " ".join(part for part in parts if part)


def _count(number: int, noun: str) -> str:
    return "" if not number else f"{number} {noun}{'s' if number > 1 else ''}"


def _of(part: int, whole: int) -> str:
    if part < whole:
        return f"{part} of them"
    return "it" if whole == 1 else "both" if whole == 2 else "all of them"


def diagnose(capture: Capture, *, size: int = THUMBNAIL, cache: bool = True, progress: bool = True) -> Diagnosis:
    """What will go wrong when this capture is trained on, how badly, why, and what to do.

    Splits matter: ``train`` is what will be trained on, ``test`` what it will be judged by.

    Args:
        size: of the thumbnails that everything is measured on, pixels. cache: keep them; see `survey`.
        progress: show bars.

    Returns:
        `Finding`s, errors first, within a severity the costliest first; ``.verdict()`` says it in plain words,
        ``.table()`` as a table, ``.prediction`` is the PSNR to expect.

    Raises:
        InputError: a picture cannot be read, or the capture has no training frames.
    """
    capture.select(split="train")  # says what there is, where there are none
    seen = look(capture, size, cache=cache, progress=progress)
    findings: list[Finding] = []
    for check in tqdm(CHECKS, desc="checks", unit="check", disable=not progress, leave=False):
        findings += check(seen)
    prediction = predict(seen)
    findings = [_with_loss(finding, prediction) for finding in findings]
    return Diagnosis(sorted(findings, key=_rank), seen, prediction)


def _with_loss(finding: Finding, prediction: Prediction) -> Finding:
    if finding.severity == "info":
        return finding
    loss, uncertainty = prediction.loss_db(finding.code)
    return replace(finding, predicted_loss_db=loss, uncertainty_db=uncertainty)


def _rank(finding: Finding) -> tuple:
    loss = finding.predicted_loss_db
    return -SEVERITIES.index(finding.severity), -(loss if math.isfinite(loss) else 0.0), finding.code
