"""Lenses: formulas against OpenCV and COLMAP, and the pinhole picture against a scene that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captures import frame, save_picture, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fourdgs.data.transforms import read_transforms
from fourdgs.errors import InputError
from fourdgs.lens import Lens, _Grids, pixel_map, undistort
from fourdgs.pictures import resize_picture

cv2 = pytest.importorskip("cv2")
SIZE = (96, 64)
K = (80.0, 82.0, 50.0, 30.0)
LENSES = [
    ("OPENCV", (-0.25, 0.08, 0.001, -0.002, 0.01)),
    ("OPENCV", (0.2, 0.05)),
    ("OPENCV", (0.4, -0.1, 0.001, 0.0005, 0.02, 0.5, 0.01, -0.003)),
    ("OPENCV_FISHEYE", (0.05, -0.01, 0.002, 0.0)),
    ("OPENCV_FISHEYE", ()),
]


def scene(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A smooth picture [H, W, 3] in [0, 255] by direction: what lies there, whatever lens looks."""
    waves = [np.sin(6 * u + 2 * v), np.cos(5 * v - 3 * u), np.sin(4 * (u + v))]
    return 127.5 + 100 * np.stack(waves, axis=-1)


def seen_by(lens: Lens) -> np.ndarray:
    """The scene through the lens, uint8: each pixel's direction is found by inverting the formulas with OpenCV."""
    fx, fy, cx, cy = lens.intrinsics
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    u, v = np.meshgrid(np.arange(lens.size[0]) + 0.5, np.arange(lens.size[1]) + 0.5)
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    if lens.model == "OPENCV":
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
        rays = cv2.undistortPoints(pixels, matrix, np.array(lens.coefficients), criteria=stop)
    else:
        rays = cv2.fisheye.undistortPoints(pixels, matrix, np.array(lens.coefficients))
    rays = rays.reshape(lens.size[1], lens.size[0], 2)
    return np.rint(scene(rays[..., 0], rays[..., 1])).clip(0, 255).astype(np.uint8)


def through_pinhole(lens: Lens) -> np.ndarray:
    fx, fy, cx, cy = lens.pinhole()
    u, v = np.meshgrid((np.arange(lens.size[0]) + 0.5 - cx) / fx, (np.arange(lens.size[1]) + 0.5 - cy) / fy)
    return scene(u, v)


@pytest.mark.parametrize(("model", "terms"), LENSES)
def test_the_pixel_map_is_opencv_s(model, terms):
    lens = Lens.of(model, terms, K, SIZE)

    def matrix(fx, fy, cx, cy):
        return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])  # OpenCV's first pixel is at 0

    make = cv2.initUndistortRectifyMap if model == "OPENCV" else cv2.fisheye.initUndistortRectifyMap
    maps = make(matrix(*K), np.array(lens.coefficients), np.eye(3), matrix(*lens.pinhole()), SIZE, cv2.CV_32FC1)
    for ours, theirs in zip(pixel_map(lens), maps, strict=True):
        assert np.abs(ours - 0.5 - theirs).max() < 0.02, "the rim may be clipped by a hundredth of a pixel"
        assert np.abs(ours - 0.5 - theirs)[2:-2, 2:-2].max() < 1e-4


def test_distortion_is_colmap_s():
    pycolmap = pytest.importorskip("pycolmap")
    rays = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 2))
    for name, model, terms in (
        ("OPENCV", "OPENCV", (-0.2, 0.05, 0.01, -0.02)),
        ("RADIAL", "OPENCV", (-0.2, 0.05)),
        ("FULL_OPENCV", "OPENCV", (-0.2, 0.05, 0.01, -0.02, 0.01, 0.1, 0.02, -0.01)),
        ("OPENCV_FISHEYE", "OPENCV_FISHEYE", (0.05, -0.01, 0.002, 0.001)),
        ("RADIAL_FISHEYE", "OPENCV_FISHEYE", (0.05, -0.01)),
    ):
        single = name.startswith("RADIAL")
        intrinsics = (80.0, 80.0, 50.0, 30.0) if single else K
        params = [*(intrinsics[1:] if single else intrinsics), *terms]
        camera = pycolmap.Camera(model=name, width=96, height=64, params=params)
        expected = camera.img_from_cam(np.concatenate([rays, np.ones((50, 1))], axis=1))
        u, v = Lens.of(model, terms, intrinsics, SIZE).distort(rays[:, 0], rays[:, 1])
        assert np.abs(np.stack([u, v], -1) - expected).max() < 1e-9, name


