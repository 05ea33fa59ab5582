from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest
import torch
from avatars import puppet, puppet_model
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import made_up_run
from scenes import ball_capture, random_gaussians
from toy_rig import tent_rig

import fourdgs as fd
from fourdgs import InputError, Model, Static, paths
from fourdgs.drive import DriveTrack, from_audio, speech_like
from fourdgs.media import manifest_path
from fourdgs.media.__main__ import main
from fourdgs.runs import read_info
from fourdgs.talking import EXPRESSIONS, avatar, before, expressions, face_sphere, performed, played, posed, swing, talk
from fourdgs.typical_view import typical_view

pytest.importorskip("av")

from test_media import tone  # noqa: E402

from fourdgs.data.video import read_video, write_video  # noqa: E402
from fourdgs.data.video_encode import sound_duration  # noqa: E402

SIZE = 32


@pytest.fixture(scope="module")
def model() -> Model:
    return puppet_model()


def film(who, performance, path, **options):
    return talk(who, performance, path, progress=False, **({"size": SIZE, "fps": 10} | options))


def manifest(path) -> dict:
    return json.loads(manifest_path(path).read_text())


def front(model: Model, frames: int = 1) -> fd.Cameras:
    """One camera, standing still."""
    camera = swing(model, size=SIZE).cameras()[40]
    return camera[[0] * frames].with_times(None)


# --- which values at which frame ---


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.sampled_from([10, 24, 29.97, 60]), st.integers(0, 3))
def test_every_frame_has_the_tracks_values_of_its_moment_exactly(frames, fps, seed):
    model, track = puppet_model(4), speech_like(2.0, seed)
    seconds = np.arange(frames) / fps
    acting = played(model, track, seconds)
    times = np.linspace(0, 1, frames).astype(np.float32)
    found = acting.motion.drive_at(torch.from_numpy(times))
    assert torch.equal(found, track.to(model.motion.rig.controls).tensor(seconds))


def test_posing_many_moments_at_once_is_posing_each(model):
    track, seconds = speech_like(1.0, 2), np.arange(7) / 7
    at = played(model, track, seconds).at(torch.linspace(0, 1, 7))
    for k, drive in enumerate(track.to(model.motion.rig.controls).tensor(seconds)):
        one = posed(model, drive)
        for key in ("means", "quats", "scales"):
            torch.testing.assert_close(at.items()[key][k], one.items()[key], atol=1e-5, rtol=1e-5)
    neutral = posed(model, model.motion.rig.neutral)
    assert all(
        torch.equal(a, b) for a, b in zip(neutral.items().values(), model.gaussians.items().values(), strict=True)
    )


def test_what_the_track_does_not_name_stays_neutral_where_that_is_not_zero():
    rig = tent_rig()
    rig.neutral.copy_(torch.tensor([0.3, 5.0]))
    model = puppet_model(20, rig)
    values = played(model, DriveTrack([0, 1], ("fold",), [[0.1], [0.2]]), [0, 1]).motion.track_values
    torch.testing.assert_close(values, torch.tensor([[0.1, 5.0], [0.2, 5.0]]))


def test_the_model_that_is_given_stays_as_it_was(model):
    before_it = copy.deepcopy(model.motion.state_dict())
    played(model, speech_like(0.5), [0, 0.2])
    assert all(torch.equal(value, before_it[key]) for key, value in model.motion.state_dict().items())


# --- films ---


def test_the_film_is_the_pictures_of_the_track(model, tmp_path):
    track = speech_like(1.2, 1)
    out = film(model, track, tmp_path / "a.mp4", cameras=front(model), fps=15)
    acting = played(model, track, np.arange(18) / 15)
    cameras = front(model, 18).with_times(np.linspace(0, 1, 18))
    write_video(fd.render(acting, cameras).rgb, tmp_path / "b.mp4", 15, progress=False)
    assert out.read_bytes() == (tmp_path / "b.mp4").read_bytes()
    seen = read_video(out, progress=False).frames.astype(float)
    assert len(seen) == 18 and np.abs(np.diff(seen, axis=0)).mean() > 0.1  # it moves, before a camera that does not


def test_columns_in_another_order_and_a_later_clock_are_the_same_film(model, tmp_path):
    track = speech_like(0.8, 3, fps=20)
    order = np.random.default_rng(0).permutation(len(track.controls))
    other = DriveTrack(track.times_s, [track.controls[i] for i in order], track.values[:, order])
    first, second, third = (
        film(model, each, tmp_path / f"{name}.mp4").read_bytes()
        for name, each in (("a", track), ("b", other), ("c", track.shifted(4)))
    )
    assert first == second == third
    assert first != film(model, track.scaled({"jawOpen": 0.0}), tmp_path / "d.mp4").read_bytes()


