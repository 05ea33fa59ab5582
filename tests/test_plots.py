from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from fourdgs import plots
from fourdgs.errors import InputError, OutputError
from fourdgs.plots.pictures import THUMBNAIL, as_picture
from fourdgs.plots.style import KNOWN_SOURCES, smaller_png

RANDOM = np.random.default_rng(0)


def ring(cameras: int) -> np.ndarray:
    angle = np.radians(np.arange(cameras) * 360 / cameras)
    return np.stack([4 * np.sin(angle), 0 * angle, 4 * np.cos(angle)], 1)


def summary() -> pd.DataFrame:
    rows = [("a", "still", 30.4, 29.9, 31, 24), ("a", "talking", 24.2, 23, 25, 60), ("b", "still", 12.1, 11, 13, 24)]
    return pd.DataFrame(rows, columns=["run", "source", "mean", "low", "high", "n"])


def figures() -> dict[str, Figure]:
    pictures = [RANDOM.random((20, 16, 3)) for _ in range(5)]
    frames = pd.DataFrame({"run": ["a"] * 4 + ["b"] * 4, "time": [0, 0, 1, 1] * 2, "psnr_db": RANDOM.random(8) * 30})
    frames["source"] = "still"
    curve = pd.DataFrame({"step": [0, 10, 20], "psnr_train_db": [10, 20, 30.0], "psnr_db": [9, np.nan, 15.0]})
    return {
        "sheet": plots.contact_sheet(pictures, list("abcde"), columns=3, title="five"),
        "comparison": plots.comparison([("a", pictures[:2]), ("b", pictures[2:4])], pictures[1:3], ["x", "y"]),
        "plain": plots.comparison([("a", pictures[:2])], pictures[1:3], notes={"a": ["1 dB", "2 dB"]}, errors=False),
        "frusta": plots.frusta(ring(8), -ring(8), ["orbit"] * 4 + ["clip"] * 4),
        "coverage": plots.coverage(list("aab"), [np.nan, 0.0, 1.0], ["still", "clip", "clip"]),
        "curves": plots.curves(curve),
        "panels": plots.curves(pd.concat([curve.assign(run=str(run)) for run in range(5)])),
        "frames": plots.psnr_per_frame(frames),
        "intervals": plots.intervals(summary(), group="source"),
        "timeline": plots.timeline([("install", 90), ("train", 400)]),
        "groups": plots.timeline(pd.DataFrame({"name": ["a", "b"], "seconds": [1.0, 2], "group": ["x", "y"]})),
    }


def test_every_figure_draws_and_pyplot_keeps_none(tmp_path):
    import matplotlib.pyplot as plt

    made = figures()
    with plots.figures_into(tmp_path):
        for name, fig in made.items():
            plots.show(fig, name, alt="a figure")
    assert not plt.get_fignums()
    for name in made:
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.mode == "P" and image.width >= 300
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
    assert len(list(tmp_path.iterdir())) == 2 * len(made)


def test_the_style_stays_inside():
    before = dict(mpl.rcParams)
    figures()
    assert dict(mpl.rcParams) == before


def test_the_same_figure_gives_the_same_files(tmp_path):
    for folder in "ab":
        with plots.figures_into(tmp_path / folder):
            plots.show(plots.intervals(summary()), "x", alt="a figure")
    for ending in ("png", "svg"):
        assert (tmp_path / f"a/x.{ending}").read_bytes() == (tmp_path / f"b/x.{ending}").read_bytes()


