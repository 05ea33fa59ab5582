from __future__ import annotations

import ast
import contextlib
import math
import os
import sys
import time
import warnings
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fourdgs import Cameras, InputError, MissingDependency, OutputError, load_capture
from fourdgs.data import video, video_decode, video_encode
from fourdgs.data.video import read_video, video_capture, write_video
from fourdgs.pictures import resize_picture

av = pytest.importorskip("av")

GREEN_SCREEN = Path(__file__).parents[2] / "shared/data/talking_clip/green_screen.mp4"
KINDS = {"mp4": "mp4", "mkv": "matroska", "avi": "avi", "ts": "mpegts", "flv": "flv"}


def pictures(count: int, width: int = 64, height: int = 48) -> np.ndarray:
    """[count, H, W, 3] uint8: smooth colours that drift, and a white bar that tells one frame from the next."""
    y, x = np.mgrid[0:height, 0:width]
    result = np.empty((count, height, width, 3), np.uint8)
    for k in range(count):
        waves = [np.sin((x + 2 * k) / 17), np.cos((y - k) / 13), np.sin((x + y + k) / 23)]
        result[k] = np.stack([128 + 90 * wave for wave in waves], -1)
        result[k, : height // 4, : 1 + k * width // count] = 235
    return result


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    kind: str = "mp4",
    ticks: list[int] | None = None,
    base: Fraction = Fraction(1, 25),
    crf: int = 12,
    keys: int = 12,
    prepare=lambda stream: None,
    faststart: bool = True,
) -> Path:
    """A video written without `write_video`: any container, any time stamps, frames of any pixel format."""
    options = {"movflags": "+faststart"} if kind == "mp4" and faststart else {}
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "g": str(keys)})
        first = frames[0]
        stream.height, stream.width = (first.height, first.width) if hasattr(first, "planes") else first.shape[:2]
        stream.pix_fmt = first.format.name if hasattr(first, "planes") else "yuv420p"
        stream.codec_context.time_base = base
        prepare(stream)
        for index, frame in enumerate(frames):
            frame = frame if hasattr(frame, "planes") else av.VideoFrame.from_ndarray(frame, format="rgb24")
            frame.pts, frame.time_base = (index if ticks is None else ticks[index]), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def read(path: Path, **options) -> video.Video:
    return read_video(path, progress=False, **options)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """40 frames at 25 fps, a key frame every 12."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", pictures(40))


@pytest.fixture(autouse=True)
def unexpected_warnings_fail():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


# --- round trips ---


@pytest.mark.parametrize("fps", [25, 24, 12.5, Fraction(30000, 1001), 29.97])
def test_what_is_written_is_read_again(tmp_path, fps):
    frames = pictures(20, 96, 64)
    path = write_video(frames, tmp_path / "a.mp4", fps, progress=False)
    back = read(path)
    assert back.frames.shape == frames.shape and back.frames.dtype == np.uint8 and back.note == ""
    assert np.abs(back.times_s - np.arange(20) / float(fps)).max() < 1e-9
    assert back.fps == pytest.approx(float(fps), rel=1e-9)
    assert psnr(back.frames, frames) > 36
    assert all(psnr(back.frames[k], frames[k]) > psnr(back.frames[k], frames[(k + 1) % 20]) for k in range(20))
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_better_quality_is_closer_and_larger(tmp_path):
    frames = pictures(12)
    paths = [write_video(frames, tmp_path / f"{q}.mp4", quality=q, progress=False) for q in (4, 18, 40)]
    sizes, scores = [p.stat().st_size for p in paths], [psnr(read(p).frames, frames) for p in paths]
    assert sizes == sorted(sizes, reverse=True) and scores == sorted(scores, reverse=True)
    assert scores[0] > 40  # what 4:2:0 leaves of the edge of the bar


def test_floats_tensors_and_iterators_are_the_same_pictures(tmp_path):
    frames = pictures(6)
    floats = frames.astype(np.float32) / 255
    given = [frames, floats, torch.from_numpy(floats), iter(frames), (f * 1.0 for f in floats), list(floats)]
    files = [write_video(g, tmp_path / f"{i}.mp4", progress=False).read_bytes() for i, g in enumerate(given)]
    assert all(file == files[0] for file in files)
    overshoot = np.clip(floats, 0, 1).copy()
    overshoot[frames == 235], dark = 1.2, frames.copy()
    dark[frames == 235] = 255
    assert write_video(overshoot, tmp_path / "o.mp4", progress=False).read_bytes() == (
        write_video(dark, tmp_path / "d.mp4", progress=False).read_bytes()
    )


def test_an_iterator_is_streamed(tmp_path):
    held = []

    def frames():
        for frame in pictures(30):
            held.append(len(list(tmp_path.glob(".*.mp4"))))
            yield frame

    write_video(frames(), tmp_path / "a.mp4", progress=False)
    assert held[0] == 0 and set(held[2:]) == {1}  # the file is being written while pictures still come


def test_what_is_written_is_what_players_expect(tmp_path):
    path = write_video(pictures(5), tmp_path / "a.mp4", progress=False)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 64, 48)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert stream.average_rate == 25 and stream.frames == 5
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")  # plays before all of it is loaded


@pytest.mark.parametrize(("width", "height"), [(45, 31), (46, 31), (45, 30), (1, 1)])
def test_odd_sizes_are_padded_by_their_edge_and_it_is_said(tmp_path, width, height):
    frames = pictures(4, width, height)
    with pytest.warns(UserWarning, match=rf"{width}x{height} pictures are padded to") as record:
        path = write_video(frames, tmp_path / "a.mp4", quality=4, progress=False)
    assert record[0].filename == __file__
    back = read(path).frames
    assert back.shape == (4, height + height % 2, width + width % 2, 3)
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert psnr(back, padded) > 34


# --- colours ---

KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # ITU-T H.273, table 4


def yuv(colors: np.ndarray, matrix: int, full: bool) -> list[np.ndarray]:
    """Rounded Y, Cb, Cr of [..., 3] uint8 R'G'B', after H.273 equations 38 to 43."""
    kr, kb = KR_KB[matrix]
    r, g, b = np.moveaxis(colors / 255.0, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    levels = (255 * y, 255 * cb + 128, 255 * cr + 128) if full else (16 + 219 * y, 224 * cb + 128, 224 * cr + 128)
    return [np.clip(np.rint(level), 0, 255).astype(np.uint8) for level in levels]


def yuv_frame(colors: np.ndarray, matrix: int, full: bool, block: int = 16):
    """Flat blocks of colour as a yuv420p frame."""
    big = colors.repeat(block, 0).repeat(block, 1)
    planes = yuv(big, matrix, full)
    frame = av.VideoFrame(big.shape[1], big.shape[0], "yuv420p")
    for plane, values in zip(frame.planes, [planes[0], planes[1][::2, ::2], planes[2][::2, ::2]], strict=True):
        lines = np.zeros((plane.height, plane.line_size), np.uint8)
        lines[:, : plane.width] = values
        plane.update(lines.tobytes())
    return frame


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(("matrix", "rows"), [(1, 4), (5, 4), (6, 4), (9, 4), (6, 45), (None, 4), (None, 45)])
def test_colours_come_back_by_the_matrix_and_range_of_the_file(tmp_path, matrix, full, rows):
    colors = np.random.default_rng(0).integers(0, 256, (rows, 4, 3))
    really = matrix or (6 if rows == 4 else 1)  # 720 lines are HD
    frame = yuv_frame(colors, really, full)

    def tag(stream):
        stream.codec_context.options = {**stream.codec_context.options, "qp": "0"}  # lossless
        if matrix is not None:
            stream.codec_context.colorspace = frame.colorspace = matrix
        stream.codec_context.color_range = frame.color_range = 2 if full else 1

    back = read(encode(tmp_path / "a.mp4", [frame], prepare=tag))
    seen = back.frames[0][8::16, 8::16].astype(int)
    # Half a level of each of Y, Cb and Cr, through the inverse matrix: up to 2.3 levels of R'G'B'.
    assert np.abs(seen - colors).max() <= 2
    assert abs((seen - colors).mean()) < 0.5  # no cast
    assert ("assumed" in back.color) == (matrix is None)
    assert ("full" in back.color) == full


def test_flat_colours_survive_the_round_trip(tmp_path):
    colors = np.random.default_rng(1).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    path = write_video([colors.repeat(16, 0).repeat(16, 1)] * 2, tmp_path / "a.mp4", quality=1, progress=False)
    assert np.abs(read(path).frames[1][8::16, 8::16].astype(int) - colors).max() <= 4


def test_high_dynamic_range_is_named(tmp_path):
    def tag(stream):
        stream.codec_context.color_trc = 16

    with pytest.warns(UserWarning, match="PQ"):
        back = read(encode(tmp_path / "a.mp4", pictures(2), prepare=tag))
    assert "not tone-mapped" in back.note


def test_alpha_comes_along(tmp_path):
    rgba = np.concatenate([pictures(3), np.full((3, 48, 64, 1), 255, np.uint8)], -1)
    rgba[:, :, :32, 3] = 64
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        for index, pixels in enumerate(rgba):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    back = read(tmp_path / "a.mov")
    assert np.array_equal(back.frames, rgba[..., :3]) and np.array_equal(back.alpha, rgba[..., 3])
    capture = video_capture(tmp_path / "a.mov", folder=tmp_path / "c", progress=False)
    assert capture.has_alpha and np.array_equal(capture.pictures()[1].numpy(), rgba[..., 3])


# --- geometry ---


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda p: p),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1, (1, 2))),  # what a phone held upright writes
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2, (1, 2))),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1, (1, 2))),
        ((-1, 0, 0, 1), lambda p: p[:, :, ::-1]),
        ((1, 0, 0, -1), lambda p: p[:, ::-1]),
        ((0, 1, 1, 0), lambda p: p.transpose(0, 2, 1, 3)),
        ((0, -1, -1, 0), lambda p: p.transpose(0, 2, 1, 3)[:, ::-1, ::-1]),
    ],
)
def test_pictures_are_turned_upright(tmp_path, matrix, turn):
    frames = pictures(3)
    a, b, c, d = (value << 16 for value in matrix)

    def prepare(stream):
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])

    back = read(encode(tmp_path / "a.mp4", frames, crf=4, prepare=prepare))
    assert psnr(back.frames, turn(frames)) > 40
    assert back.shown == back.frames.shape[2:0:-1] and back.note == ""