def test_a_sound_sets_the_length_and_is_heard_and_moves_the_mouth(model, tmp_path):
    sound = tone(tmp_path / "a.wav", 1.23)
    out = film(model, sound, tmp_path / "a.mp4")
    assert len(read_video(out, progress=False).frames) == 13 and sound_duration(out) == pytest.approx(1.3, abs=0.05)
    track, heard = performed(sound, fps=10)
    assert heard == sound and np.array_equal(track.values, from_audio(sound, fps=10).values)
    assert "jawOpen" in manifest(out)["talk"]["controls"] and manifest(out)["audio"]["file"] == "a.wav"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda track: track, "the track ends 0.60 s before the sound, and is held at its last values"),
        (lambda track: track.shifted(0.5), "begins 0.50 s after the sound, and is held at its first values"),
        (lambda track: track.looped(4), "goes on for 0.70 s after the sound, and is cut there"),
    ],
)
def test_a_track_of_another_length_than_the_sound_is_told(model, tmp_path, make, words):
    sound, track = tone(tmp_path / "a.wav", 1.0), make(speech_like(0.4, 1, fps=30))
    with pytest.warns(UserWarning, match=words) as told:
        out = film(model, track, tmp_path / "a.mp4", audio=sound, cameras=front(model))
    assert len(told) == 1 and manifest(out)["frames"] == 10
    if "before" in words:
        held = DriveTrack([*track.times_s, 1.0], track.controls, [*track.values, track.values[-1]])
        same = film(model, held, tmp_path / "b.mp4", audio=sound, cameras=front(model))
        assert out.read_bytes() == same.read_bytes()


def test_a_track_as_long_as_the_sound_needs_no_words(model, tmp_path):
    sound = tone(tmp_path / "a.wav", 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        film(model, speech_like(0.5), tmp_path / "a.mp4", audio=sound)


def test_controls_that_the_rig_has_not_are_named_once_and_left_out(model, tmp_path):
    plain = DriveTrack([0, 0.3], ("jawOpen",), [[0], [1]])
    more = DriveTrack([0, 0.3], ("jawOpen", "jawOpn", "wagTail"), [[0, 0.2, 1], [1, 0.3, 1]])
    with pytest.warns(UserWarning, match=r"jawOpn \(jawOpen\?\), wagTail") as told:
        second = film(model, more, tmp_path / "b.mp4").read_bytes()
    assert len(told) == 1 and film(model, plain, tmp_path / "a.mp4").read_bytes() == second
    with pytest.raises(InputError, match=r"performance: has none of the rig's controls, but wagTail"):
        film(model, DriveTrack([0, 1], ("wagTail",), [[0], [1]]), tmp_path / "c.mp4")
    assert not (tmp_path / "c.mp4").exists()


def test_any_path_of_cameras_is_brought_to_the_films_length(model, tmp_path):
    track = speech_like(0.7)
    recipe = paths.recipe("dolly", frames=40, width=24, height=16)
    for number, cameras in enumerate([None, "arc", recipe, recipe.cameras(), recipe.cameras()[:7]]):
        about = manifest(film(model, track, tmp_path / f"{number}.mp4", cameras=cameras, size=None))
        assert about["frames"] == 7
        assert (about["width"], about["height"]) == ((24, 16) if number >= 2 else (512, 512))
    assert manifest(film(model, track, tmp_path / "wide.mp4", size=(20, 10)))["width"] == 20
    same = recipe.cameras()[:7]  # as many as frames: taken as they are
    acting = played(model, track, np.arange(7) / 10)
    write_video(fd.render(acting, same.with_times(np.linspace(0, 1, 7))).rgb, tmp_path / "b.mp4", 10, progress=False)
    assert (tmp_path / "4.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_what_is_there_is_left(model, tmp_path):
    track = speech_like(0.3)
    out = film(model, track, tmp_path / "a.mp4")
    stamps = [each.stat().st_mtime_ns for each in (out, manifest_path(out))]
    film(model, track, out)
    assert stamps == [each.stat().st_mtime_ns for each in (out, manifest_path(out))]
    film(model, speech_like(0.3, 5), out)
    assert stamps[0] != out.stat().st_mtime_ns


def test_a_run_is_named_and_pays_and_the_command_line_does_the_same(model, tmp_path, capsys):
    run = made_up_run(tmp_path / "run")
    model.save(run / "model.safetensors")
    speech_like(0.4).save(tmp_path / "take.csv")
    film(run, tmp_path / "take.csv", tmp_path / "a.mp4")
    assert manifest(tmp_path / "a.mp4")["talk"]["run"] == "run" and read_info(run)["phases_s"]["render"] > 0
    call = [str(run), "--talk", str(tmp_path / "take.csv"), "--fps", "10", "--size", str(SIZE)]
    assert main([*call, "--out", str(tmp_path / "b.mp4")]) == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert "4 frames of 32x32" in capsys.readouterr().out
    assert main([*call, "--duration", "3", "--out", str(tmp_path / "c.mp4")]) == 1
    assert main([str(run), *call, "--out", str(tmp_path / "c.mp4")]) == 1
    errors = capsys.readouterr().err
    assert "--duration: has no use with --talk" in errors and "give one run of the motion rig" in errors


def test_bad_calls_are_one_sentence(model, tmp_path):
    still = Model(random_gaussians(5), Static())
    track, sound = speech_like(0.3), tone(tmp_path / "a.wav", 0.3)
    (tmp_path / "bad.wav").write_bytes(b"no sound at all")
    one = DriveTrack([0], ("jawOpen",), [[1]])
    for who, what, options, words in (
        (still, track, {}, "run: model moves as 'static', no rig drives it"),
        (7, track, {}, "run: is a int"),
        (tmp_path / "none", track, {}, "none"),
        (model, one, {}, "performance: has one time, and there is no sound"),
        (model, 7, {}, "performance: is a int"),
        (model, tmp_path / "gone.csv", {}, r"gone\.csv"),
        (model, tmp_path / "bad.wav", {}, r"bad\.wav"),
        (model, sound, {"audio": sound}, "is a sound already"),
        (model, track, {"fps": 0}, "fps: is 0"),
        (model, track, {"fps": "often"}, "fps: is 'often'"),
        (model, track, {"size": 0}, "size: is 0"),
        (model, track, {"size": (1, 2, 3)}, "size: is"),
        (model, track, {"cameras": "nowhere"}, "nowhere"),
        (model, track, {"cameras": 7}, "cameras: is a int"),
    ):
        with pytest.raises(InputError, match=words):
            film(who, what, tmp_path / "a.mp4", **options)
        assert not (tmp_path / "a.mp4").exists()


def test_with_its_capture_a_film_is_no_sharper_than_that(model, tmp_path):
    seen = ball_capture(tmp_path, front(model, 2))
    track = speech_like(0.3)
    plain, near, far = (
        film(model, track, tmp_path / f"{name}.mp4", cameras=front(model), size=size, capture=capture).read_bytes()
        for name, size, capture in (("a", 2 * SIZE, None), ("b", 2 * SIZE, seen), ("c", SIZE, seen))
    )
    assert plain != near and far == film(model, track, tmp_path / "d.mp4", cameras=front(model)).read_bytes()
    soft, sharp = (expressions(model, {"n": {}}, size=128, capture=each)["n"].astype(float) for each in (seen, None))
    assert np.abs(np.diff(soft, axis=0)).mean() < np.abs(np.diff(sharp, axis=0)).mean()


def test_a_run_knows_how_sharp_its_pictures_were(model, tmp_path):
    seen, track = ball_capture(tmp_path, front(model, 3)), speech_like(0.3)
    run, old = made_up_run(tmp_path / "run", typical_view=typical_view(seen, model)), made_up_run(tmp_path / "old")
    for folder in (run, old):
        model.save(folder / "model.safetensors")
    films = {
        name: film(who, track, tmp_path / f"{name}.mp4", cameras=front(model), size=2 * SIZE, **more).read_bytes()
        for name, who, more in (
            ("told", run, {"capture": seen}), ("knows", run, {}), ("old", old, {}), ("alone", fd.Run(run).model, {}),
        )
    }  # fmt: skip
    assert films["told"] == films["knows"] != films["old"] == films["alone"]
    pictures = [
        expressions(who, {"n": {}}, size=128, **more)["n"]
        for who, more in ((run, {}), (old, {"capture": seen}), (old, {}))
    ]
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])


