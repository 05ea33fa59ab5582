"""Driving tracks: interpolation, other lists of controls, joins, and the files that face capture leaves behind."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourdgs.data.avatar import _rotation
from fourdgs.drive import ARKIT, EYES, HEAD, DriveTrack, load_track, plain_name
from fourdgs.drive.landmarker import head_angles
from fourdgs.drive.names import halves, near, near_names
from fourdgs.errors import InputError

finite = st.floats(-3, 3, width=32)


@st.composite
def tracks(draw, controls: int | None = None) -> DriveTrack:
    count, width = draw(st.integers(1, 6)), controls or draw(st.integers(1, 4))
    steps = draw(st.lists(st.floats(1e-3, 2), min_size=count, max_size=count))
    values = draw(st.lists(st.lists(finite, min_size=width, max_size=width), min_size=count, max_size=count))
    return DriveTrack(np.cumsum(steps), tuple(f"c{index}" for index in range(width)), values)


def track() -> DriveTrack:
    return DriveTrack([0.0, 0.5, 2.0], ("jawOpen", "headYaw"), [[0, 0], [1, -10], [0.4, 20]])


# --- the track itself ---


@settings(max_examples=40, deadline=None)
@given(tracks(), st.lists(st.floats(-5, 20), min_size=1, max_size=8))
def test_at_is_linear_between_its_times_and_held_at_its_ends(made, times):
    np.testing.assert_array_equal(made.at(made.times_s), made.values)
    expected = np.stack([np.interp(times, made.times_s, column) for column in made.values.T], axis=1)
    np.testing.assert_allclose(made.at(times), expected, atol=1e-5)
    np.testing.assert_array_equal(made.at([-1e9, 1e9]), made.values[[0, -1]])


@settings(max_examples=25, deadline=None)
@given(tracks(3), st.permutations(range(3)))
def test_controls_in_another_order_and_back(made, order):
    names = [made.controls[index] for index in order]
    there = made.to(["other", *names])
    np.testing.assert_array_equal(there.values[:, 0], 0)
    np.testing.assert_array_equal(there.to(made.controls, unknown="error").values, made.values)


def test_what_a_rig_has_not_is_said_and_what_is_neutral_is_not():
    made = DriveTrack([0, 1], ("jawOpn", "headYaw", "tongueOut"), [[0, 1, 0], [1, 1, 0]])
    with pytest.warns(UserWarning, match=r"jawOpn \(jawOpen\?\).*left out") as told:
        there = made.to(("jawOpen", "headYaw"))
    assert len(told) == 1 and "tongueOut" not in str(told[0].message)
    np.testing.assert_array_equal(there.values, [[0, 1], [0, 1]])
    with pytest.raises(InputError, match=r"jawOpn \(jawOpen\?\)"):
        made.to(("jawOpen", "headYaw"), unknown="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.renamed({"jawOpn": "jawOpen"}).to(("jawOpen", "headYaw"))
    with pytest.raises(InputError, match="jawOpn"):
        made.scaled({"jawOpen": 2})


@settings(max_examples=25, deadline=None)
@given(tracks(2), tracks(2))
def test_joins(one, other):
    palindrome = one.palindrome()
    assert palindrome.duration_s == pytest.approx(2 * one.duration_s)
    middle, there = one.times_s[-1], np.linspace(0, one.duration_s, 7)
    np.testing.assert_allclose(palindrome.at(middle + there), palindrome.at(middle - there), atol=2e-3)
    both = one.followed_by(other, blend_s=0.25)
    assert both.duration_s == pytest.approx(one.duration_s + 0.25 + other.duration_s)
    np.testing.assert_array_equal(both.at(one.times_s), one.values)
    np.testing.assert_array_equal(both.values[len(one) :], other.values)
    mean = (one.values[-1] + other.values[0]) / 2
    np.testing.assert_allclose(both.at(one.times_s[-1] + 0.125)[0], mean, atol=1e-4)
    assert len(one.looped(3, 0.1)) == 3 * len(one) and one.looped(1).duration_s == one.duration_s


def test_joined_tracks_have_all_the_controls():
    made = track().followed_by(DriveTrack([7.0], ("headYaw", "cheekPuff"), [[5, 1]]))
    assert made.controls == ("jawOpen", "headYaw", "cheekPuff")
    np.testing.assert_array_equal(made.values[-2:], np.float32([[0.4, 20, 0], [0, 5, 1]]))


def test_resampled_between_shifted_scaled():
    made = track()
    fine = made.resampled(30)
    assert len(fine) == 61 and np.allclose(np.diff(fine.times_s), 1 / 30)
    np.testing.assert_array_equal(fine.values, made.at(fine.times_s))
    np.testing.assert_allclose(made.resampled(2).at([0.25, 0.5]), made.at([0.25, 0.5]))
    part = made.between(0.25, 1.0)
    assert part.times_s.tolist() == [0.25, 0.5, 1.0]
    np.testing.assert_allclose(part.at(np.linspace(0.25, 1, 9)), made.at(np.linspace(0.25, 1, 9)), atol=1e-5)
    np.testing.assert_array_equal(made.shifted(3).at([3.2]), made.at([0.2]))
    np.testing.assert_array_equal(made.scaled({"headYaw": -1}).values[:, 1], -made.values[:, 1])
    assert made.tensor().shape == (3, 2) and made.tensor([0, 1, 2, 3]).shape == (4, 2)
    with pytest.raises(InputError, match="outside"):
        made.between(5, 6)


def test_a_track_is_never_changed_in_place():
    given = np.zeros((2, 1), np.float32)
    made = DriveTrack([0, 1], ("a",), given)
    given[:] = 1
    assert not made.values.any()
    with pytest.raises(ValueError):
        made.values[0] = 1


@pytest.mark.parametrize(
    ("times", "controls", "values", "words"),
    [
        ([], ("a",), np.zeros((0, 1)), "no time"),
        ([0, 0], ("a",), [[0], [1]], "must rise"),
        ([0, math.nan], ("a",), [[0], [1]], "NaN"),
        ([0, 1], ("a",), [[0], [math.inf]], r"a is inf at 1 s"),
        ([0, 1], ("a", "a"), [[0, 0], [1, 1]], "more than once"),
        ([0, 1], ("a", "b"), [[0], [1]], r"shape \[2, 1\], must be \[2, 2\]"),
        ([0, 1], ("a",), [["x"], [1]], "numbers"),
    ],
)
def test_what_is_no_track(times, controls, values, words):
    with pytest.raises(InputError, match=words):
        DriveTrack(times, controls, values)


# --- names ---


def test_names_of_all_the_writers_come_to_one():
    assert len(ARKIT) == 52 == len(set(ARKIT))
    for name in (*ARKIT, *HEAD, *EYES):
        for spelled in (name, name[0].upper() + name[1:], name.upper(), f" {name} "):
            assert plain_name(spelled) == name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("eyeBlink_L", "eyeBlinkLeft"), ("eyeBlink.R", "eyeBlinkRight"), ("mouthSmile.r", "mouthSmileRight"),
        ("EyeBlinkL", "eyeBlinkLeft"), ("mouthSmile_left", "mouthSmileLeft"), ("EYE_BLINK_LEFT", "eyeBlinkLeft"),
        ("Eye_Blink_L", "eyeBlinkLeft"), ("eye blink left", "eyeBlinkLeft"), ("tongue_out", "tongueOut"),
        ("blendShape1.jawOpen", "jawOpen"), ("blendShapes.JawOpen", "jawOpen"), ("A25_Jaw_Open", "jawOpen"),
        ("head|Face:browInnerUp", "browInnerUp"), ("HEADYAW", "headYaw"), ("mouth_left", "mouthLeft"),
        # What is none of them stays: VRoid's, Ready Player Me's, ICT-FaceKit's halves, coefficients.
        ("Fcl_MTH_A", "Fcl_MTH_A"), ("viseme_aa", "viseme_aa"), ("Wolf3D.viseme_aa", "Wolf3D.viseme_aa"),
        ("mouthSmile", "mouthSmile"), ("browInnerUp_L", "browInnerUp_L"), ("jawOpenWide", "jawOpenWide"),
        ("flame.expr000", "flame.expr000"), ("my_L", "my_L"), ("aa", "aa"),
    ],
)  # fmt: skip
def test_other_makers_names_are_understood(written, name):
    assert plain_name(written) == name and plain_name(name) == name


def test_halves_of_an_action_are_found_unless_it_is_there():
    assert halves(["browInnerUp_L", "jawOpen", "BrowInnerUpRight"]) == {"browInnerUp": (0, 2)}
    assert halves(["browInnerUp_L", "browInnerUp_R", "browInnerUp", "cheekPuff_L", "mouthLeft", "mouthRight"]) == {}


def test_names_that_may_be_meant_are_told():
    assert near("jawOpn", ARKIT)[0] == "jawOpen" and near("qqqq", ARKIT) == []
    assert set(near("Blink", ARKIT)) == {"eyeBlinkLeft", "eyeBlinkRight"}  # little alike, but in it
    assert near_names("qqqq", ARKIT).startswith("known: browDownLeft, ") and near_names("a", ()) == "it has no controls"


# --- our own files ---


@settings(max_examples=20, deadline=None)
@given(tracks())
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_own_files_come_back_to_the_bit(tmp_path_factory, ending, made):
    made = made.shifted(-made.times_s[0])
    back = load_track(made.save(tmp_path_factory.mktemp("own") / f"track.{ending}"))
    assert back.controls == made.controls
    np.testing.assert_array_equal(back.values, made.values)
    np.testing.assert_array_equal(back.times_s, made.times_s)


def file(folder: Path, text: str, name: str = "a.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_own_csv_by_hand(tmp_path):
    made = load_track(file(tmp_path, "\ufefftime_s; JawOpen ;headYaw\r\n1.5;0;3\r\n\r\n2;1;4\r\n"))
    assert made.controls == ("jawOpen", "headYaw") and made.times_s.tolist() == [0, 0.5]
    assert made.values.tolist() == [[0, 3], [1, 4]]  # degrees are degrees here
    assert load_track(file(tmp_path, "timestamp_ms,jawOpen\n100,0\n350,1\n")).times_s.tolist() == [0, 0.25]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("time_s,jawOpen\n", "no row of values"),
        ("jawOpen\n1\n", "no column time_s or Timecode"),
        ("time_s\n1\n", "no control"),
        ("time_s,jawOpen\n0,0\n1,x\n", "line 3: jawOpen: is 'x', must be a number"),
        ("time_s,jawOpen,a\n0,0,0\n1,,0\n", "line 3: jawOpen: is empty"),
        ("time_s,jawOpen\n0,\n", "no row with a face"),
        ("frame,jawOpen\n0,0\n", "give fps, at which its frames count"),
        (",timeCode,blendShapes.JawOpen\n0,x,1\n", "line 2: timeCode: is 'x'"),
        ("time_s,name,score\n0,jawOpen,x\n", "line 2: jawOpen: is 'x'"),
        ("time_s,jawOpen\n0,0\n1,nan\n", "line 3: jawOpen must be a finite number"),
        ("time_s,jawOpen\n0,0\ninf,1\n", "line 3: the time must be a finite number"),
        ("time_s,jawOpen\n0,0\n1,1e39\n", "line 3: jawOpen must be"),
        ("time_s,jawOpen\n0,0\n1,1\n0.5,1\n", "line 4: the time 0.5 s follows 1 s"),
        ("time_s,jawOpen\n0,0\n0,1\n", "line 3: the time 0 s follows 0 s"),
        ("time_s,jawOpen,JawOpen\n0,0,0\n", "jawOpen is there more than once"),
        ("time_s,,jawOpen\n0,0,0\n", "has no name"),
        ("time_s,jawOpen\n0,0,7\n", "line 2: has 3 cells, the first line has 2 names"),
        ("time_s,jawOpen\n0,40\n", r"jawOpen: is up to 40.*per cent"),
    ],
)
def test_a_bad_csv_is_one_error(tmp_path, text, words):
    path = file(tmp_path, text)
    with pytest.raises(InputError, match=words) as told:
        load_track(path)
    assert str(path) in str(told.value) and "\n" not in str(told.value)


def test_weights_a_little_outside_are_kept_with_a_word(tmp_path):
    with pytest.warns(UserWarning, match=r"jawOpen leave \[0, 1\]") as told:
        made = load_track(file(tmp_path, "time_s,jawOpen,other\n0,1.2,90\n"))
    assert made.values.tolist() == [[np.float32(1.2), 90]] and len(told) == 1
    with pytest.warns(UserWarning, match="1 rows repeat"):
        assert len(load_track(file(tmp_path, "time_s,jawOpen\n0,0\n0,0\n1,1\n"))) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("{", "not valid JSON"),
        ("3", "is no track"),
        ("[]", "is no track"),
        ('{"controls": []}', "list of names"),
        ('{"controls": ["a"]}', "times_s: must be numbers"),
        ('{"controls": ["a"], "times_s": [0, 1], "values": [[1], [1, 2]]}', "values: must be numbers"),
        ('{"controls": ["a"], "times_s": [0, 1], "values": [[1]]}', r"shape \[1, 1\] for 2 times"),
        ('{"controls": ["a"], "times_s": [0, 1], "values": [[1], [NaN]]}', "value 2: a must be a finite"),
        ('{"controls": ["a"], "times_s": [], "values": []}', "values: has the shape|no row"),
        ('{"facsNames": ["a"], "weightMat": [[1]]}', "exportFps: is None, must be a number above 0 .give fps"),
        ('{"facsNames": ["a"], "weightMat": [[1, 2]], "exportFps": 30}', r"shape \[1, 2\] for 1 times and 1 controls"),
        ('{"facsNames": "a", "weightMat": [[1]], "exportFps": 30}', "facsNames: must be a list of names"),
        ('{"names": ["a"], "frames": [{"weights": [1]}]}', "frames: must be objects with time and weights"),
        ('{"names": ["a"], "frames": [{"time": 0, "weights": 1}]}', r"shape \[1\] for 1 times"),
        ('[{"blendshapes": {"jawOpen": 1}}, {"blendshapes": {"jawOpen": 0}}]', "frame 0: timestamp_ms: .*or give fps"),
        ('[{"time": 0, "blendshapes": {"jawOpen": "x"}}]', "frame 0: blendshapes: must be"),
    ],
)
def test_a_bad_json_is_one_error(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        load_track(file(tmp_path, content, "a.json"))


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="not there"):
        load_track(tmp_path / "none.csv")
    with pytest.raises(InputError, match="from_audio"):
        load_track(file(tmp_path, "x", "a.wav"))
    with pytest.raises(InputError, match="csv"):
        track().save(tmp_path / "a.txt")


# --- the same performance as others write it ---

WIDE = ("jawOpen", "eyeBlinkLeft", "browInnerUp")
SCORES = np.float32([[0.1, 0.9, 0.25], [0.5, 0.0, 0.5], [0.75, 0.125, 0]])
STEP_S = 0.04


def _csv(head: str, rows: list[list]) -> str:
    return head + "\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n"


def _numbered(scale: float = 1.0) -> list[tuple[int, float, list[float]]]:
    return [(index, round(scale * STEP_S * index, 6), row.tolist()) for index, row in enumerate(SCORES)]


def _categories(row: list[float], key: str = "categoryName") -> list[dict]:
    return [{key: "_neutral", "score": 0.1}, *({key: n, "score": v} for n, v in zip(WIDE, row, strict=True))]


FORMS = {
    "audio2face.csv": _csv(
        ",timeCode,blendShapes.JawOpen,blendShapes.EyeBlinkLeft,blendShapes.BrowInnerUp",
        [[k, time, *row] for k, time, row in _numbered()],
    ),
    "mediapipe.csv": _csv(
        "frame,timestamp_ms,_neutral,jawOpen,eyeBlinkLeft,browInnerUp",
        [[k, time, 0.1, *row] for k, time, row in _numbered(1000)],
    ),
    "stamps.csv": _csv("timestamp,jawOpen,eyeBlinkLeft,browInnerUp", [[time, *row] for _, time, row in _numbered()]),
    "counted.csv": _csv("frame,jawOpen,eyeBlinkLeft,browInnerUp", [[k, *row] for k, _, row in _numbered()]),
    "long.csv": _csv(
        "frame,time_s,face,name,score",
        [[k, time, face, n, v if face == 0 else 9]  # of two faces the first counts
         for k, time, row in _numbered() for face in (0, 1) for n, v in zip(WIDE, row, strict=True)],
    ),
    "audio2face.json": json.dumps(
        {"exportFps": 25.0, "trackPath": "a.wav", "numPoses": 3, "numFrames": 3, "facsNames": list(WIDE),
         "weightMat": SCORES.tolist(), "joints": ["jaw"], "rotations": []}
    ),
    "beat.json": json.dumps(
        {"names": list(WIDE),
         "frames": [{"weights": row, "time": time, "rotation": []} for _, time, row in _numbered()]}
    ),
    "nested.json": json.dumps(
        [{"timestamp": 1e6 + time, "results": {"faceBlendshapes": [_categories(row)]}}
         for _, time, row in _numbered(1000)]
    ),
    "browser.json": json.dumps(
        [{"elapsedMs": time, "faceLandmarkerResult": {"faceBlendshapes": [{"categories": _categories(row)}]}}
         for _, time, row in _numbered(1000)]
    ),
    "named.json": json.dumps(
        {"fps": 25, "frames": [{"face_blendshapes": _categories(row, "name")} for _, _, row in _numbered()]}
    ),
    "arkit.json": json.dumps(
        [{"timestamp": time, "blendShapes": dict(zip(("jawOpen", "eyeBlink_L", "browInnerUp"), row, strict=True))}
         for _, time, row in _numbered()]
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is taken as milliseconds")
@pytest.mark.parametrize("name", FORMS)
def test_one_performance_is_one_track_whoever_wrote_it(tmp_path, name):
    path = tmp_path / name
    path.write_text(FORMS[name])
    made = load_track(path, fps=25 if name == "counted.csv" else None)
    assert made.controls == WIDE
    np.testing.assert_array_equal(made.values, SCORES)
    np.testing.assert_allclose(made.times_s, STEP_S * np.arange(3), atol=1e-9)


def test_stamps_without_a_unit_are_said_and_rows_without_a_face_left_out(tmp_path):
    rows = [[time, *row] for _, time, row in _numbered(1e6)]
    with pytest.warns(UserWarning, match="timestamp goes by 40000 and is taken as microseconds"):
        made = load_track(file(tmp_path, _csv("timestamp,jawOpen,eyeBlinkLeft,browInnerUp", rows)))
    assert made.times_s[-1] == pytest.approx(2 * STEP_S)
    with pytest.warns(UserWarning, match="1 of 3 rows saw no face"):
        text = "time_s,jawOpen,eyeBlinkLeft\n0,1,0\n1,,\n2,0,1\n"
        np.testing.assert_array_equal(load_track(file(tmp_path, text)).values, [[1, 0], [0, 1]])


def test_a_rate_that_is_given_counts_more_than_the_files(tmp_path):
    path = file(tmp_path, FORMS["audio2face.json"], "a.json")
    assert load_track(path, fps=10).times_s.tolist() == [0, 0.1, 0.2]
    assert load_track(file(tmp_path, '{"blendshapes": {"jawOpen": 1}}', "b.json")).values.tolist() == [[1]]


# --- Live Link Face ---


def live_link(rows: list[tuple[str, dict[str, float]]], leave: tuple[str, ...] = ()) -> str:
    names = [name for name in (*ARKIT, *HEAD, *EYES) if name not in leave]
    lines = ["Timecode,BlendshapeCount," + ",".join(name[0].upper() + name[1:] for name in names)]
    for code, values in rows:
        lines.append(f"{code},61," + ",".join(f"{values.get(name, 0.0):.6f}" for name in names))
    return "\n".join(lines) + "\n"


def codes(times_s: np.ndarray, fps: float) -> list[str]:
    """HH:MM:SS:FF.sss"""
    clock = [(int(time // 1), (time % 1) * fps) for time in times_s]
    return [f"{s // 3600 % 24:02d}:{s // 60 % 60:02d}:{s % 60:02d}:{frame:06.3f}" for s, frame in clock]


@pytest.mark.parametrize("fps", [24, 25, 30, 60])
def test_live_link_s_times_and_angles(tmp_path, fps):
    times = 86395.3 + np.arange(0, 8, 1 / fps)  # over midnight
    path = file(tmp_path, live_link([(code, {"jawOpen": 0.5, "headYaw": 0.2}) for code in codes(times, fps)]))
    made = load_track(path)
    np.testing.assert_allclose(made.times_s, times - times[0], atol=1e-3)
    assert len(made.controls) == 61 and set(made.controls) == {*ARKIT, *HEAD, *EYES}
    there = dict(zip(made.controls, made.at(1.0)[0], strict=True))
    assert there["jawOpen"] == 0.5 and there["headYaw"] == pytest.approx(math.degrees(0.2), rel=1e-5)
    np.testing.assert_allclose(load_track(path, fps=fps).times_s, made.times_s)


FIRST_LINE = (
    "Timecode,BlendshapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,"
    "EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,"
    "EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,"
    "MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,"
    "MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,"
    "MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,"
    "BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,"
    "TongueOut,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)
"""As the app writes it; programs that write for its readers often have BlendShapeCount."""


@pytest.mark.parametrize("count", ["BlendshapeCount", "BlendShapeCount"])
def test_live_link_s_own_columns_are_all_known(tmp_path, count):
    rows = [",".join(["14:03:52:28.207", "61", *(f"{index / 100:.10f}" for index in range(61))])]
    rows += ["14:03:52:29.207,0", "14:03:53:59.870,61" + ",0.0" * 61]
    head = FIRST_LINE.replace("BlendshapeCount", count)
    with pytest.warns(UserWarning, match="1 of 3 rows saw no face"):
        made = load_track(file(tmp_path, "\n".join([head, *rows]) + "\n"))
    names = head.split(",")[2:]
    assert made.controls == tuple(name[0].lower() + name[1:] for name in names)
    assert set(made.controls) == {*ARKIT, *HEAD, *EYES}
    expected = np.arange(61) / 100
    expected[52:] = np.degrees(expected[52:])
    np.testing.assert_allclose(made.values[0], expected, rtol=1e-6)
    assert made.duration_s == pytest.approx(1 + (59.870 - 28.207) / 60)


def test_live_link_s_oddities_are_said(tmp_path):
    rows = live_link([("10:00:00:00.000", {"jawOpen": 1}), ("10:00:00:30.000", {"jawOpen": 0})])
    with pytest.warns(UserWarning, match="within one second.*60"):
        assert load_track(file(tmp_path, rows)).times_s.tolist() == [0, 0.5]
    assert load_track(file(tmp_path, rows), fps=31).duration_s == pytest.approx(30 / 31)
    with pytest.raises(InputError, match="fps is 24"):
        load_track(file(tmp_path, rows), fps=24)
    with pytest.warns(UserWarning, match="1 of 3 rows saw no face"):
        assert len(load_track(file(tmp_path, rows + "10:00:00:40.000,0\n"), fps=60)) == 2
    with pytest.warns(UserWarning, match="lacks jawOpen"):
        less = live_link([("1:0:0:0", {}), ("1:0:1:0", {})], leave=("jawOpen",))
        assert "jawOpen" not in load_track(file(tmp_path, less)).controls
    with pytest.warns(UserWarning, match="degrees"):
        turned = load_track(file(tmp_path, live_link([("1:0:0:0", {"headYaw": 20}), ("1:0:1:0", {})])))
    assert turned.values[0, turned.controls.index("headYaw")] == 20
    with pytest.raises(InputError, match="line 2: Timecode: is '1:2:3'"):
        load_track(file(tmp_path, live_link([("1:2:3", {})])))
    with pytest.raises(InputError, match="none of ARKit"):
        load_track(file(tmp_path, "Timecode,BlendshapeCount,a\n1:2:3:4,1,0\n"))
    with pytest.raises(InputError, match="no row with a face"):
        load_track(file(tmp_path, live_link([]) + "10:00:00:40.000,0\n"))


# --- MediaPipe ---


def matrix(yaw: float, pitch: float, roll: float, scale: float = 1.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = scale * _rotation(*np.radians([yaw, pitch, roll]))
    pose[:3, 3] = 1, 2, -40
    return pose


@settings(max_examples=50, deadline=None)
@given(st.floats(-170, 170), st.floats(-80, 80), st.floats(-170, 170), st.floats(0.5, 2))
def test_head_angles_undo_the_avatar_s_rotation(yaw, pitch, roll, scale):
    got = head_angles(matrix(yaw, pitch, roll, scale))
    np.testing.assert_allclose([got[name] for name in HEAD], [yaw, pitch, roll], atol=1e-6)


def test_landmarker_in_python_s_and_in_the_browser_s_spelling(tmp_path):
    python, browser = [], []
    for index in range(5):
        scores = [("_neutral", 1e-6), ("jawOpen", index / 10), ("eyeBlinkLeft", 0.5)]
        pose = matrix(3 * index, -5, 2)
        shapes = [[{"index": 0, "score": score, "category_name": name, "display_name": ""} for name, score in scores]]
        python.append({"timestamp_ms": 40 * index, "face_blendshapes": shapes})
        python[-1]["facial_transformation_matrixes"] = [pose.tolist()]
        shapes = [{"categories": [{"score": score, "categoryName": name} for name, score in scores], "headIndex": -1}]
        browser.append({"timestampMs": 1000 + 40 * index, "faceBlendshapes": shapes})
        browser[-1]["facialTransformationMatrixes"] = [{"rows": 4, "columns": 4, "data": pose.T.ravel().tolist()}]
    one = load_track(file(tmp_path, json.dumps(python), "a.json"))
    other = load_track(file(tmp_path, json.dumps({"frames": browser}), "b.json"))
    assert one.controls == other.controls == ("jawOpen", "eyeBlinkLeft", *HEAD)
    np.testing.assert_allclose(one.times_s, 0.04 * np.arange(5))
    np.testing.assert_allclose(one.values, other.values)
    np.testing.assert_allclose(one.values[3], [0.3, 0.5, 9, -5, 2], rtol=1e-5)


def test_landmarker_s_faults(tmp_path):
    def frame(time, **more):
        return {"timestamp_ms": time, "face_blendshapes": [[{"category_name": "jawOpen", "score": 0.5}]]} | more

    def load(*frames):
        return load_track(file(tmp_path, json.dumps(frames), "a.json"))

    with pytest.warns(UserWarning, match="1 of 3 frames saw no face"):
        assert len(load(frame(0), frame(40, face_blendshapes=[]), frame(80))) == 2
    with pytest.raises(InputError, match="no frame with a face"):
        load(frame(0, face_blendshapes=[]))
    with pytest.raises(InputError, match="frame 1: timestamp_ms"):
        load(frame(0), frame(None))
    with pytest.raises(InputError, match="frame 1: the time 0 s follows 0 s"):
        load(frame(40), frame(40, face_blendshapes=[[{"category_name": "jawOpen", "score": 0.1}]]))
    with pytest.raises(InputError, match="frame 0: face_blendshapes"):
        load(frame(0, face_blendshapes=[[{"category_name": "jawOpen"}]]))
    with pytest.raises(InputError, match="frame 1: jawOpen must be a finite"):
        load(frame(0), frame(40, face_blendshapes=[[{"category_name": "jawOpen", "score": math.nan}]]))
    with pytest.raises(InputError, match="frame 0: facial_transformation_matrixes"):
        load(frame(0, facial_transformation_matrixes=[[1, 2]]))
    with pytest.raises(InputError, match="1 of 2 frames have no"):
        load(frame(0, facial_transformation_matrixes=[matrix(0, 0, 0).tolist()]), frame(40))