def test_show_writes_where_the_environment_says_and_nowhere_without(tmp_path, monkeypatch):
    fig = plots.timeline([("a", 1)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FOURDGS_FIGURES", raising=False)
    plots.show(fig, "x", alt="a figure")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("FOURDGS_FIGURES", str(tmp_path / "figures"))
    plots.show(fig, "x", alt="a figure")
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["x.png", "x.svg"]


@pytest.mark.parametrize("name", ["", "A", "a b", "../a", "a.png", "a--b", "-a"])
def test_show_refuses_what_is_no_file_name(name):
    with pytest.raises(InputError, match="name"):
        plots.show(plots.timeline([("a", 1)]), name, alt="a figure")


def test_show_wants_a_text_and_says_when_it_cannot_write(tmp_path):
    fig = plots.timeline([("a", 1)])
    with pytest.raises(InputError, match="alt"):
        plots.show(fig, "x", alt=" ")
    (tmp_path / "file").touch()
    with plots.figures_into(tmp_path / "file"), pytest.raises(OutputError, match="cannot be written"):
        plots.show(fig, "x", alt="a figure")


@given(st.lists(st.sampled_from([*KNOWN_SOURCES, "a", "b", "c"]), max_size=8))
def test_names_get_colors_of_their_own(names):
    colors = plots.colors_for(names)
    assert list(colors) == list(dict.fromkeys(names))
    if len(colors) <= len(plots.PALETTE):
        assert len(set(colors.values())) == len(colors)
    assert all(colors[name] == KNOWN_SOURCES[name] for name in colors if name in KNOWN_SOURCES)


def test_smaller_png_keeps_flat_colors_exactly_and_transparency():
    image = Image.new("RGB", (64, 64), (0, 114, 178))
    image.paste((213, 94, 0), (0, 0, 20, 20))
    for mode in ("RGB", "RGBA"):
        buffer = io.BytesIO()
        source = image.convert(mode)
        if mode == "RGBA":
            source.putpixel((63, 63), (0, 0, 0, 0))
        source.save(buffer, "PNG", compress_level=0)
        small = smaller_png(buffer.getvalue())
        assert len(small) < len(buffer.getvalue())
        assert np.abs(np.asarray(Image.open(io.BytesIO(small)).convert(mode), int) - np.asarray(source, int)).max() <= 2


def test_a_chart_has_few_colors_and_its_legend_its_own():
    fig = Figure(figsize=(7.6, 5), layout="constrained")
    axis, below = fig.subplots(2)
    for number, color in enumerate(plots.PALETTE):
        axis.plot(np.sin(np.arange(50) / 9 + number), color=color, marker="s", label=color)
        below.bar(number, number, color=color)  # a colour of many pixels would swallow a mark of a few
    axis.legend(ncols=4)
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=180)
    before = Image.open(buffer).convert("RGB")
    small = Image.open(io.BytesIO(smaller_png(buffer.getvalue())))
    assert len(small.getcolors()) <= 128
    after = np.asarray(small.convert("RGB"), int)
    for color in plots.PALETTE:
        exact = tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))
        there = (np.asarray(before, int) == exact).all(-1)
        assert there.sum() > 50 and np.abs(after[there] - exact).max() <= 12


def test_a_sheet_of_pictures_keeps_all_the_colors_there_are():
    ramp = np.linspace(0, 255, 300).round().astype(np.uint8)
    picture = np.stack([*np.meshgrid(ramp, ramp), np.zeros((300, 300), np.uint8)], -1)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=0)
    small = Image.open(io.BytesIO(smaller_png(buffer.getvalue())))
    error = np.asarray(small.convert("RGB"), float) - picture
    assert len(small.getcolors()) > 200 and 10 * np.log10(255**2 / (error**2).mean()) > 35


@pytest.mark.parametrize("shape", [(10, 12, 3), (300, 200, 3), (1000, 1000, 4), (513, 300, 3)])
def test_thumbnails_are_averages_of_bounded_size(shape):
    picture = RANDOM.random(shape)
    small = as_picture(picture)
    assert max(small.shape[:2]) <= THUMBNAIL and small.shape[2] == shape[2]
    factor = shape[0] // small.shape[0]
    assert np.allclose(small[0, 0], picture[:factor, :factor].mean((0, 1)), atol=1e-5)
    assert np.allclose(small.mean(), picture.mean(), atol=5e-3)


def test_pictures_may_be_tensors_or_bytes():
    values = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.allclose(as_picture(torch.from_numpy(values)), values / 255)
    assert np.allclose(as_picture(torch.from_numpy(values) / 255), values / 255, atol=1e-6)