def test_a_tilt_is_left_alone_and_said(tmp_path):
    frames = pictures(3)
    path = encode(tmp_path / "a.mp4", frames, prepare=lambda stream: stream.set_display_rotation(30))
    with pytest.warns(UserWarning, match="no right angle"):
        assert psnr(read(path).frames, frames) > 34


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (85, 48)), (Fraction(1, 2), (64, 96))])
def test_pixels_are_made_square(tmp_path, aspect, size):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = aspect

    with pytest.warns(UserWarning, match="not square"):
        back = read(encode(tmp_path / "a.mp4", pictures(2), prepare=prepare))
    assert back.shown == size and back.frames.shape == (2, size[1], size[0], 3)


@pytest.mark.parametrize("size", [(32, 24), (31, 17), (64, 48), (80, 100)])
def test_a_size_is_the_area_mean_of_the_whole(clip, size):
    whole, small = read(clip, every=10), read(clip, every=10, size=size)
    expected = np.stack([resize_picture((frame, None), *size)[0] for frame in whole.frames])
    assert np.array_equal(small.frames, expected)
    assert small.shown == (64, 48)


# --- which frames, and when ---


def test_time_stamps_rule_where_the_rate_varies(tmp_path):
    ticks = [0, 30, 71, 99, 180, 181, 300, 1000]  # milliseconds
    path = encode(tmp_path / "a.mp4", pictures(8), ticks=ticks, base=Fraction(1, 1000))
    back = read(path)
    assert np.abs(back.times_s - np.array(ticks) / 1000).max() < 1e-9
    assert back.fps == pytest.approx(7.0) and back.note == ""
    capture = video_capture(path, progress=False)
    assert np.abs(capture.frames.time.to_numpy() - np.array(ticks) / 1000).max() < 1e-9


