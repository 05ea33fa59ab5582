from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.proj3d import proj_transform
from scenes import ball_cameras

from fourdgs import Cameras, plots
from fourdgs.errors import InputError
from fourdgs.plots.dataset import MOST_ROWS
from fourdgs.plots.doctor import MOST_CAMERAS, SEVERITY

RANDOM = np.random.default_rng(0)


def table() -> pd.DataFrame:
    rows = [
        ("error", "sources_differ_background", 6.1, 1.4, True),
        ("warning", "camera_dominates", 1.2, 0.6, True),
        ("warning", "held_out_thin", np.nan, np.nan, False),
        ("info", "near_duplicates", np.nan, np.nan, True),
    ]
    return pd.DataFrame(rows, columns=["severity", "finding", "loss_db", "uncertainty_db", "automatic"])


def look(**more) -> dict:
    around = np.zeros((20, 30), bool)
    around[:5] = True
    picture = RANDOM.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    found = {"picture": picture, "around": around, "pixels": RANDOM.random((80, 3)), "words": "transparent"}
    return found | ({"note": "held out"} if not more else more)


def drawn_cameras(cameras: Cameras, **options) -> Figure:
    return plots.cameras(cameras.viewmats, cameras.Ks, cameras.sizes, **options)


def texts(fig: Figure) -> str:
    """Every word in a figure."""
    found = [text.get_text() for axis in fig.axes for text in axis.texts]
    found += [label.get_text() for axis in fig.axes for label in (*axis.get_yticklabels(), axis.title)]
    return " ".join([*found, *(text.get_text() for legend in fig.legends for text in legend.get_texts())])


# --- the heat map ---


@settings(max_examples=30, deadline=None)
@given(
    frames=st.lists(
        st.tuples(st.integers(0, 400), st.one_of(st.none(), st.floats(0, 1)), st.floats(0.01, 50)),
        min_size=1,
        max_size=60,
    ),
    bins=st.one_of(st.none(), st.integers(1, 30)),
)
def test_every_frame_is_in_the_heat_map_once_and_every_share_in_the_bars(frames, bins):
    camera, time, weight = zip(*frames, strict=True)
    source = [f"s{number % 3}" for number in camera]
    time = [np.nan if moment is None else moment for moment in time]
    fig = plots.coverage([f"c{number}" for number in camera], time, source, weight, bins)
    *heats, shares = (axis for axis in fig.axes if axis.get_label() != "<colorbar>")
    assert sum(axis.collections[0].get_array().filled(0).sum() for axis in heats) == len(frames)
    outlines = {id(bar) for bar in shares.containers[-1]} if len(set(weight)) > 1 and len(frames) > 1 else set()
    solid = sum(bar.get_width() for bar in shares.patches if bar.get_facecolor()[3] > 0)
    assert solid == pytest.approx(100)
    assert not outlines or sum(bar.get_width() for bar in shares.patches if id(bar) in outlines) == pytest.approx(100)


def test_a_camera_that_is_drawn_more_often_gets_a_larger_share():
    fig = plots.coverage(list("aab"), [0, 1, 0], None, [1, 1, 6])
    widths = [bar.get_width() for bar in fig.axes[1].patches if bar.get_facecolor()[3] > 0]
    assert widths == pytest.approx([25, 75])


@pytest.mark.parametrize("moments", [2, 5, 10, 24, 7])
def test_evenly_spaced_moments_have_a_column_each(moments):
    time = np.round(np.arange(moments) / (moments - 1), 6)  # as a file holds them
    fig = plots.coverage(["a"] * moments, time)
    assert fig.axes[0].collections[0].get_array().tolist() == [[1] * moments]


def test_a_gap_in_time_stays_a_gap():
    fig = plots.coverage(["a"] * 8, [0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1])
    counts = fig.axes[0].collections[0].get_array().filled(0)[0]
    assert (counts[4:7] == 0).sum() == 3 and counts.sum() == 8


def test_hundreds_of_cameras_and_thousands_of_frames_stay_legible():
    camera = [f"cam{number:03d}" for number in np.repeat(np.arange(400), 20)]
    fig = plots.coverage(camera, np.tile(np.linspace(0, 1, 20), 400), weight=RANDOM.random(8000) + 0.1)
    heat = fig.axes[0].collections[0].get_array()
    assert heat.shape[0] <= MOST_ROWS and heat.sum() == 8000 and fig.get_figheight() < 8
    labels = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert len(labels) <= 26 and labels[0] == "cam000 (+2)"