def test_error_maps_share_one_scale():
    truth = [np.zeros((8, 8, 3)), np.zeros((8, 8, 3))]
    rows = [("small", [np.full((8, 8, 3), 0.1)] * 2), ("large", [np.full((8, 8, 3), 0.4)] * 2)]
    fig = plots.comparison(rows, truth)
    maps = [image for axis in fig.axes for image in axis.images if image.get_array().ndim == 2]
    assert len(maps) == 4
    assert {tuple(np.round(image.get_clim(), 6)) for image in maps} == {(0, 0.4)}
    assert sorted({round(float(image.get_array().mean()), 6) for image in maps}) == [0.1, 0.4]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.contact_sheet([]),
        lambda: plots.contact_sheet([np.zeros((4, 4, 3))], ["a", "b"]),
        lambda: plots.contact_sheet([np.zeros((4, 4))]),
        lambda: plots.comparison([("a", [np.zeros((4, 4, 3))])], [np.zeros((4, 5, 3))]),
        lambda: plots.comparison([("a", [])], [np.zeros((4, 5, 3))]),
        lambda: plots.frusta(np.zeros((2, 3)), np.zeros((3, 3))),
        lambda: plots.coverage([], []),
        lambda: plots.curves(pd.DataFrame({"step": [1]})),
        lambda: plots.intervals(summary().drop(columns="low")),
        lambda: plots.timeline([]),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw):
    with pytest.raises(InputError):
        draw()


def test_the_plan_has_the_front_below_and_the_side_has_it_left():
    fig = plots.frusta([[0, 0.5, 4], [4, 0.5, 0]], [[0, 0, -1], [-1, 0, 0]], ["front", "right"], target=None)
    above, side = fig.axes
    points = [[tuple(line.get_xydata()[0]) for line in axis.get_lines()] for axis in (above, side)]
    assert np.allclose(points[0], [(0, -4), (4, 0)])
    assert np.allclose(points[1], [(-4, 0.5), (0, 0.5)])
    assert [axis.get_xlabel() + axis.get_ylabel() for axis in (above, side)] == ["xz", "zy"]
    # The labels carry the world's sign: the front camera at z = +4 is read as 4.
    assert above.yaxis.get_major_formatter()(-4, 0) == "4"


def test_the_plan_is_right_handed_for_every_up_axis():
    for up in np.eye(3):
        from fourdgs.plots.dataset import plan_axes

        right, high, front, _ = plan_axes(up)
        assert np.allclose(np.linalg.det(np.stack([right, high, front])), 1)


def test_cameras_in_one_place_are_counted():
    fig = plots.frusta(np.tile([[0, 0, 4.0]], (121, 1)), np.tile([[0, 0, -1.0]], (121, 1)), ["clip"] * 121)
    assert [text.get_text() for text in fig.axes[0].texts] == ["\N{MULTIPLICATION SIGN}121"]


def test_coverage_counts_each_frame_once():
    time = [np.nan, np.nan, 0.0, 0.5, 1.0, 1.0]
    fig = plots.coverage(list("abaaab"), time, bins=4)
    still, timed = (axis.collections[0].get_array().filled(0) for axis in fig.axes[:2])
    assert still.ravel().tolist() == [1, 1]
    assert timed.tolist() == [[1, 0, 1, 1], [0, 0, 0, 1]]


def test_intervals_put_dots_at_the_means_and_leave_out_missing_rows():
    table = pd.concat([summary(), summary().iloc[:1].assign(run="c", mean=np.nan)])
    fig = plots.intervals(table, group="source", threshold=30)
    axis = fig.axes[0]
    dots = [line.get_xdata()[0] for line in axis.get_lines() if len(line.get_xdata()) == 1]
    assert sorted(dots) == [12.1, 24.2, 30.4]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert any("30 dB" in text.get_text() for text in axis.texts)


def test_psnr_per_frame_counts_frames_where_there_is_no_time():
    table = pd.DataFrame({"run": "a", "time": np.nan, "psnr_db": [20.0, 22, 24]})
    axis = plots.psnr_per_frame(table).axes[0]
    assert axis.get_lines()[0].get_xdata().tolist() == [0, 1, 2]
    assert axis.get_xlabel() == "frame"