def test_times_count_from_the_first_picture(tmp_path):
    path = encode(tmp_path / "a.mkv", pictures(5), kind="matroska", ticks=[50, 51, 52, 53, 54])
    assert np.abs(read(path).times_s - np.arange(5) / 25).max() < 1e-9


def test_every_nth_of_a_range_is_a_slice(clip):
    whole = read(clip)
    for every in (1, 2, 3, 7, 39, 40, 1000):
        part = read(clip, every=every, start_s=0.28, end_s=1.2)
        wanted = slice(7, 30, every)
        assert np.array_equal(part.frames, whole.frames[wanted])
        assert np.array_equal(part.times_s, whole.times_s[wanted])


def test_ranges_that_touch_share_nothing_and_miss_nothing(clip):
    whole = read(clip)
    edges = [None, 0.04, 0.28, 7 / 25 + 1 / 50, 0.72, 1.16, None]
    parts = [read(clip, start_s=a, end_s=b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    assert np.array_equal(np.concatenate([part.times_s for part in parts]), whole.times_s)
    assert np.array_equal(np.concatenate([part.frames for part in parts]), whole.frames)


@pytest.mark.parametrize("kind", KINDS)
def test_jumping_ahead_gives_the_same_frames(tmp_path, kind):
    path = encode(tmp_path / "a.bin", pictures(90, 32, 32), kind=KINDS[kind], base=Fraction(1, 10))
    whole = read(path)
    assert len(whole) == 90 and whole.note == ""
    for start_s, end_s in ((5.5, 6.0), (7.21, None), (8.9, None)):
        part = read(path, start_s=start_s, end_s=end_s)
        inside = (whole.times_s >= start_s - 1e-6) & (whole.times_s < (end_s or math.inf) - 1e-6)
        assert np.allclose(part.times_s, whole.times_s[inside], atol=1e-9, rtol=0)
        assert np.array_equal(part.frames, whole.frames[inside])
    with video_decode.Clip(path) as opened:
        list(opened.shots(video_decode.Selection(start_s=8.0)))
        assert opened.pictures < 45 or kind not in ("mp4", "mkv")  # it did jump, where there is an index to jump by


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
        ({"start_s": 1.0, "end_s": 1.0}, "end must come later"),
        ({"start_s": math.nan}, "end must come later"),
        ({"size": (0, 10)}, "size"),
        ({"size": 64}, "size"),
        ({"size": (100_000, 100_000)}, "size"),
        ({"start_s": 2.0}, "last one that decodes is at 1.560 s"),
        ({"start_s": 60.0, "end_s": 61.0}, "last one that decodes is at 1.560 s"),
    ],
)
def test_selections_that_cannot_be(clip, options, word):
    with pytest.raises(InputError, match=word):
        read(clip, **options)