@pytest.mark.parametrize(("model", "terms"), LENSES)
def test_an_undistorted_picture_is_what_the_pinhole_sees(model, terms):
    lens = Lens.of(model, terms, K, SIZE)
    distorted = seen_by(lens)
    rgb, alpha = undistort((distorted, None), lens.text())
    truth = through_pinhole(lens)
    error = np.abs(rgb - truth)
    assert alpha is None and rgb.shape == distorted.shape and rgb.dtype == np.uint8
    # Bilinear: at most 1/8 of the second derivative (3.5 levels here), plus the rounding of both pictures.
    assert error.mean() < 0.7 and error.max() < 5
    assert np.abs(distorted - truth).mean() > 3 * error.mean(), "the test can tell"


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["OPENCV", "OPENCV_FISHEYE"]),
    st.tuples(*[st.floats(-0.4, 0.4)] * 4),
    st.tuples(st.floats(40, 300), st.floats(40, 300), st.floats(30, 66), st.floats(20, 44)),
)
def test_every_pixel_of_the_pinhole_is_in_the_picture_and_none_is_folded(model, terms, intrinsics):
    scaled = [term / 10**position for position, term in enumerate(terms)]
    try:
        lens = Lens.of(model, scaled, intrinsics, SIZE)
    except InputError:
        return  # there is none, and that was said
    if lens is None:
        return
    (fx, fy, cx, cy), (width, height) = lens.pinhole(), SIZE
    assert (cx, cy) == intrinsics[2:] and fx / fy == pytest.approx(intrinsics[0] / intrinsics[1])
    columns, rows = np.meshgrid(np.arange(width) + 0.5 - cx, np.arange(height) + 0.5 - cy)

    def stored(factor):
        """Pixels of the stored picture that a pinhole wider by ``factor`` shows, and their area against the middle."""
        u, v = lens.distort(factor * columns / fx, factor * rows / fy)
        (du, dv), (su, sv) = (np.diff(value, axis=1)[1:] for value in (u, v)), (np.diff(v, axis=0) for v in (u, v))
        return u, v, (du * sv[:, 1:] - dv * su[:, 1:]) * (fx / intrinsics[0] / factor) ** 2

    u, v, area = stored(1)
    assert u.min() > 0.45 and v.min() > 0.45 and u.max() < width - 0.45 and v.max() < height - 0.45
    assert area.min() > 0.02
    # And it is the widest: a tenth wider leads out of the picture, towards a fold, or beyond 60 degrees.
    widest = max(cx / fx, (width - cx) / fx, cy / fy, (height - cy) / fy)
    u, v, area = stored(1.1)
    out = min(u.min(), v.min()) < 0.5 or u.max() > width - 0.5 or v.max() > height - 0.5
    assert out or area.min() < 0.03 or 1.1 * widest > np.tan(np.radians(60)) - 1e-4


def test_text_is_a_round_trip_and_anything_else_is_refused():
    lens = Lens.of("OPENCV", (0.1, -0.02), K, SIZE)
    assert Lens.parse(lens.text()) == lens and "\n" not in lens.text() and " " not in lens.text()
    assert Lens.of("OPENCV", (0.0, 0.0), K, SIZE) is None, "a pinhole"
    assert Lens.of("OPENCV_FISHEYE", (), K, SIZE) is not None, "a fisheye without terms is no pinhole"
    for text in ("{}", "no", "[]", lens.text().replace("OPENCV", "THIN"), lens.text().replace("[0.1,", "[")):
        with pytest.raises(InputError, match="distortion: is no lens"):
            Lens.parse(text)
    with pytest.raises(InputError, match="has 9 terms"):
        Lens.of("OPENCV", (0.1,) * 9, K, SIZE)
    for terms in ((-1e10,), (1e300,), (float("inf"),)):
        with pytest.raises(InputError, match="no undistorted picture"):
            Lens.of("OPENCV", terms, K, SIZE)
    with pytest.raises(InputError, match="no undistorted picture"):
        Lens.of("OPENCV", (0.1,), (80, 80, 300, 30), SIZE)
    with pytest.raises(InputError, match="32766"):
        Lens.of("OPENCV", (0.1,), K, (40_000, 10))


