"""4D Gaussian splatting of an avatar: from a capture to an honest verdict.

The names below are the public face; anything else is private. Nothing here imports plotting, widgets, notebooks,
mesh rendering or CUDA kernels: those come with the modules that need them.
"""

from . import threads as _threads  # noqa: F401  isort: skip  (before anything that imports torch)
from . import paths
from .cameras import Cameras
from .capture import Capture, merge
from .config import TrainConfig
from .data.load import load_capture
from .doctor import Diagnosis, Finding, apply_remedies, diagnose
from .errors import InputError, MissingDependency, OutputError
from .evaluate import evaluate, paired, summary
from .gaussians import Gaussians, initial_gaussians
from .model import Model, RenderOutput, render
from .motion import Deform, Motion, Static
from .raster import rasterize
from .runs import Run, load_run, runs
from .train import train

__version__ = "0.1.0"

__all__ = [
    "Cameras",
    "Capture",
    "Deform",
    "Diagnosis",
    "Finding",
    "Gaussians",
    "InputError",
    "MissingDependency",
    "Model",
    "Motion",
    "OutputError",
    "RenderOutput",
    "Run",
    "Static",
    "TrainConfig",
    "apply_remedies",
    "diagnose",
    "evaluate",
    "initial_gaussians",
    "load_capture",
    "load_run",
    "merge",
    "paired",
    "paths",
    "rasterize",
    "render",
    "runs",
    "summary",
    "train",
]