def test_frames_that_do_not_fit_into_memory_are_refused_at_once(clip, monkeypatch, tmp_path):
    monkeypatch.setattr(video, "free_memory", lambda: 2 * 20 * 64 * 48 * 3)
    with pytest.raises(InputError, match="40 frames of 64x48 take .* GB.*folder="):
        read(clip)
    assert len(read(clip, every=2)) == 20
    assert len(read(clip, end_s=0.8)) == 20
    assert len(video_capture(clip, folder=tmp_path / "c", progress=False)) == 40
    stream = encode(tmp_path / "a.ts", pictures(40), kind="mpegts")  # its header promises nothing
    with pytest.raises(InputError, match="take .* GB"):
        read(stream)


def test_free_memory_is_a_number_of_bytes():
    assert 2**24 < video.free_memory() < 2**50


# --- captures ---


@pytest.mark.parametrize("stored", [False, True])
def test_a_clip_is_a_capture(clip, tmp_path, stored):
    folder = tmp_path / "capture" if stored else None
    capture = video_capture(clip, folder=folder, source="talk", split="val", every=3, size=(32, 24), progress=False)
    whole = read(clip, every=3, size=(32, 24))
    assert np.array_equal(capture.pictures()[0].numpy(), whole.frames)
    times = capture.frames.time.to_numpy()
    assert times[0] == 0 and times[-1] == 1
    assert np.allclose(times * whole.times_s[-1], whole.times_s, atol=1e-9)
    assert set(capture.frames.source) == {"talk"} and set(capture.frames.split) == {"val"}
    assert set(capture.frames.camera) == {"talk"} and len(capture.cameras.viewmats.unique(dim=0)) == 1
    K = capture.cameras.Ks[0]
    assert 2 * math.degrees(math.atan(16 / K[0, 0])) == pytest.approx(36, abs=1e-3) and K[0, 0] == K[1, 1]
    assert capture.cameras.positions[0].tolist() == pytest.approx([0, 0, 4], abs=1e-5)
    if stored:
        again = load_capture(folder)
        assert again.digest() == capture.digest() and list(again.frames.frame) == list(capture.frames.frame)
        assert np.allclose(again.frames.time, times, atol=1e-12)
        assert sorted(file.name for file in folder.iterdir()) == ["pictures", "transforms_val.json", "video.json"]