def test_colour_under_transparency_does_not_bleed():
    lens = Lens.of("OPENCV", (-0.2,), K, SIZE)
    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    rgb[:, 48:] = [200, 100, 50]
    alpha = np.where(rgb[..., 0] > 0, 255, 0).astype(np.uint8)
    colors, cover = undistort((rgb, alpha), lens.text())
    assert 0 < (cover > 0).mean() < 1 and (np.abs(colors[cover > 3].astype(int) - [200, 100, 50]) <= 1).all()


def test_grids_are_kept_up_to_a_number_of_bytes():
    lenses = [Lens.of("OPENCV", (0.01 * n,), K, SIZE) for n in range(1, 9)]
    each = sum(part.nbytes for part in _Grids(10**9).get(lenses[0].text(), lenses[0]))
    grids = _Grids(3 * each)
    for lens in [*lenses, lenses[-1]]:
        grids.get(lens.text(), lens)
    assert list(grids.kept) == [lens.text() for lens in lenses[-3:]] and grids.used == 3 * each


# --- in captures ---


@pytest.fixture
def folder(tmp_path):
    """A transforms file of two frames, one with a mask, taken through a lens."""
    lens = Lens.of("OPENCV", (-0.25, 0.08), K, SIZE)
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.fromarray(seen_by(lens)).save(tmp_path / f"images/r_{number}.png")
    save_picture(tmp_path / "masks/m.png", 1, "L", SIZE)
    head = dict(zip(("fl_x", "fl_y", "cx", "cy"), K, strict=True)) | {"k1": -0.25, "k2": 0.08}
    return write(tmp_path, {**head, "frames": [frame(0), frame(1, mask_path="masks/m.png")]})


def test_captures_show_pinhole_pictures_with_cameras_to_match(folder):
    capture = read_transforms(folder)
    lens = Lens.parse(capture.frames.distortion[0])
    fx, fy, cx, cy = lens.pinhole()
    assert torch.allclose(capture.cameras.Ks[0], torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    assert capture.cameras.sizes[0].tolist() == list(SIZE)
    assert np.abs(capture.image(0) * 255 - through_pinhole(lens)).max() < 5
    mask = np.asarray(Image.open(folder / "masks/m.png"))
    stored = np.asarray(Image.open(folder / "images/r_1.png"))
    assert np.array_equal(capture.picture(1)[1], undistort((stored, mask), lens.text())[1])
    # Undistorted at the stored size, then resized: a camera of any size sees the same scene.
    small = capture.scaled(0.5)
    assert np.array_equal(small.picture(0)[0], resize_picture(capture.picture(0), SIZE[0] // 2, SIZE[1] // 2)[0])
    assert torch.allclose(small.cameras.Ks[:, :2] * 2, capture.cameras.Ks[:, :2])
    assert len(capture.pictures()[0]) == 2


def test_the_lens_is_part_of_the_digest_and_memory_is_left_alone(folder):
    capture = read_transforms(folder)
    other = capture.frames.distortion.str.replace("0.08", "0.07")
    assert capture.with_frames(capture.frames.assign(distortion=other)).digest() != capture.digest()
    without = capture.with_frames(capture.frames.assign(distortion=""))
    plain = capture.with_frames(capture.frames.drop(columns="distortion"))
    assert without.digest() == plain.digest() != capture.digest()
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    assert np.array_equal(capture.with_pictures({0: (pixels, None)}).picture(0)[0], pixels)


def test_a_picture_of_another_size_than_its_lens_is_named(folder):
    capture = read_transforms(folder)
    save_picture(folder / "images/r_0.png", size=(10, 10))
    with pytest.raises(InputError, match="r_0.png.*the picture is 10x10, its lens is that of 96x64"):
        capture.image(0)


def test_fisheye_files_and_models_by_frame(folder, tmp_path):
    content = {"camera_model": "OPENCV_FISHEYE", "k1": 0.05, "fl_x": 80.0}
    frames = [frame(0), frame(1, camera_model="OPENCV", k1=0.1, k2=-0.05)]
    capture = read_transforms(write(tmp_path, {**content, "frames": frames}))
    lenses = [Lens.parse(text) for text in capture.frames.distortion]
    assert [lens.model for lens in lenses] == ["OPENCV_FISHEYE", "OPENCV"]
    assert lenses[0].coefficients == (0.05, 0, 0, 0) and lenses[1].coefficients[:2] == (0.1, -0.05)
    assert capture.frames.camera.nunique() == 2
    write(tmp_path, {"is_fisheye": True, "fl_x": 80.0, "frames": frames[:1]})
    assert Lens.parse(read_transforms(tmp_path).frames.distortion[0]).model == "OPENCV_FISHEYE"
