"""What drives a rig over time: tracks of named controls, read from files, drawn from a seed or heard in a sound."""

from .audio import from_audio
from .frames import drive_table
from .names import ARKIT, EYES, HEAD, plain_name
from .readers import load_track
from .speech import speech_like
from .track import DriveTrack

__all__ = [
    "ARKIT",
    "EYES",
    "HEAD",
    "DriveTrack",
    "drive_table",
    "from_audio",
    "load_track",
    "plain_name",
    "speech_like",
]