def test_one_frame_is_a_still(clip):
    assert math.isnan(video_capture(clip, end_s=0.03, progress=False).frames.time[0])


def test_a_stretched_size_keeps_the_rays(clip):
    plain, stretched = (video_capture(clip, end_s=0.1, size=size, progress=False) for size in (None, (32, 48)))
    assert torch.allclose(stretched.cameras.Ks, plain.cameras.resized(32, 48).Ks)


def camera(width: int, height: int, count: int = 1) -> Cameras:
    positions = np.stack([np.linspace(0, 1, count), np.zeros(count), np.full(count, 3.0)], -1)
    return Cameras.look_at(positions, fov_x_deg=50, width=width, height=height, times=0.25)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (640, 480), (32, 24), (1366, 1024), (13, 10)])
def test_a_given_camera_is_brought_to_the_pictures_size(clip, width, height):
    given = camera(width, height)
    capture = video_capture(clip, given, every=20, size=(32, 24), camera_name="left", progress=False)
    assert torch.equal(capture.cameras.viewmats, given.viewmats.expand(2, 4, 4))
    assert torch.allclose(capture.cameras.Ks[0], given.resized(32, 24).Ks[0])
    assert capture.cameras.times.tolist() == [0, 1] and set(capture.frames.camera) == {"left"}


def test_a_camera_for_each_frame(clip, tmp_path):
    given = camera(64, 48, count=10)
    capture = video_capture(clip, given, every=4, folder=tmp_path / "c", progress=False)
    assert torch.allclose(load_capture(tmp_path / "c").cameras.viewmats, given.viewmats, atol=1e-6)
    assert capture.frames.camera.nunique() == 10 and capture.frames.time.is_monotonic_increasing


@pytest.mark.parametrize(("given", "word"), [(camera(64, 64), "no scale"), (camera(64, 48, 3), "3 cameras for 40")])
def test_cameras_that_do_not_fit(clip, given, word):
    with pytest.raises(InputError, match=word):
        video_capture(clip, given, progress=False)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 7, 39])
def test_a_broken_run_goes_on(clip, tmp_path, monkeypatch, after):
    folder, saved, save = tmp_path / "c", [], video._save

    def dies(file, shot):
        if len(saved) >= after:
            file.parent.mkdir(parents=True, exist_ok=True)
            (file.parent / f".{file.stem}-half.png").write_bytes(b"\x89PNG")  # what a killed process leaves behind
            raise Killed
        saved.append(file.name)
        save(file, shot)

    def counts(file, shot):
        saved.append(file.name)
        save(file, shot)

    monkeypatch.setattr(video, "_save", dies)
    with pytest.raises(Killed):
        video_capture(clip, folder=folder, size=(32, 24), progress=False)
    with pytest.raises(InputError, match="holds no"):
        load_capture(folder)
    for file in (folder / "pictures").glob("[0-9]*.png"):
        Image.open(file).load()
    monkeypatch.setattr(video, "_save", counts)
    capture = video_capture(clip, folder=folder, size=(32, 24), progress=False)
    assert len(saved) == len(set(saved)) == 40  # nothing twice
    assert len(list((folder / "pictures").iterdir())) == 40  # and no leftovers
    assert np.array_equal(capture.pictures()[0], read(clip, size=(32, 24)).frames)


def test_a_finished_run_is_not_decoded_again(clip, tmp_path, monkeypatch):
    first = video_capture(clip, folder=tmp_path / "c", every=8, progress=False)
    monkeypatch.setattr(video, "Clip", None)
    given = camera(640, 480)
    again = video_capture(clip, given, folder=tmp_path / "c", every=8, split="test", source="b", progress=False)
    assert list(again.frames.image) == list(first.frames.image)
    assert load_capture(tmp_path / "c").splits == ["test"]
    assert torch.allclose(load_capture(tmp_path / "c").cameras.viewmats[0], given.viewmats[0], atol=1e-6)


