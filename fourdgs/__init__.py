"""4D Gaussian splatting of an avatar: from a capture to an honest verdict.

The names below are the public face; anything else is private. Nothing here imports plotting, widgets, notebooks,
mesh rendering or CUDA kernels: those come with the modules that need them.
"""

from . import threads as _threads  # noqa: F401  isort: skip  (before anything that imports torch)
from . import paths
from .cameras import Cameras
from .capture import Capture, merge
from .choose_motion import choose_motion
from .compare import Comparison, compare
from .config import TrainConfig
from .data.load import load_capture
from .doctor import Diagnosis, Finding, apply_remedies, diagnose
from .errors import InputError, MissingDependency, OutputError
from .evaluate import evaluate, paired, summary
from .few_cameras import few_cameras
from .folds import fold_summary, folds
from .gaussians import Gaussians, initial_gaussians
from .gaussians_io import at_time, read_ply, write_ply, write_ply_sequence
from .hypothesis import Hypothesis, load_hypothesis, register
from .media import framing, render_path
from .model import Model, RenderOutput, render
from .motion import Deform, Motion, Static
from .path_quality import path_quality
from .production import Promotion, challengers, production, production_history, promote, rollback
from .raster import rasterize
from .rig import load_rig
from .rigged import Rigged
from .runs import Run, load_run, runs, set_price
from .sweep import sweep
from .talking import talk
from .train import train

__version__ = "0.1.0"

__all__ = [
    "Cameras",
    "Capture",
    "Comparison",
    "Deform",
    "Diagnosis",
    "Finding",
    "Gaussians",
    "Hypothesis",
    "InputError",
    "MissingDependency",
    "Model",
    "Motion",
    "OutputError",
    "Promotion",
    "RenderOutput",
    "Rigged",
    "Run",
    "Static",
    "TrainConfig",
    "apply_remedies",
    "at_time",
    "challengers",
    "choose_motion",
    "compare",
    "diagnose",
    "evaluate",
    "few_cameras",
    "fold_summary",
    "folds",
    "framing",
    "initial_gaussians",
    "load_capture",
    "load_hypothesis",
    "load_rig",
    "load_run",
    "merge",
    "paired",
    "path_quality",
    "paths",
    "production",
    "production_history",
    "promote",
    "rasterize",
    "read_ply",
    "register",
    "render",
    "render_path",
    "rollback",
    "runs",
    "set_price",
    "summary",
    "sweep",
    "talk",
    "train",
    "write_ply",
    "write_ply_sequence",
]
