"""Pictures out of a video file, one at a time: exact times, true colours, upright, whatever state the file is in.

Times come from the file's own time stamps (a variable frame rate stays one) and count from the first picture that the
clip shows. Colours are converted with the matrix and range that the file names; where it names none, with what players
take: BT.601 up to 576 lines and 1279 columns, BT.709 above, limited range for YUV. Pictures are turned as the display
matrix says and stretched to square pixels, as a player does. What cannot be decoded is left out and said.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependency
from ..pictures import Picture, resize_picture

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,apng,h264,hevc,m4v,ivf,mxf,nut,dv,"
    "yuv4mpegpipe,mjpeg,av1,obu"
)
"""What is opened. Play lists and file name patterns are not: they make a decoder read files that nobody named."""

MAX_PIXELS = 2**26
"""Of one picture. Twice what the highest levels of H.264, HEVC and AV1 that cameras use allow (35.7 million); a broken
header that promises more is refused before memory is asked for."""

_REREAD = 16
"""A file may hand out this many times its own bytes (compressed headers, zlib tracks); beyond, its index is forged."""

_SEEK_BEYOND_S = 5.0
"""Up to here decoding forward is quicker than a seek, which has to be checked."""

_TOLERANCE_S = 1e-6
"""Of a time range: far below the distance of two pictures, far above the rounding of a decimal number."""

_SHORT_FRAMES = 3
"""How many frames earlier than its header says a whole file may end: muxers round, and add the decoder's delay."""

_DURATION_IS_STORED = ("mov", "matroska", "avi", "flv", "asf")
"""Containers with the duration in their header; that of others is guessed from what there is."""

