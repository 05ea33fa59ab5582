"""Sources that disagree in background, colours, size or outline: made on purpose, found, measured, and cured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkup import by_code, findings_of, look
from scenes import ball_cameras, ball_capture
from scipy import ndimage

from fourdgs.capture import merge
from fourdgs.data import alpha as alpha_data
from fourdgs.data import hybrid
from fourdgs.data.load import load_capture
from fourdgs.doctor import appearance

SIZE = 64
SHARED = Path(__file__).parents[2] / "shared" / "data"


def findings(capture, checks=appearance.CHECKS):
    return findings_of(capture, checks)


def codes(capture, *checks):
    return by_code(capture, checks or appearance.CHECKS)


def repainted(capture, source, change):
    """``change`` takes float rgb [H, W, 3] and alpha [H, W] in [0, 1] to the same; alpha None = opaque."""
    pictures = {}
    for row in np.flatnonzero(capture.frames.source == source).tolist():
        rgb, alpha = capture.picture(row)
        rgb, alpha = change(rgb / 255, alpha / 255)
        rgb = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
        pictures[row] = rgb, None if alpha is None else np.rint(alpha * 255).astype(np.uint8)
    return capture.with_pictures(pictures)


def backdrop(color):
    return lambda rgb, alpha: (rgb * alpha[..., None] + np.asarray(color) * (1 - alpha[..., None]), None)


def tint(gains, gamma=1.0):
    return lambda rgb, alpha: ((rgb * gains) ** gamma, alpha)


@pytest.fixture(scope="module")
def clean():
    """A dozen stills, a clip at the first one's camera, and held-out stills between."""
    ring = ball_cameras(12, SIZE)
    front = ring[[0] * 15].with_times(np.linspace(0, 1, 15))
    return merge(
        [
            ball_capture(Path("ball"), ring, source="orbit"),
            ball_capture(Path("ball"), front, source="clip", camera="orbit00", move=0.04),
            ball_capture(Path("ball"), ball_cameras(12, SIZE, start_deg=15), source="still", split="test"),
        ]
    )


def renamed(capture, names):
    frames = capture.frames
    return capture.with_frames(frames.assign(source=frames.source.map(names)))


# --- background --------------------------------------------------------------------------------------------------


def test_clean_sources_are_quiet(clean):
    assert findings(clean) == []
    assert findings(clean.select(source=["orbit", "still"])) == []


@pytest.mark.parametrize("names", [{}, {"clip": "a", "orbit": "z", "still": "m"}])
def test_the_odd_background_is_named_by_evidence_and_not_by_name(clean, names):
    names = {name: names.get(name, name) for name in ("clip", "orbit", "still")}
    found = [f for f in findings(renamed(repainted(clean, "clip", backdrop((0.2, 0.4, 0.4))), names))]
    assert [finding.code for finding in found] == ["sources_differ_background"]
    assert found[0].severity == "error"
    assert found[0].remedy.action == "matte"
    assert dict(found[0].remedy.arguments) == {"source": names["clip"], "method": "auto", "prior": names["orbit"]}


def test_background_error_is_the_squared_difference_to_white(clean):
    for color in ((0.2, 0.4, 0.4), (0.9, 0.9, 0.9), (1.0, 1.0, 1.0)):
        table = appearance.source_backgrounds(look(repainted(clean, "clip", backdrop(color)))).set_index("source")
        assert table.background_mse["clip"] == pytest.approx(np.mean((1 - np.array(color)) ** 2), abs=2e-3)
        assert table.background_mse["orbit"] == table.background_mse["still"] == 0
        assert table.outside["clip"] == pytest.approx(table.outside["still"], abs=0.15)


def test_severity_follows_the_backdrop(clean):
    order = ["", "info", "warning", "error"]
    found = []
    for grey in (1.0, 0.98, 0.95, 0.5):
        painted = repainted(clean, "clip", backdrop((grey,) * 3))
        finding = codes(painted, appearance.check_backgrounds).get("sources_differ_background")
        found.append(order.index(finding.severity if finding else ""))
    assert found == sorted(found) and found[0] == 0 and found[-1] == 3


def test_a_source_alone_is_held_against_the_held_out_frames(clean):
    alone = repainted(clean, "clip", backdrop((0.2, 0.4, 0.4))).select(source=["clip", "still"])
    finding = codes(alone)["sources_differ_background"]
    assert finding.severity == "error" and finding.remedy.arguments["source"] == "clip"
    assert "100 %" in finding.message and "'still'" in finding.message