# --- faces, and where to look ---


def test_expressions_are_what_the_rig_can_make(model):
    assert set().union(*EXPRESSIONS.values()) <= set(model.motion.rig.controls)
    pictures = expressions(model, size=SIZE)
    assert list(pictures) == list(EXPRESSIONS)
    camera = swing(model, size=SIZE).cameras()[:1].with_times(None)
    for name, image in pictures.items():
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        assert (name == "neutral") == np.array_equal(image, pictures["neutral"]), name
    own = expressions(model, {"rest": {}}, size=SIZE, azimuth_deg=-25.0)["rest"]
    assert np.array_equal(own, (fd.render(model, camera).rgb[0].clamp(0, 1) * 255).round().byte().numpy())
    assert list(expressions(puppet_model(20, tent_rig()), size=8)) == ["neutral", "head to its left"]
    with pytest.raises(InputError, match="jawOpn"):
        expressions(model, {"no": {"jawOpn": 1}})


def test_the_face_is_found_where_the_actions_move_it_and_moves_with_the_rig():
    rig = puppet()
    middle, radius = face_sphere(rig)
    head = rig.rest[(rig.vertices(rig.drive({"eyeBlinkLeft": 1})[None])[0] - rig.rest).norm(dim=-1) > 0.01]
    assert (head - torch.tensor(middle)).norm(dim=-1).max() < radius < 0.98
    assert middle[2] > 0 and middle[0] == pytest.approx(0, abs=1e-3)
    large = copy.deepcopy(rig)
    for name, buffer in large.named_buffers():  # joints stay, for no action turns them
        if name in ("base", "rest", "deltas"):
            buffer.mul_(3)
    assert face_sphere(large)[1] == pytest.approx(3 * radius, rel=1e-3)
    whole = face_sphere(tent_rig())
    assert whole[0] == pytest.approx((0, 0.15, 0)) and whole[1] == pytest.approx((2 + 0.15**2) ** 0.5)


def test_a_path_by_name_looks_at_the_face(model):
    path = before(model, "arc")
    assert path.target == swing(model).target and path.name == "arc"
    assert avatar(model) == (model, None)