def test_a_lost_picture_is_made_again(clip, tmp_path):
    first = video_capture(clip, folder=tmp_path / "c", progress=False)
    digest = first.digest()
    (tmp_path / "c/pictures/00011.png").unlink()
    assert video_capture(clip, folder=tmp_path / "c", progress=False).digest() == digest


def test_a_folder_with_something_else_is_left_alone(clip, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        video_capture(clip, folder=tmp_path / "c", progress=False)
    video_capture(clip, folder=tmp_path / "d", every=20, progress=False)
    for options in ({"every": 10}, {"every": 20, "size": (32, 24)}, {"every": 20, "start_s": 0.1}):
        with pytest.raises(InputError, match="another video, or another range"):
            video_capture(clip, folder=tmp_path / "d", progress=False, **options)
    other = encode(tmp_path / "other.mp4", pictures(41))
    with pytest.raises(InputError, match="another video"):
        video_capture(other, folder=tmp_path / "d", every=20, progress=False)
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["notes.txt"]


# --- files in a bad state ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_not_called_damaged(tmp_path, kind):
    back = read(encode(tmp_path / "a.bin", pictures(40), kind=KINDS[kind]))
    assert len(back) == 40 and back.note == ""
    assert np.abs(back.times_s - np.arange(40) / 25).max() < 1e-9


def test_longer_sound_is_no_damage(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for frame in pictures(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 24000), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(track.encode(sound))
        container.mux(track.encode(None))
    assert read(path).note == ""


@pytest.mark.parametrize("kind", ["mp4", "mkv", "flv"])
@pytest.mark.parametrize("share", [0.4, 0.5, 0.65, 0.8])
def test_a_truncated_file_gives_what_is_whole_and_says_so(tmp_path, kind, share):
    path = encode(tmp_path / "a.bin", pictures(60), kind=KINDS[kind])
    whole = read(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.warns(UserWarning, match="cut short") as record:
        part = read(path)
    assert record[0].filename == __file__
    assert 5 < len(part) < 60 and "cut short" in part.note
    index = np.rint(part.times_s * 25).astype(int)
    assert np.array_equal(part.frames, whole.frames[index])  # not one half picture among them
    with pytest.warns(UserWarning, match="cut short"):
        capture = video_capture(path, folder=tmp_path / "c", progress=False)
    assert len(load_capture(tmp_path / "c")) == len(capture) == len(part)


def test_a_damaged_place_costs_little_and_is_said(tmp_path):
    path = encode(tmp_path / "a.mp4", pictures(60), keys=10)
    whole = read(path)
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 100] = bytes(100)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged piece"):
        part = read(path)
    index = np.rint(part.times_s * 25).astype(int)
    good = (np.abs(part.frames.astype(int) - whole.frames[index]).max((1, 2, 3)) <= 2).sum()
    assert good >= 35


def no_video(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.mp4"
    if kind == "moov lost":
        data = encode(path, pictures(20), faststart=False).read_bytes()
        path.write_bytes(data[: data.index(b"moov")])
    elif kind == "folder":
        path.mkdir()
    elif kind == "picture":
        Image.fromarray(pictures(1)[0]).save(path, format="png")
    elif kind == "play list":
        encode(tmp_path / "real.mp4", pictures(2))
        path.write_text("ffconcat version 1.0\nfile real.mp4\n")
    elif kind == "sound":
        tone(tmp_path / "tone.wav", 0.2).rename(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"hello\n" * 50, "zeros": bytes(5000)}[kind])
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "folder", "empty", "text", "zeros", "picture", "play list", "sound", "fifo", "moov lost"]
)
def test_a_file_without_a_frame_is_one_clear_error(tmp_path, kind):
    path = no_video(tmp_path, kind)
    with pytest.raises(InputError, match=path.name):
        read(path)
    with pytest.raises(InputError, match=path.name):
        video_capture(path, folder=tmp_path / "c", progress=False)
    assert not (tmp_path / "c").exists()