def test_held_out_frames_with_a_backdrop_are_the_odd_ones(clean):
    finding = codes(repainted(clean, "still", backdrop((0.2, 0.4, 0.4))))["sources_differ_background"]
    assert finding.remedy.arguments["source"] == "still" and "held-out" in finding.message


def test_all_opaque_sources_are_compared_with_each_other(clean):
    def painted(clip, others):
        capture = repainted(clean, "clip", backdrop(clip))
        return repainted(repainted(capture, "orbit", backdrop(others)), "still", backdrop(others))

    assert "sources_differ_background" not in codes(painted((0.3, 0.5, 0.6), (0.3, 0.5, 0.6)))
    finding = codes(painted((0.1, 0.7, 0.1), (0.5, 0.5, 0.6)))["sources_differ_background"]
    assert finding.severity == "error" and finding.remedy.arguments["source"] == "clip"
    off = np.mean((np.array((0.1, 0.7, 0.1)) - (0.5, 0.5, 0.6)) ** 2)
    table = appearance.source_backgrounds(look(painted((0.1, 0.7, 0.1), (0.5, 0.5, 0.6)))).set_index("source")
    assert table.background_mse["clip"] == pytest.approx(off, rel=0.25)


def test_different_views_of_a_room_are_not_compared(clean):
    rng = np.random.default_rng(0)

    def room(rgb, alpha):
        wall = ndimage.gaussian_filter(rng.uniform(0, 1, rgb.shape), (3, 3, 0)) * 3 - 1
        return backdrop(np.clip(wall, 0, 1))(rgb, alpha)

    capture = clean.select(source=["orbit", "still"])
    for source in ("orbit", "still"):
        capture = repainted(capture, source, room)
    assert "sources_differ_background" not in codes(capture)


# --- colours -----------------------------------------------------------------------------------------------------


def subject_error(capture, gains, gamma=1.0):
    rgb = np.concatenate(
        [
            capture.picture(row)[0][capture.picture(row)[1] > 250]
            for row in np.flatnonzero(capture.frames.source == "clip")
        ]
    )
    rgb = rgb / 255
    return float(np.mean((np.clip(rgb * gains, 0, 1) ** gamma - rgb) ** 2))


@pytest.mark.parametrize("gains", [(1.0, 1.0, 1.0), (1.08, 1.0, 0.9), (0.8, 0.8, 0.8), (0.7, 0.95, 1.05)])
def test_the_gap_and_the_gains_are_those_that_were_put_in(clean, gains):
    table = appearance.measure_colors(look(repainted(clean, "clip", tint(gains)))).set_index("source")
    wanted = subject_error(clean, gains)
    assert table.color_mse["clip"] == pytest.approx(wanted, rel=0.3, abs=3e-5)
    assert table.reference["clip"] == "orbit" and table.how["clip"] == "shared views"
    np.testing.assert_allclose(
        table.loc["clip", ["red", "green", "blue"]].astype(float), 1 / np.array(gains), atol=0.03
    )
    assert table.color_mse["orbit"] < 1e-4


def test_gamma_is_told_from_brightness(clean):
    table = appearance.measure_colors(look(repainted(clean, "clip", tint(1.0, 1.25)))).set_index("source")
    assert table.gamma["clip"] == pytest.approx(1 / 1.25, abs=0.06)


def test_the_gap_grows_with_the_tint(clean):
    gaps = [
        appearance.measure_colors(look(repainted(clean, "clip", tint((1 + a, 1.0, 1 - a)))))
        .set_index("source")
        .color_mse["clip"]
        for a in (0, 0.03, 0.1, 0.2)
    ]
    assert all(np.diff(gaps) > 0)


def test_a_tinted_clip_is_named_even_before_it_is_matted(clean):
    for change in (
        tint((1.0, 1.0, 0.6)),
        lambda rgb, a: backdrop((0.2, 0.4, 0.4))(tint((1.0, 1.0, 0.6))(rgb, a)[0], a),
    ):
        finding = codes(repainted(clean, "clip", change))["sources_differ_color"]
        assert finding.severity == "error" and "blue" in finding.message
        assert dict(finding.remedy.arguments) == {"source": "clip", "reference": "orbit"}


