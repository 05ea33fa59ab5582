"""The dataset doctor: see what will go wrong in training before training, and undo it."""

from .diagnose import Diagnosis, diagnose
from .finding import SEVERITIES, Finding, Remedy
from .predict import Prediction, predict
from .remedies import apply_remedies, plan
from .survey import Survey, survey

__all__ = [
    "SEVERITIES",
    "Diagnosis",
    "Finding",
    "Prediction",
    "Remedy",
    "Survey",
    "apply_remedies",
    "diagnose",
    "plan",
    "predict",
    "survey",
]
