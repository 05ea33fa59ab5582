"""Views and times, stillness, balance, gaps and held-out frames: properties first, then known captures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from checkup import by_code, look
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs.doctor import balance, coverage, heldout, structure, timing
from fourdgs.doctor.viewpoints import CELL, effective_number, viewpoints

SIZE = 40
SHARED = Path(__file__).parents[2] / "shared" / "data"


def findings(capture, checks=structure.CHECKS):
    return by_code(capture, checks)


def own_times(capture):
    return capture.with_times(np.linspace(0, 1, len(capture)))


def grid(root, cameras=12, times=6, **more):
    base = ball_cameras(cameras, SIZE)
    whole = base[np.repeat(np.arange(cameras), times)].with_times(np.tile(np.linspace(0, 1, times), cameras))
    capture = ball_capture(root, whole, source="grid", **more)
    names = [f"grid{number:02d}" for number in np.repeat(np.arange(cameras), times)]
    return capture.with_frames(capture.frames.assign(camera=names))


def clip(root, frames=30, **more):
    cameras = ball_cameras(1, SIZE)[[0] * frames].with_times(np.linspace(0, 1, frames))
    return ball_capture(root, cameras, source="clip", camera="orbit00", **more)


def held_out(root, cameras=8):
    return ball_capture(root, ball_cameras(cameras, SIZE, start_deg=11), source="still", split="test")


def moved(capture, turn=0.7, scale=2.5, shift=(3.0, -1.0, 2.0)):
    """The same capture in a world that is turned, scaled and shifted."""
    cosine, sine = math.cos(turn), math.sin(turn)
    rotation = torch.tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], dtype=torch.float64)
    views = capture.cameras.viewmats.double().clone()
    views[:, :3, :3] = views[:, :3, :3] @ rotation.T
    views[:, :3, 3] = scale * views[:, :3, 3] - (views[:, :3, :3] @ torch.tensor(shift, dtype=torch.float64))
    cameras = fd.Cameras(views, capture.cameras.Ks, capture.cameras.sizes, capture.cameras.times)
    return capture.with_frames(cameras=cameras)


@pytest.fixture(scope="module")
def stills(tmp_path_factory):
    return ball_capture(tmp_path_factory.mktemp("ball"), ball_cameras(10, SIZE))


# --- properties ---


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_mutual_information_is_symmetric_bounded_and_blind_to_names(pairs):
    first, second = np.array(pairs).T
    information, one, two = structure.mutual_information(first, second)
    assert -1e-12 <= information <= min(one, two) + 1e-9
    assert structure.mutual_information(second, first) == pytest.approx((information, two, one))
    assert structure.mutual_information(7 - 3 * first, second)[0] == pytest.approx(information)


def test_mutual_information_of_a_full_table_is_nothing_and_of_a_diagonal_is_everything():
    first, second = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    assert structure.mutual_information(first, second) == pytest.approx((0, math.log(5), math.log(4)))
    assert structure.mutual_information(np.arange(6), np.arange(6)[::-1]) == pytest.approx([math.log(6)] * 3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20))
def test_the_effective_number_lies_between_one_and_all(shares):
    shares = np.array(shares) / sum(shares)
    assert 1 - 1e-9 <= effective_number(shares) <= len(shares) + 1e-9
    assert effective_number(np.full(len(shares), 1 / len(shares))) == pytest.approx(len(shares))
    assert effective_number(np.append(shares, 0)) == pytest.approx(effective_number(shares))


def test_the_interval_narrows_with_cameras_and_is_students():
    widths = [heldout.interval_db(count) for count in range(1, 40)]
    assert widths[0] == math.inf and all(np.diff(widths[1:]) < 0)
    assert heldout.interval_db(2, 1.0) == pytest.approx(12.706 / math.sqrt(2), rel=1e-4)
    assert heldout.interval_db(5, 3.0) == pytest.approx(3 * heldout.interval_db(5, 1.0))


def test_findings_do_not_depend_on_the_world_or_on_the_order_of_frames(stills, tmp_path):
    whole = fd.merge([own_times(stills), clip(tmp_path), held_out(tmp_path)])
    order = np.random.default_rng(0).permutation(len(whole))
    expected = {code: (one.severity, one.message) for code, one in findings(whole).items()}
    assert len(expected) >= 4
    for other in (moved(whole), whole.select(rows=order)):
        assert {code: (one.severity, one.message) for code, one in findings(other).items()} == expected


# --- views and times ---


def test_frames_of_one_place_are_one_view_whatever_their_names(stills):
    doubled = fd.merge([stills, stills.with_frames(stills.frames.assign(frame=stills.frames["frame"] + "b"))])
    names = [f"{name}{index}" for index, name in enumerate(doubled.frames["camera"])]
    assert len(viewpoints(look(doubled.with_frames(doubled.frames.assign(camera=names)))).means) == 10


def test_one_name_for_a_moving_camera_is_many_views_and_for_a_shaky_pose_is_one(stills):
    one_name = stills.with_frames(stills.frames.assign(camera="phone"))
    assert len(viewpoints(look(one_name)).means) == 10
    angle = np.radians(np.linspace(0, 3, 6))
    near = fd.Cameras.look_at(
        4 * np.stack([np.sin(angle), 0 * angle, np.cos(angle)], -1), fov_x_deg=30, width=SIZE, height=SIZE
    )
    shaky = fd.merge([stills, ball_capture(stills.root, near, source="shaky", camera="tripod")])
    assert len(viewpoints(look(shaky)).means) == 11 - 1  # three degrees of shaking, about the first still's own place


def test_unsynchronised_cameras_meet_and_times_a_step_apart_do_not(tmp_path):
    whole = grid(tmp_path, 4, 30)
    late = np.where(whole.frames["camera"] == "grid02", 0.008, 0.0)
    shifted = whole.with_times(np.clip(whole.frames["time"].to_numpy() + late, 0, 1))
    assert viewpoints(look(shifted)).time.max() + 1 == 30
    assert viewpoints(look(own_times(whole))).time.max() + 1 == len(whole)


def test_a_grid_has_no_walk_and_nothing_is_wrong_with_it(tmp_path):
    whole = fd.merge([grid(tmp_path), held_out(tmp_path)])
    assert structure.measure_walks(look(whole)) == []
    assert findings(whole, structure.CHECKS + coverage.CHECKS) == {}


def test_stills_with_times_of_their_own_are_confounded_and_still(stills):
    found = findings(own_times(stills))
    assert found["camera_time_confounded"].severity == "error" and "still_frames_timed" in found
    for code in ("camera_time_confounded", "still_frames_timed"):
        assert found[code].remedy.action == "drop_times"
        assert found[code].remedy.arguments == {"sources": ["orbit"]}
    [walk] = structure.measure_walks(look(own_times(stills)))
    assert (walk.views, walk.times, walk.cell_views) == (10, 10, 1)
    assert walk.view_known_from_time == pytest.approx(1) and walk.time_known_from_view == pytest.approx(1)
    assert not {"camera_time_confounded", "still_frames_timed", "one_view_per_time"} & set(findings(stills))


def test_many_stills_close_together_are_still_too(tmp_path):
    found = findings(own_times(ball_capture(tmp_path, ball_cameras(30, SIZE))))
    assert {"camera_time_confounded", "still_frames_timed"} <= set(found)


def test_a_moving_ball_seen_once_from_each_side_is_confounded_but_not_still(tmp_path):
    moving = ball_capture(tmp_path, ball_cameras(10, SIZE, times=np.linspace(0, 1, 10)))
    found = findings(moving)
    assert "camera_time_confounded" in found and "still_frames_timed" not in found
    assert found["camera_time_confounded"].remedy.action == ""


def test_stillness_grows_with_the_motion_and_a_still_ball_is_within_its_limit(tmp_path):
    cameras = ball_cameras(10, SIZE, times=np.linspace(0, 1, 10))
    seen = [look(ball_capture(tmp_path, cameras, move=move)) for move in (0.0, 0.1, 0.5)]
    measured = [structure.measure_stillness(one, one.train) for one in seen]
    assert measured[0].still and not measured[1].still and not measured[2].still
    assert measured[0].error_px < measured[1].error_px < measured[2].error_px


def test_opaque_frames_do_not_tell_whether_they_are_still(stills):
    pictures = {row: (stills.picture(row)[0], None) for row in range(len(stills))}
    opaque = look(own_times(stills.with_pictures(pictures)))
    assert structure.measure_stillness(opaque, opaque.train).still is None


def test_a_camera_on_a_path_is_one_view_per_time(tmp_path):
    angle = np.radians(np.linspace(0, 60, 40))
    positions = 4 * np.stack([np.sin(angle), 0.1 * np.sin(5 * angle), np.cos(angle)], -1)
    path = fd.Cameras.look_at(positions, fov_x_deg=30, width=SIZE, height=SIZE, times=np.linspace(0, 1, 40))
    found = findings(ball_capture(tmp_path, path))
    assert found["one_view_per_time"].severity == "warning"
    assert not {"camera_time_confounded", "still_frames_timed"} & set(found)


def test_a_camera_that_jumps_faster_than_the_model_sees_is_as_good_as_several(tmp_path):
    count = 150
    turn = np.random.default_rng(1).uniform(0, 2 * math.pi, count)
    positions = 4 * np.stack([np.sin(turn), 0.3 * np.cos(7 * turn), np.cos(turn)], -1)
    jumps = fd.Cameras.look_at(positions, fov_x_deg=30, width=SIZE, height=SIZE, times=np.linspace(0, 1, count))
    capture = ball_capture(tmp_path, jumps)
    [walk] = structure.measure_walks(look(capture))
    assert walk.cell_views >= 4 and count * CELL > 4
    found = findings(capture)
    assert "camera_time_confounded" not in found and found["one_view_per_time"].severity == "info"


def test_timed_stills_are_found_within_a_clip_of_the_same_source(stills, tmp_path):
    whole = fd.merge([own_times(stills), clip(tmp_path)])
    whole = whole.with_frames(whole.frames.assign(source="capture"))
    found = findings(whole, structure.CHECKS + coverage.CHECKS)
    dropped = found["still_frames_timed"].remedy.arguments["frames"]
    assert len(dropped) == 9 and not any("clip" in name for name in dropped)  # the tenth is at the clip's own camera
    assert "camera_time_confounded" in found and "no_multiview_signal" in found


# --- balance ---


def test_a_clip_beside_stills_dominates_until_it_is_balanced(stills, tmp_path):
    whole = fd.merge([stills, clip(tmp_path, 121)])
    found = findings(whole)
    assert found["camera_dominates"].severity == "error" and found["camera_dominates"].remedy.action == "balance"
    assert "1.5 evenly used" in found["camera_dominates"].message and "source_dominates" in found
    weight = np.where(whole.frames["source"] == "clip", 1.0, 121 / 10)
    for factor in (1.0, 7.0):
        balanced = whole.with_frames(whole.frames.assign(weight=factor * weight))
        assert balance.check_balance(look(balanced)) == []
    assert balance.check_balance(look(stills)) == []


def test_shares_of_sources_and_cameras_sum_to_one(stills, tmp_path):
    seen = look(fd.merge([stills, clip(tmp_path, 15), held_out(tmp_path)]))
    for by, number in (("camera", 10), ("source", 2)):
        table = balance.measure_balance(seen, by)
        assert table["share"].sum() == pytest.approx(1) and table.attrs["number"] == number
    assert balance.measure_balance(seen, "source").set_index("name").loc["clip", "views"] == pytest.approx(0.1)


# --- time ---


def test_the_speed_of_a_ball_is_measured(tmp_path):
    whole = look(clip(tmp_path, 15, move=1.0))
    expected = 1.0 / 4 * float(whole.cameras.Ks[0, 0, 0])  # world units a clip, over the distance, in pixels
    # The normal flow is the motion's part along the gradient: 2 / pi of it over all directions, all of it at best.
    assert 0.5 * expected < timing.measure_speed(whole) < 1.1 * expected


def test_a_hole_in_the_time_of_what_moves_is_a_gap_and_of_what_stands_still_is_not(tmp_path):
    def holed(move, end):
        whole = clip(tmp_path, 40, move=2 * move)
        return whole.select(where=lambda frames: ~frames["time"].between(0.3, end))

    found = findings(holed(1.0, 0.7))["time_gap"]
    assert "0.282 to 0.718" in found.message and len(found.frames) == 2
    assert timing.check_time_gap(look(holed(0.0, 0.7))) == []
    assert timing.check_time_gap(look(holed(1.0, 0.29))) == []
    gaps = [timing.measure_gap(look(holed(1.0, end))).motion_px for end in (0.4, 0.5, 0.6)]
    assert gaps == sorted(gaps)


# --- held out ---


def test_few_held_out_cameras_are_thin_and_none_are_said(stills, tmp_path):
    assert "no_held_out" in findings(stills)
    severities = {}
    for count in (1, 4, 5, 7, 12):
        found = findings(fd.merge([stills, held_out(tmp_path, count)]))
        severities[count] = found["held_out_thin"].severity if "held_out_thin" in found else None
    assert severities == {1: "warning", 4: "warning", 5: "info", 7: None, 12: None}


def test_many_frames_of_one_camera_are_one_camera(stills, tmp_path):
    test = clip(tmp_path, 30, split="test")
    assert "one camera" in findings(fd.merge([stills, test]))["held_out_thin"].message


@pytest.mark.parametrize("how", ["picture", "camera and time"])
def test_a_leak_is_found_and_the_remedy_names_the_training_frame(stills, tmp_path, how):
    test = held_out(tmp_path)
    assert len(heldout.measure_leaks(look(fd.merge([stills, test])))) == 0
    leaking = fd.merge([stills, test])
    row, other = 3, len(stills) - 1
    row = int(leaking.frames.index[leaking.frames["split"] == "test"][2])
    other = int(leaking.frames.index[leaking.frames["split"] == "train"][4])
    if how == "picture":
        rgb, alpha = leaking.picture(other)
        noisy = np.clip(rgb.astype(int) + np.random.default_rng(0).integers(-1, 2, rgb.shape), 0, 255)
        leaking = leaking.with_pictures({row: (noisy.astype(np.uint8), alpha)})
    else:
        views = leaking.cameras.viewmats.clone()
        views[row] = views[other]
        cameras = fd.Cameras(views, leaking.cameras.Ks, leaking.cameras.sizes, leaking.cameras.times)
        leaking = leaking.with_frames(cameras=cameras)
    leaks = heldout.measure_leaks(look(leaking))
    names = leaking.frames["frame"]
    assert leaks.to_dict("records") == [{"frame": names[row], "train_frame": names[other], "why": how}]
    [found] = heldout.check_leaks(look(leaking))
    assert (found.severity, found.remedy.action) == ("error", "drop_leaked")
    assert found.remedy.arguments == {"frames": [names[other]]}


def test_another_time_of_the_same_camera_is_no_leak(tmp_path):
    whole = grid(tmp_path, 6, 6)
    splits = np.where(whole.frames["time"].between(0.3, 0.5), "test", "train")
    assert len(heldout.measure_leaks(look(whole.with_split(list(splits))))) == 0


def test_one_file_in_both_splits_is_a_leak(tmp_path, stills):
    test = held_out(tmp_path)
    folder = fd.data.transforms.write_transforms(fd.merge([stills, test]), tmp_path / "written")
    written = fd.load_capture(folder)
    frames = written.frames.copy()
    row = frames.index[frames["split"] == "test"][0]
    frames.loc[row, "image"] = frames.loc[frames["split"] == "train", "image"].iloc[0]
    leaks = heldout.measure_leaks(look(written.with_frames(frames)))
    assert leaks["why"].tolist() == ["file"]


def test_mixed_sizes_are_named_and_the_remedy_never_enlarges(stills, tmp_path):
    assert heldout.check_resolution(look(stills)) == []
    sizes = np.where(np.arange(len(stills)) < 3, SIZE // 2, SIZE)
    [found] = heldout.check_resolution(look(stills.resized(sizes, sizes)))
    assert found.severity == "error" and len(found.frames) == 3
    assert found.remedy.arguments == {"width": SIZE // 2, "height": SIZE // 2}
    test = held_out(tmp_path).resized(SIZE // 2, SIZE // 2)
    assert heldout.check_resolution(look(fd.merge([stills, test])))[0].severity == "info"


def test_captures_with_little_in_them_raise_nothing(stills, tmp_path):
    for capture in (
        held_out(tmp_path, 2),
        stills.select(rows=[0]),
        stills.select(rows=[0, 1]),
        clip(tmp_path, 2),
        fd.merge([clip(tmp_path, 1), held_out(tmp_path, 1)]),
    ):
        for code, finding in findings(capture, structure.CHECKS + coverage.CHECKS).items():
            assert finding.code == code and len(finding.evidence) and "nan" not in finding.message


# --- real captures ---


@pytest.mark.parametrize(
    ("folder", "codes"),
    [
        ("moving_books", {"one_view_per_time"}),
        ("four_cameras", {"held_out_thin", "too_few_cameras", "low_covisibility", "held_out_outside"}),
    ],
)
def test_real_captures_are_called_what_they_are(folder, codes):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"shared/data/{folder} is not on this machine")
    capture = fd.load_capture(SHARED / folder)
    if folder == "four_cameras":
        capture = capture.select(rows=np.flatnonzero((capture.frames["time"] * 99).round() % 5 == 0))
    assert set(findings(capture, structure.CHECKS + coverage.CHECKS)) == codes