def test_without_a_shared_view_statistics_tell_and_say_so(clean):
    ring = ball_cameras(12, SIZE, start_deg=8)[[0] * 15].with_times(np.linspace(0, 1, 15))
    aside = ball_capture(Path("ball"), ring, source="clip", camera="side", move=0.04)
    capture = merge([clean.select(source=["orbit", "still"]), aside])
    table = appearance.measure_colors(look(capture)).set_index("source")
    assert table.how["clip"] == "near views"
    assert "sources_differ_color" not in codes(capture)
    found = codes(repainted(capture, "clip", tint((0.6, 0.6, 0.6))))
    assert "near views" in found["sources_differ_color"].message
    # The look that counts is that of held-out frames: training pictures must not be fitted to them.
    assert found["sources_differ_color"].remedy.action == "" and "still" in found["sources_differ_color"].remedy.text


def test_views_too_far_apart_say_nothing(clean):
    far = clean.select(where=lambda frames: frames.camera.isin(["orbit00", "still06"]) & (frames.source != "clip"))
    table = appearance.measure_colors(look(repainted(far, "orbit", tint((0.7, 0.7, 0.7)))))
    assert table.reference.tolist() == [""] and table.color_mse.isna().all()


# --- size and outline --------------------------------------------------------------------------------------------


def zoomed(factor):
    def change(rgb, alpha):
        middle = (np.array(alpha.shape) - 1) / 2
        values = np.concatenate([rgb * alpha[..., None], alpha[..., None]], -1)
        moved = np.stack(
            [
                ndimage.affine_transform(
                    values[..., c], np.full(2, 1 / factor), offset=middle - middle / factor, order=1
                )
                for c in range(4)
            ],
            -1,
        )
        return moved[..., :3] / np.maximum(moved[..., 3:], 1e-3), moved[..., 3]

    return change


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.15])
@pytest.mark.parametrize("cut", [True, False])
def test_scale_is_measured_with_and_without_a_matte(clean, factor, cut):
    wall = backdrop((0.2, 0.4, 0.4))

    def change(rgb, alpha):
        rgb, alpha = zoomed(factor)(rgb, alpha)
        return (rgb, alpha) if cut else wall(rgb, alpha)

    capture = repainted(clean, "clip", change)
    row = appearance.measure_shapes(look(capture)).iloc[0]
    assert row["how"] == ("masks" if cut else "edges")
    assert row["scale"] == pytest.approx(factor, rel=0.03)
    assert ("sources_differ_scale" in codes(capture)) == (factor != 1)


def test_another_outline_at_a_shared_camera_is_found(clean):
    def clipped(rgb, alpha):
        alpha = alpha.copy()
        alpha[: SIZE // 2 - 4] = 0
        return rgb, alpha

    assert "sources_differ_silhouette" in codes(repainted(clean, "clip", clipped))


# --- the embedded capture ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def avatar(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(alpha_data, "CLIP_FRAMES", 9)
    try:
        folder = alpha_data.make_alpha(tmp_path_factory.mktemp("data") / "alpha", SIZE, grid=(1, 1), progress=False)
    finally:
        patch.undo()
    return load_capture(folder).select(source=["orbit", "clip", "clip_clean", "still"])


def test_the_collapse_is_seen_and_the_cure_is_believed(avatar):
    raw = avatar.select(source=["orbit", "clip", "still"])
    found = {(finding.code, finding.severity, finding.remedy.arguments["source"]) for finding in findings(raw)}
    assert ("sources_differ_background", "error", "clip") in found
    assert {source for _, _, source in found} == {"clip"}
    colors = codes(raw)["sources_differ_color"]
    assert colors.remedy.arguments["reference"] == "orbit"
    cut = hybrid.matte(raw, "clip", raw.root / "clip_plate.png")
    assert "sources_differ_background" not in codes(cut)
    assert findings(hybrid.match_colors(cut, "clip", "orbit")) == []


def test_the_same_clip_as_the_orbit_was_shot_is_quiet(avatar):
    assert findings(avatar.select(source=["orbit", "clip_clean", "still"])) == []


@pytest.mark.parametrize("name", ["moving_books", "four_cameras"])
def test_one_source_of_real_pictures_is_quiet(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not on this machine")
    assert findings(load_capture(SHARED / name)) == []