_MATRICES = {1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020", 10: "BT.2020"}
"""AVColorSpace, ITU-T H.273 table 4, as far as the converter knows them."""

_UNSPECIFIED, _LIMITED, _FULL = 0, 1, 2  # AVColorRange
_HDR = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic, H.273 table 3


def import_av() -> Any:
    """PyAV. Raises MissingDependency, naming what to install."""
    try:
        import av
    except ImportError as error:
        raise MissingDependency("reading and writing videos needs the package PyAV: pip install av") from error
    return av


@dataclass(frozen=True)
class Selection:
    """Which frames of a clip: those with ``start_s <= time < end_s``, of them every nth, the first included; ``size``
    is (width, height) to bring them to, None for that of the first one as a player shows it."""

    every: int = 1
    start_s: float = 0.0
    end_s: float = math.inf
    size: tuple[int, int] | None = None

    @classmethod
    def checked(cls, every: Any, start_s: Any, end_s: Any, size: Any) -> Selection:
        """From what a user gave. Raises InputError where that makes no selection."""
        if isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1:
            raise InputError(f"is {every!r}, must be a whole number, at least 1", field="every")
        start = 0.0 if start_s is None else float(start_s)
        end = math.inf if end_s is None else float(end_s)
        if not (math.isfinite(start) and end > start):
            raise InputError(f"are {start:g} and {end:g}: the end must come later", field="start_s, end_s")
        if size is not None:
            try:
                width, height = (int(value) for value in size)
            except (TypeError, ValueError) as error:
                raise InputError(f"is {size!r}, must be (width, height)", field="size") from error
            if min(width, height) < 1 or width * height > MAX_PIXELS:
                raise InputError(f"is {width}x{height}, must be positive and less than 8192x8192", field="size")
            size = (width, height)
        return cls(int(every), start, end, size)


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of a clip: ``time_s`` since the clip's first picture, rgb uint8 [H, W, 3] straight, alpha uint8
    [H, W] or None. ``rgb`` is None where the picture was not asked for."""

    time_s: float
    rgb: np.ndarray | None
    alpha: np.ndarray | None


_EVERYTHING = Selection()


class Clip:
    """A video file, open to be read once; a context manager.

    Attributes:
        path: the file.
        size: (width, height) in pixels of the first picture as a player shows it; (0, 0) before it is decoded.
        color: matrix and range that the first picture was converted with, in words.
        rate: pictures a second as the header has it; 25 where it is silent or absurd.
        pictures: how many decoded so far, taken or not. duration_s: when the last of them is shown.

    Raises:
        InputError: the file is not there, or holds no video that can be opened.
        MissingDependency: PyAV is not installed.
    """

    def __init__(self, path: str | Path):
        self.av = import_av()
        self.path = Path(path)
        self.size = (0, 0)
        self.color = ""
        self.duration_s = 0.0
        self._reformatter = self.av.video.reformatter.VideoReformatter()
        self._open()

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def expected(self, chosen: Selection) -> int:
        """How many frames of a selection the header promises, and the file has bytes for; 0 where it promises none."""
        count = self._stream.frames
        if not count and self._container.duration:
            count = int(self._container.duration / self.av.time_base * self.rate)
        count = min(count, self._bytes)
        first, last = (min(max(0.0, edge) * float(self.rate), count) for edge in (chosen.start_s, chosen.end_s))
        return math.ceil(max(0.0, last - first) / chosen.every)

    @property
    def note(self) -> str:
        """What was wrong or had to be guessed so far, in sentences; empty where nothing was."""
        return " ".join(text[0].upper() + text[1:] + "." for text in [*self._damage_words(), *self._notes])

    def shots(self, chosen: Selection = _EVERYTHING, without: Container[int] = ()) -> Iterator[Shot]:
        """The pictures of a selection, in order.

        Args:
            without: positions in the selection, but for the first, whose pictures need not be made.
        """
        position = -1  # in the range of time
        number = 0  # in the selection
        for time_s, frame in self._timed(chosen.start_s):
            if time_s >= chosen.end_s - _TOLERANCE_S:
                return
            if time_s < chosen.start_s - _TOLERANCE_S:
                continue
            position += 1
            if position % chosen.every:
                continue
            if number and number in without:
                yield Shot(time_s, None, None)
                number += 1
                continue
            try:
                picture, shown = self._picture(frame)
            except (self.av.FFmpegError, ValueError):  # a pixel format that the converter does not know
                self._fault()
                continue
            if not number:
                self.size = shown
            elif shown != self.size:
                self._odd_sizes += 1
            rgb, alpha = resize_picture(picture, *(chosen.size or self.size))
            yield Shot(time_s, rgb, alpha)
            number += 1
        self._check_length()

    # --- inside: the file ---

    def _open(self) -> None:
        self._notes: list[str] = []
        self._faults = 0  # packets that did not decode
        self._first_fault_s = 0.0
        self._mended = 0  # time stamps that were missing or ran backwards
        self._odd_sizes = 0
        self._ended_s = 0.0  # where the last packet of any stream ends
        self.pictures = 0
        if not self.path.is_file():
            raise InputError("is missing" if not self.path.exists() else "is not a file", file=self.path, field="video")
        self._bytes = self.path.stat().st_size
        remedy = "export it again as MP4; a copy that was cut short needs its index (moov) at the front"
        try:
            # "file:" keeps a colon in the name from being taken for a protocol.
            self._container = self.av.open(
                f"file:{self.path}",
                options={"max_pixels": str(MAX_PIXELS)},
                container_options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except (self.av.FFmpegError, ValueError, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"cannot be opened as a video: {why}", file=self.path, remedy=remedy) from error
        streams = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        streams = [stream for stream in streams if stream.codec_context is not None]
        if not streams:
            self._container.close()
            raise InputError("holds no video that can be decoded here", file=self.path, remedy=remedy)
        self._stream = max(streams, key=lambda stream: stream.width * stream.height)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = rate if rate and Fraction(1, 1000) <= rate <= 10_000 else Fraction(25)
        self._counts = self._container.format.name == "avi"  # it numbers its packets and has no time stamps
        self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}

    def _decoded(self) -> Iterator[Any]:
        """Frames in the order of showing, past what does not decode."""
        packets = self._container.demux()
        read = 0
        while True:
            try:
                packet = next(packets, None)
            except (self.av.FFmpegError, IndexError):  # IndexError: PyAV meets a stream that came up on the way
                packet = None
                self._fault()
            if packet is None:  # the decoder still holds pictures when reading broke off
                with contextlib.suppress(self.av.FFmpegError):
                    yield from self._stream.codec_context.decode(None)
                return
            read += packet.size
            if read > _REREAD * self._bytes + 2**20:
                self._notes.append("its index points to the same bytes again and again: reading stopped there")
                return
            if packet.size and packet.pts is not None and packet.time_base:
                self._ended_s = max(self._ended_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index != self._stream.index:
                continue
            if packet.is_corrupt:  # half a packet may decode to half a picture
                self._fault()
                continue
            try:
                frames = packet.decode()
            except self.av.FFmpegError:
                self._fault()
                continue
            yield from frames

    def _fault(self) -> None:
        if not self._faults:
            self._first_fault_s = self.duration_s
        self._faults += 1

    def _from(self, start_s: float) -> Iterator[Any]:
        """The first frame, and then frames from it or from a key frame before ``start_s``."""
        frames = self._decoded()
        first = next(frames, None)
        if first is None:
            return
        yield first
        if start_s > _SEEK_BEYOND_S and first.pts is not None and first.time_base and not self._counts:
            frames.close()
            landed = None
            with contextlib.suppress(self.av.FFmpegError, OverflowError):
                self._container.seek(first.pts + int(start_s / first.time_base), stream=self._stream)
                frames = self._decoded()
                landed = next(frames, None)
            # A broken index lands anywhere: then the clip is read from its front.
            if landed is None or landed.pts is None or (landed.pts - first.pts) * first.time_base > start_s:
                self._container.close()
                self._open()
                frames = self._decoded()
            else:
                frames = itertools.chain([landed], frames)
            frames = (frame for frame in frames if frame.pts is None or frame.pts > first.pts)
        yield from frames

    def _timed(self, start_s: float) -> Iterator[tuple[float, Any]]:
        """Frames with their times, which grow strictly."""
        origin = last = None
        for frame in self._from(start_s):
            self.pictures += 1
            if frame.is_corrupt:
                self._fault()
            now = None if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
            if self._counts and self._stream.codec_context.has_b_frames:
                now = None  # numbers in the order of decoding say nothing about that of showing
            if origin is None:
                origin = now = now or Fraction(0)
            elif now is None or now <= last:
                self._mended += not self._counts
                now = last + 1 / self.rate
            last = now
            self.duration_s = float(last - origin)
            yield self.duration_s, frame

    # --- inside: one picture ---

    def _picture(self, frame: Any) -> tuple[Picture, tuple[int, int]]:
        """The picture upright, pixels as stored otherwise, and (width, height) of it with square pixels."""
        flags = self.av.video.reformatter.Interpolation
        # Without these flags swscale takes shortcuts that darken a picture by one level in the mean.
        exact = flags.BICUBIC | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP | flags.ACCURATE_RND
        has_alpha = any(component.is_alpha for component in frame.format.components)
        self._name_colors(frame)
        whole = self._reformatter.reformat(
            frame,
            format="rgba" if has_alpha else "rgb24",
            interpolation=exact,
            dst_color_range=self.av.video.reformatter.ColorRange.JPEG,
            threads=1,
        )
        turned, flip_x, flip_y = self._turns(frame)
        pixels = whole.to_ndarray()
        pixels = (pixels.transpose(1, 0, 2) if turned else pixels)[::flip_y, ::flip_x]
        alpha = np.ascontiguousarray(pixels[..., 3]) if has_alpha else None
        return (np.ascontiguousarray(pixels[..., :3]), alpha), self._shown_size(pixels, turned)

    def _name_colors(self, frame: Any) -> None:
        """Give the frame the matrix and range to convert it with, where the file leaves them open."""
        words = []
        if not frame.format.is_rgb:
            if frame.colorspace not in _MATRICES:
                frame.colorspace = 1 if frame.height > 576 or frame.width >= 1280 else 6
                words.append("matrix")
            if frame.color_range not in (_LIMITED, _FULL):
                frame.color_range = _FULL if frame.format.name.startswith("yuvj") else _LIMITED
                words.append("range")
        if not self.color:
            full = "RGB" if frame.format.is_rgb else f"{_MATRICES[frame.colorspace]} "
            if not frame.format.is_rgb:
                full += "full range" if frame.color_range == _FULL else "limited range"
            self.color = full + (f" ({' and '.join(words)} assumed: the file names none)" if words else "")
            if frame.color_trc in _HDR:
                self._notes.append(
                    f"its colours are high dynamic range ({_HDR[frame.color_trc]}) and are not tone-mapped: they look "
                    "flat; export it in standard range (BT.709)"
                )
            if frame.interlaced_frame:
                self._notes.append("it is interlaced: what moves has combed edges; deinterlace it first")

    def _turns(self, frame: Any) -> tuple[bool, int, int]:
        """Whether to swap the axes, and then the steps along x and y, from the display matrix.

        It takes a stored pixel (x, y) to (a x + c y, b x + d y), y down (ISO/IEC 14496-12, 8.3.2).
        """
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None or len(bytes(matrix)) < 36:
            return False, 1, 1
        a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
        # All right angles have two zeros of the four; anything else (a tilt, a shear) no camera writes.
        if a and d and not b and not c:
            return False, -1 if a < 0 else 1, -1 if d < 0 else 1
        if b and c and not a and not d:
            return True, -1 if c < 0 else 1, -1 if b < 0 else 1
        self._say("its display matrix is no right angle: the pictures are left as stored")
        return False, 1, 1

    def _shown_size(self, pixels: np.ndarray, turned: bool) -> tuple[int, int]:
        """(width, height) with square pixels."""
        height, width = pixels.shape[:2]
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        # Broadcast formats lie between 1/2 and 2; what is far beyond comes from a broken header.
        if aspect == 1 or not Fraction(1, 4) <= aspect <= 4:
            return width, height
        aspect = 1 / aspect if turned else aspect
        shown = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
        self._say(f"its pixels are not square: {width}x{height} is shown, and read, as {shown[0]}x{shown[1]}")
        return shown

    def _say(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    # --- inside: what to say ---

    def _check_length(self) -> None:
        """After reading to the end: say it where the file promised more."""
        names = self._container.format.name.split(",")
        beyond = 0
        if "mov" in names:
            beyond = sum(entry.pos + entry.size > self._bytes for entry in self._stream.index_entries)
        promised = (self._container.duration or 0) / self.av.time_base
        # Some containers count their duration from zero, some from their start: the kinder reading of the two.
        ended_s = self._ended_s - min(0, self._container.start_time or 0) / self.av.time_base
        if beyond:
            self._notes.insert(0, f"the file is cut short: {beyond} of its pictures lie beyond its end")
        elif any(name in names for name in _DURATION_IS_STORED) and promised > ended_s + _SHORT_FRAMES / self.rate:
            text = f"the file is cut short: its header says {promised:.2f} s, it ends after {ended_s:.2f} s"
            self._notes.insert(0, text)

    def _damage_words(self) -> list[str]:
        words = []
        if self._faults:
            pieces = "piece" if self._faults == 1 else "pieces"
            words.append(
                f"{self._faults} damaged {pieces} did not decode, the first after {self._first_fault_s:.2f} s "
                f"({self.pictures} pictures did); what follows may be smeared up to the next key frame"
            )
        if self._mended:
            words.append(
                f"{self._mended} time stamp{'s' if self._mended > 1 else ''} were missing or ran backwards and were "
                f"counted on at {float(self.rate):.5g} pictures a second"
            )
        if self._odd_sizes:
            words.append(f"{self._odd_sizes} pictures of another size were brought to that of the first")
        return words
