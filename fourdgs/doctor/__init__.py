"""The dataset doctor: see what will go wrong in training before training, and undo it."""

from .finding import SEVERITIES, Finding, Remedy
from .survey import Survey, survey

__all__ = ["SEVERITIES", "Finding", "Remedy", "Survey", "survey"]