def test_names_with_colons_and_per_cents_are_files(tmp_path, clip):
    path = tmp_path / "take:1 %03d.mp4"
    path.write_bytes(clip.read_bytes())
    assert len(read(path, every=10)) == 4
    assert len(read(write_video(pictures(3), tmp_path / "file:out %d.mp4", progress=False))) == 3


def test_pictures_beyond_every_level_are_refused(clip, monkeypatch):
    monkeypatch.setattr(video_decode, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(InputError):
        read(clip)
    monkeypatch.setattr(video_decode, "MAX_PIXELS", 8192 * 8192)
    assert len(read(clip)) == 40


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_fuzzed_files_give_frames_or_one_error(tmp_path, kind):
    """Truncations and flipped bytes, half of them where the structure is; nothing else comes out, and soon."""
    tenth = Fraction(1, 10)  # 6 seconds: long enough to jump
    data = encode(tmp_path / "whole.bin", pictures(60, 48, 32), kind=KINDS[kind], base=tenth).read_bytes()
    structure = (0, data.index(b"mdat")) if kind == "mp4" else (0, 600)
    random = np.random.default_rng(0)
    outcomes = {"frames": 0, "error": 0}
    path = tmp_path / "fuzzed.bin"
    began = time.monotonic()
    for number in range(80):
        broken = bytearray(data)
        if number % 4 == 0:
            broken = broken[: random.integers(len(data))]
        else:
            low, high = structure if number % 4 == 1 else (0, len(data))
            for at in random.integers(low, high, random.integers(1, 16)):
                broken[at] = random.choice([0, 255, random.integers(256)])
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                back = read(path, size=(24, 16), start_s=(None, 0.4, 5.5)[number % 3])
            except InputError as error:
                assert str(path) in str(error)
                outcomes["error"] += 1
                continue
        outcomes["frames"] += 1
        assert len(back) >= 1 and back.frames.shape[1:] == (16, 24, 3)
        assert np.isfinite(back.times_s).all() and (np.diff(back.times_s) > 0).all() and math.isfinite(back.fps)
    assert min(outcomes.values()) >= 10, outcomes
    assert time.monotonic() - began < 15


# --- sound ---


def tone(path: Path, seconds: float, *, rate: int = 44100, channels: int = 1, hertz: float = 440.0) -> Path:
    samples = 12000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").repeat(channels).tobytes())
    return path


def sound_of(path: Path) -> tuple[np.ndarray, int]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        parts = [frame.to_ndarray() for frame in container.decode(stream)]
        return np.concatenate(parts, axis=1), stream.codec_context.sample_rate


@pytest.mark.parametrize(("rate", "channels"), [(44100, 1), (48000, 2), (22050, 1), (192000, 2)])
def test_the_sound_goes_along(tmp_path, rate, channels):
    audio = tone(tmp_path / "a.wav", 1.0, rate=rate, channels=channels)
    path = write_video(pictures(25), tmp_path / "a.mp4", 25, audio=audio, progress=False)
    samples, got = sound_of(path)
    assert got == (rate if rate <= 48000 else 48000) and samples.shape[0] == channels
    assert abs(samples.shape[1] / got - 1.0) <= 2 * 1024 / got  # whole AAC frames, and the coder's delay
    middle = samples[0, got // 4 : -got // 4]
    peak = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * got / len(middle)
    assert peak == pytest.approx(440, abs=3)
    assert np.std(middle) == pytest.approx(12000 / 32768 / math.sqrt(2), rel=0.05)
    assert len(read(path)) == 25


@pytest.mark.parametrize(("seconds", "heard"), [(3.0, 0.8), (0.3, 0.3), (0.8, 0.8)])
def test_the_pictures_set_the_length(tmp_path, seconds, heard):
    audio = tone(tmp_path / "a.wav", seconds)
    with pytest.warns(UserWarning, match="is cut there") if seconds > 0.8 else contextlib.nullcontext():
        path = write_video(iter(pictures(20)), tmp_path / "a.mp4", 25, audio=audio, progress=False)
    samples, rate = sound_of(path)
    assert abs(samples.shape[1] / rate - heard) <= 2 * 1024 / rate
    back = read(path)
    assert len(back) == 20 and back.note == ""
    with pytest.warns(UserWarning, match="is cut there") if heard > 0.4 else contextlib.nullcontext():
        again = write_video(pictures(10), tmp_path / "b.mp4", 25, audio=path, progress=False)  # the sound of a video
    assert abs(sound_of(again)[0].shape[1] / rate - min(heard, 0.4)) <= 2 * 1024 / rate


def test_sound_and_pictures_lie_side_by_side(tmp_path):
    audio = tone(tmp_path / "a.wav", 4.0, rate=16000)
    path = write_video(pictures(40), tmp_path / "a.mp4", 10, audio=audio, progress=False)
    with av.open(str(path)) as container:
        packets = [(p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.size]
    seen = {"video": 0.0, "audio": 0.0}
    for kind, time_s in packets:
        seen[kind] = max(seen[kind], time_s)
        assert abs(seen["video"] - seen["audio"]) < 1.5


@pytest.mark.parametrize("kind", ["missing", "text", "silent video"])
def test_sound_that_is_none(tmp_path, clip, kind):
    audio = {"missing": tmp_path / "none.wav", "text": tmp_path / "text.wav", "silent video": clip}[kind]
    (tmp_path / "text.wav").write_text("la la la")
    with pytest.raises(InputError, match="audio"):
        write_video(pictures(3), tmp_path / "a.mp4", audio=audio, progress=False)
    assert not (tmp_path / "a.mp4").exists()


# --- what cannot be written ---


@pytest.mark.parametrize(
    ("given", "options", "word"),
    [
        ([], {}, "no picture"),
        ([np.zeros((4, 4), np.uint8)], {}, r"picture 0: has shape \[4, 4\]"),
        ([np.zeros((4, 4, 4), np.uint8)], {}, "composite RGBA"),
        ([np.zeros((4, 4, 3), np.uint16)], {}, "uint16"),
        ([np.full((4, 4, 3), np.nan)], {}, "NaN"),
        ([np.full((4, 4, 3), 255.0)], {}, "divide by 255"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], {}, "picture 1: is 6x4, the first is 4x4"),
        (pictures(2), {"fps": 0}, "fps"),
        (pictures(2), {"fps": math.nan}, "fps"),
        (pictures(2), {"fps": "fast"}, "fps"),
        (pictures(2), {"quality": 52}, "quality"),
    ],
)
def test_pictures_that_cannot_be_used(tmp_path, given, options, word):
    with pytest.raises(InputError, match=word):
        write_video(given, tmp_path / "a.mp4", progress=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_as_a_whole_or_left_as_it_was(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")

    def breaks():
        yield from pictures(5)
        raise RuntimeError("the renderer died")

    with pytest.raises(RuntimeError, match="the renderer died"):
        write_video(breaks(), path, progress=False)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"\.gif"):
        write_video(pictures(2), tmp_path / "a.gif", progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_video(pictures(2), tmp_path / "file/a.mp4", progress=False)
    assert len(read(write_video(pictures(5), path, progress=False))) == 5


def test_without_pyav_the_remedy_is_named(monkeypatch, clip, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (lambda: read(clip), lambda: write_video(pictures(1), tmp_path / "a.mp4")):
        with pytest.raises(MissingDependency, match="pip install av"):
            call()


def test_pyav_is_imported_inside_functions_only():
    for module in (video, video_decode, video_encode):
        tree = ast.parse(Path(module.__file__).read_text())
        names = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [name for name in names if name.split()[1].split(".")[0] in ("av", "cv2")]


@pytest.mark.skipif(not GREEN_SCREEN.is_file(), reason="the real clip is not on this machine")
def test_a_real_clip(tmp_path):
    back = read(GREEN_SCREEN, every=7)
    assert back.frames.shape == (12, 512, 512, 3) and back.note == ""
    assert np.abs(back.times_s - np.arange(0, 78, 7) / 25).max() < 1e-9
    red, green, blue = np.median(back.frames[:, 4:40, 4:500].reshape(-1, 3), axis=0)
    assert green > red + 40 and green > blue + 20  # a green screen, with red and blue the right way round
    capture = video_capture(GREEN_SCREEN, folder=tmp_path / "c", every=26, size=(128, 128), progress=False)
    assert len(load_capture(tmp_path / "c")) == len(capture) == 3
