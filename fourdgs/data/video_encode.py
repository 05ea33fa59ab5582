"""Pictures into an MP4 file: H.264, 4:2:0, BT.709 and tagged so, which every player and browser shows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependency, OutputError
from ..files import write_aside
from ..pictures import to_8_bits
from .video_decode import CONTAINERS, import_av

_SOUNDS = "wav,w64,mp3,aac,flac,aiff,au,caf,ac3"
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
_AAC_FRAME = 1024  # samples; ISO/IEC 14496-3
_BT709, _LIMITED = 1, 1  # matrix, primaries and transfer alike (H.273); AVColorRange


def write_video(
    pictures: Iterable[Any],
    path: str | Path,
    fps: float | Fraction = 25,
    *,
    audio: str | Path | None = None,
    quality: float = 18,
    progress: bool = True,
) -> Path:
    """Write pictures as an H.264 MP4 (yuv420p, index at the front), with a sound track if one is given.

    The video has exactly the pictures' size and number; an odd width or height is padded by one pixel, its edge
    repeated, since 4:2:0 has no odd sizes, and a warning says so. The file is whole or absent.

    Args:
        pictures: [n, H, W, 3], or anything that gives [H, W, 3] one by one (then one is held at a time): numpy or
            torch, uint8, or float in [0, 1] (a renderer's overshoot is clipped). All of one size.
        path: ends in .mp4 (or .m4v, .mov); replaced where it is there.
        fps: pictures a second.
        audio: a file with a sound track (WAV, MP3, M4A, MP4, ...), written as AAC from its first sample. The pictures
            set the length: longer sound is cut at the end of the last picture, with a warning where that is by more
            than a picture (and 0.1 s); shorter sound is followed by silence.
        quality: H.264's constant rate factor, 0 (best) to 51; 18 is hard to tell from the pictures, 23 half the size.
        progress: show a bar.

    Returns:
        The path.

    Raises:
        InputError: there is no picture, one cannot be used, or the audio file has no sound that can be read.
        MissingDependency: PyAV, or H.264 in it, is not installed.
        OutputError: the file cannot be written or the disk is full.
    """
    av = import_av()
    path, rate = Path(path), _rate(fps)
    if path.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        raise InputError(f"ends in {path.suffix!r}", file=path, field="path", remedy="name it something.mp4")
    if not 0 <= quality <= 51:
        raise InputError(f"is {quality}, must be from 0 (best) to 51", field="quality")
    try:
        av.codec.Codec("libx264", "w")
    except (av.FFmpegError, ValueError) as error:
        raise MissingDependency("this PyAV has no H.264 encoder (libx264): pip install av") from error
    total = len(pictures) if hasattr(pictures, "__len__") else None
    checked = _checked(pictures)
    first = next(checked, None)
    if first is None:
        raise InputError("there is no picture to write", field="pictures")
    sound = None if audio is None else _Sound(av, Path(audio))
    try:
        with write_aside(path) as aside:
            try:
                _write(av, aside, first, checked, rate, sound, quality, total if progress else -1)
            except av.FFmpegError as error:
                why = error.strerror or error
                raise OutputError(f"{path}: cannot be written: {why} (free some space, or choose another)") from error
    finally:
        if sound is not None:
            sound.close()
    return path


def sound_duration(path: str | Path) -> float:
    """Seconds of sound in a file: what `write_video` would put beside enough pictures, counted, not the header's word.

    Raises:
        InputError: the file has no sound that can be read.
        MissingDependency: PyAV is not installed.
    """
    sound = _Sound(import_av(), Path(path))
    try:
        samples = sound.count()
    finally:
        sound.close()
    if not samples:
        raise InputError("has no sound that can be read", file=path, field="audio", remedy="export it again as WAV")
    return samples / sound.rate


def sound_samples(path: str | Path) -> tuple[np.ndarray, int]:
    """A file's sound, float32 [1 or 2 channels, n] in [-1, 1], and its samples a second.

    Raises: as `sound_duration`, but that n may be 0.
    """
    sound = _Sound(import_av(), Path(path))
    try:
        return sound.rest(), sound.rate
    finally:
        sound.close()


def _write(
    av: Any,
    aside: Path,
    first: np.ndarray,
    others: Iterator[np.ndarray],
    rate: Fraction,
    sound: _Sound | None,
    quality: float,
    total: int | None,
) -> None:
    """Encode and mux; ``total`` is the length of the bar, None where unknown, -1 for no bar."""
    from tqdm.auto import tqdm

    height, width = first.shape[:2]
    padded = (width + width % 2, height + height % 2)
    if padded != (width, height):
        warnings.warn(
            f"{width}x{height} pictures are padded to {padded[0]}x{padded[1]}, their edge repeated: H.264 in 4:2:0 "
            "has even sizes only",
            stacklevel=3,
        )
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(f"file:{aside}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # x264's macroblock tree reads memory that nobody wrote: with it, the same pictures give another file each time.
        # On rendered avatars the preset costs 7 % of size and 0.1 dB against "medium", and takes a third of its time.
        options = {"crf": f"{quality:g}", "preset": "veryfast", "x264-params": "mbtree=0"}
        video = container.add_stream("libx264", rate=rate, options=options)
        video.width, video.height = padded
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = 1 / rate
        video.codec_context.thread_type = "FRAME"  # PyAV's default cuts each picture into slices, which scales less
        _tag(video.codec_context)
        track = None if sound is None else sound.add_to(container)
        bar = tqdm(_chain(first, others), total=total, desc="video", unit="picture", disable=total == -1, leave=False)
        for index, picture in enumerate(bar):
            if padded != (width, height):
                picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = _yuv(av, reformatter, picture)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(video.encode(frame))
            if sound is not None:  # up to the end of this picture, so that the two lie side by side in the file
                end = int((index + 1) / rate * sound.rate)
                container.mux(sound.encode(track, end))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(sound.encode(track, end, last=True))
            _warn_of_cut(sound, end / sound.rate, float(1 / rate))


def _warn_of_cut(sound: _Sound, end_s: float, picture_s: float) -> None:
    """Say in one sentence that there is more sound than pictures."""
    left_s = sound.left(end_s)
    if left_s > max(picture_s, 0.1):
        warnings.warn(
            f"{sound.path}: the sound goes on for {left_s:.2f} s after the last picture, at {end_s:.2f} s, and is cut "
            "there: give more pictures, or shorter sound",
            stacklevel=4,
        )


def _yuv(av: Any, reformatter: Any, picture: np.ndarray) -> Any:
    """A yuv420p frame, BT.709 limited, of rgb uint8 [H, W, 3] with even sizes."""
    flags = av.video.reformatter.Interpolation
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.color_range = 2
    frame = reformatter.reformat(
        frame,
        format="yuv420p",
        dst_colorspace=av.video.reformatter.Colorspace.ITU709,
        dst_color_range=av.video.reformatter.ColorRange.MPEG,
        # Accurate: without these flags the shortcuts of swscale shift colours by a level.
        interpolation=flags.BICUBIC | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP | flags.ACCURATE_RND,
        threads=1,
    )
    _tag(frame)
    return frame


def _tag(target: Any) -> None:
    target.colorspace = target.color_primaries = target.color_trc = _BT709
    target.color_range = _LIMITED


def _rate(fps: float | Fraction) -> Fraction:
    try:
        # 29.97 and its like are decimals or 1001ths; an MP4's clock can carry both.
        rate = Fraction(fps).limit_denominator(1001)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"is {fps!r}, must be a number", field="fps") from error
    if not Fraction(1, 1000) <= rate <= 1000:
        raise InputError(f"is {fps}, must be from 0.001 to 1000 pictures a second", field="fps")
    return rate


def _chain(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def _checked(pictures: Iterable[Any]) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3], one by one, all of one size."""
    size = None
    for index, picture in enumerate(pictures):
        if hasattr(picture, "detach"):
            picture = picture.detach().cpu().numpy()
        picture = np.asarray(picture)

        def fail(message: str, remedy: str = "", index: int = index) -> InputError:
            return InputError(message, field=f"picture {index}", remedy=remedy)

        if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            remedy = "composite RGBA over a background first" if picture.shape[2:] == (4,) else ""
            raise fail(f"has shape {list(picture.shape)}, must be [H, W, 3]", remedy)
        if size is None:
            size = picture.shape
        elif picture.shape != size:
            raise fail(f"is {picture.shape[1]}x{picture.shape[0]}, the first is {size[1]}x{size[0]}", "resize them")
        if np.issubdtype(picture.dtype, np.floating):
            low, high = float(picture.min()), float(picture.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise fail("holds a NaN or an infinity")
            if high > 2:  # no overshoot goes that far: these are levels up to 255
                raise fail(f"has floats up to {high:g}, must be in [0, 1]", "divide by 255, or give uint8")
            picture = to_8_bits(picture)
        elif picture.dtype != np.uint8:
            raise fail(f"has the type {picture.dtype}, must be uint8, or float in [0, 1]")
        yield picture


class _Sound:
    """The sound of a file as AAC, in step with the pictures."""

    def __init__(self, av: Any, path: Path):
        self.av, self.path = av, path
        remedy = "give a WAV, MP3, M4A or MP4 file with sound"
        if not path.is_file():
            raise InputError("is missing", file=path, field="audio", remedy=remedy)
        try:
            self._container = av.open(
                f"file:{path}",
                container_options={"format_whitelist": f"{CONTAINERS},{_SOUNDS}", "protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except (av.FFmpegError, ValueError) as error:
            raise InputError(f"cannot be opened: {error}", file=path, field="audio", remedy=remedy) from error
        streams = [stream for stream in self._container.streams.audio if stream.codec_context is not None]
        context = streams[0].codec_context if streams else None
        if context is None or not context.sample_rate:
            self._container.close()
            raise InputError("has no sound that can be read", file=path, field="audio", remedy=remedy)
        self.rate = context.sample_rate if context.sample_rate in _AAC_RATES else 48000
        self.layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        told = streams[0].duration
        self._told_s = 0.0 if told is None else float(told * streams[0].time_base)
        self._samples = self._decoded(streams[0])
        self._waiting = np.zeros((1 if self.layout == "mono" else 2, 0), np.float32)
        self._taken = 0  # samples taken from the file
        self._sent = 0  # samples handed to the encoder

    def add_to(self, container: Any) -> Any:
        track = container.add_stream("aac", rate=self.rate, layout=self.layout)
        track.codec_context.bit_rate = 96_000 * len(self._waiting)
        return track

    def close(self) -> None:
        self._container.close()

    def count(self) -> int:
        """How many samples the file has, all of which are taken by this."""
        self._taken += sum(part.shape[1] for part in self._samples)
        return self._taken

    def rest(self) -> np.ndarray:
        """All samples that were not taken yet, [channels, n]."""
        parts = [self._waiting, *self._samples]
        return np.concatenate(parts, axis=1)

    def left(self, end_s: float) -> float:
        """Seconds of sound behind a time, by the file's own word where it has one, else as far as was looked."""
        more = next(self._samples, None)
        heard = self._taken / self.rate
        return (heard if more is None else max(self._told_s, heard + more.shape[1] / self.rate)) - end_s

    def encode(self, track: Any, until: int, last: bool = False) -> list[Any]:
        """Packets of the sound before sample ``until``, as far as they fill AAC frames; ``last``: all of it."""
        while self._taken < until:
            more = next(self._samples, None)
            if more is None:
                break
            self._waiting = np.concatenate([self._waiting, more], axis=1)
            self._taken += more.shape[1]
        # What lies behind ``until`` waits for the next picture, or is never used.
        ready = min(self._taken, until) - self._sent
        packets = []
        while ready >= _AAC_FRAME or (last and ready > 0):
            count = min(ready, _AAC_FRAME)
            part, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
            packets += track.encode(self._frame(part))
            ready -= count
        return packets + track.encode(None) if last else packets

    def _frame(self, samples: np.ndarray) -> Any:
        frame = self.av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self.layout)
        frame.sample_rate, frame.time_base, frame.pts = self.rate, Fraction(1, self.rate), self._sent
        self._sent += samples.shape[1]
        return frame

    def _decoded(self, stream: Any) -> Iterator[np.ndarray]:
        """float32 [channels, samples] at the encoder's rate."""
        resampler = self.av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        try:
            for frame in self._container.decode(stream):
                frame.pts = None  # gaps in damaged files would fill up with silence
                yield from (part.to_ndarray() for part in resampler.resample(frame))
            yield from (part.to_ndarray() for part in resampler.resample(None))
        except (self.av.FFmpegError, IndexError, ValueError) as error:  # the last two: streams that change on the way
            at = self._taken / self.rate
            warnings.warn(f"{self.path}: the sound breaks off after {at:.2f} s: {error}", stacklevel=2)