def test_cameras_stand_in_the_order_in_which_people_count():
    fig = plots.coverage(["r_10", "r_2", "r_1"], [np.nan] * 3)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["r_1", "r_2", "r_10"]


# --- cameras ---


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), depth=st.floats(0.1, 30))
def test_corners_of_frusta_are_seen_in_the_corners_of_the_pictures(seed, depth):
    random = np.random.default_rng(seed)
    positions = random.normal(size=(4, 3)) * 5
    cameras = Cameras.look_at(
        positions, random.normal(size=3), fov_x_deg=float(random.uniform(20, 90)), width=64, height=48
    )
    corners = plots.frustum_corners(cameras.viewmats, cameras.Ks, cameras.sizes, depth)
    views, lenses = cameras.viewmats.double().numpy(), cameras.Ks.double().numpy()
    local = corners @ views[:, :3, :3].transpose(0, 2, 1) + views[:, None, :3, 3]
    assert np.allclose(local[..., 2], depth, rtol=1e-3)
    seen = (local @ lenses.transpose(0, 2, 1)) / local[..., 2:]
    assert np.allclose(seen[..., :2], [[0, 0], [64, 0], [64, 48], [0, 48]], atol=0.05)


def test_pyramids_start_at_the_cameras_and_held_out_ones_are_hollow():
    cameras = ball_cameras(6, 32)
    held_out = np.arange(6) >= 4
    fig = drawn_cameras(cameras, held_out=held_out, groups=["orbit"] * 6)
    axis = fig.axes[0]
    dots = next(one for one in axis.collections if "Path3D" in type(one).__name__)
    drawn = np.stack(dots._offsets3d, 1)
    places = cameras.positions.numpy()
    # Right, towards the reader, up.
    expected = np.stack([places[:, 0], -places[:, 2], places[:, 1]], 1)
    assert np.allclose(np.sort(drawn, 0), np.sort(expected, 0), atol=1e-4)
    faces = [one for one in axis.collections if "Poly3D" in type(one).__name__]
    assert len(faces) == 1 and len(faces[0].get_facecolor()) == 4
    dashes = [one for one in axis.collections if "Line3D" in type(one).__name__ and one.get_linestyle()[0][1]]
    assert len(dashes) == 1 and "held out" in texts(fig)
    assert "held out" not in texts(drawn_cameras(cameras))


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 0.1, 1), (0.1, 9, 0.1)])
def test_a_unit_is_as_long_along_every_axis_and_the_box_is_inside_the_figure(shape):
    positions = RANDOM.normal(size=(12, 3)) * shape + [0, 0, 20]
    fig = drawn_cameras(Cameras.look_at(positions, (0, 0, 0), fov_x_deg=40, width=8, height=8))
    axis = fig.axes[0]
    spans = np.array([np.ptp(axis.get_xlim()), np.ptp(axis.get_ylim()), np.ptp(axis.get_zlim())])
    assert np.ptp(axis._box_aspect / spans) < 1e-9
    fig.draw_without_rendering()
    box = np.array(np.meshgrid(axis.get_xlim(), axis.get_ylim(), axis.get_zlim())).reshape(3, -1)
    x, y, _ = proj_transform(*box, axis.get_proj())
    pixels = axis.transData.transform(np.stack([x, y], 1)) / fig.dpi
    assert (pixels > 0).all() and (pixels < fig.get_size_inches()).all()


def test_frames_of_one_pose_are_one_pyramid_with_their_number():
    views = torch.cat([ball_cameras(1, 16).viewmats.expand(121, 4, 4), ball_cameras(3, 16).viewmats])
    cameras = Cameras(views, ball_cameras(1, 16).Ks.expand(124, 3, 3), torch.full((124, 2), 16), torch.zeros(124))
    fig = drawn_cameras(cameras, groups=["clip"] * 121 + ["orbit"] * 3)
    dots = next(one for one in fig.axes[0].collections if "Path3D" in type(one).__name__)
    assert len(dots._offsets3d[0]) == 4 and "\N{MULTIPLICATION SIGN}121" in texts(fig)


def test_a_ring_is_drawn_although_there_are_more_cameras_than_pyramids():
    count = 3 * MOST_CAMERAS
    marked = np.arange(count) == 1
    fig = drawn_cameras(ball_cameras(count, 16), marked=marked)
    dots = [one for one in fig.axes[0].collections if "Path3D" in type(one).__name__]
    assert len(dots[0]._offsets3d[0]) <= MOST_CAMERAS + 1 and len(dots[1]._offsets3d[0]) == 1


def test_a_target_far_away_does_not_make_the_cameras_small():
    cameras = ball_cameras(5, 16)
    for draw in (drawn_cameras(cameras, target=(0, 0, 0)), drawn_cameras(cameras, target=(0, 0, 1e4))):
        assert np.ptp(draw.axes[0].get_xlim()) < 20


# --- the diagnosis ---


def test_severities_are_words_and_marks_and_not_only_colours():
    fig = plots.diagnosis(table(), [("as it is", 14.0, 2.0), ("after the remedies", 26.0, 2.0)])
    words = texts(fig)
    for severity, code in zip(table()["severity"], table()["finding"], strict=True):
        assert f"{code.replace('_', ' ')}\n{severity}" in words
    assert "14.0 \N{PLUS-MINUS SIGN} 2.0 dB" in words and "6.1 \N{PLUS-MINUS SIGN} 1.4 dB" in words
    assert len({mark for _, mark in SEVERITY.values()}) == len({color for color, _ in SEVERITY.values()}) == 3


def test_what_has_no_figure_is_said_to_be_unknown_and_what_no_program_does_is_by_hand():
    fig = plots.diagnosis(table())
    assert [text.get_text() for text in fig.axes[0].texts][2:] == ["not known, by hand", "not known"]
    assert len([bar for bar in fig.axes[0].patches if bar.get_width() > 0]) == 2


def test_a_capture_without_findings_still_has_an_expectation():
    assert len(plots.diagnosis(table().iloc[:0], [("as it is", 31.0, np.nan)]).axes) == 1


# --- sources, before and after ---


def test_tints_are_read_off_in_per_cent():
    looks = {"clip": look(ratios=[1.16, 1.0, 0.88], reference="orbit"), "orbit": look()}
    fig = plots.sources(looks)
    words = texts(fig)
    assert all(part in words for part in ("R +16 %", "G 0 %", "B \N{MINUS SIGN}12 %", "held out"))
    assert fig.axes[3].get_xlabel() == "% above orbit" and len(fig.axes) == 8


def test_hatching_covers_the_subject_and_nothing_else():
    one = look()
    fig = plots.sources({"clip": one})
    shown = fig.axes[1].images[0].get_array()
    assert fig.axes[1].patch.get_hatch() and np.array_equal(shown[..., 3] > 0.5, one["around"])


def test_opaque_pixels_are_shown_as_they_are_and_transparent_ones_as_a_checkerboard():
    picture = np.full((24, 24, 4), 255, np.uint8)
    picture[:, 12:, 3] = 0
    fig = plots.before_after([picture[..., :3]], [picture], ["a frame"])
    shown = fig.axes[1].images[0].get_array()
    assert (shown[:, :12] == 1).all() and len(np.unique(shown[:, 12:])) == 2
    assert (fig.axes[0].images[0].get_array() == 1).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.diagnosis(table().iloc[:0]),
        lambda: plots.diagnosis(table().drop(columns="automatic")),
        lambda: plots.diagnosis(table().assign(severity="fatal")),
        lambda: plots.cameras(np.zeros((0, 4, 4)), np.zeros((0, 3, 3)), np.zeros((0, 2))),
        lambda: drawn_cameras(ball_cameras(2, 8), groups=["a"]),
        lambda: plots.sources({}),
        lambda: plots.before_after([], []),
        lambda: plots.before_after([np.zeros((4, 4, 3))], []),
        lambda: plots.coverage(["a"], [0.0], None, [0.0]),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw):
    with pytest.raises(InputError):
        draw()


def test_figures_can_be_shown(tmp_path):
    made = {
        "diagnosis": plots.diagnosis(table(), [("as it is", 14.0, 2.0)]),
        "cameras": drawn_cameras(ball_cameras(5, 16), target=(0, 0, 0)),
        "sources": plots.sources({"clip": look()}),
        "before-after": plots.before_after([np.zeros((8, 8, 3))], [np.zeros((8, 8, 4))], ["x"]),
    }
    with plots.figures_into(tmp_path):
        for name, fig in made.items():
            plots.show(fig, name, alt="a figure")
    assert sorted(file.stem for file in tmp_path.glob("*.png")) == sorted(made)
