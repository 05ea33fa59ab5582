"""The panel that drives an avatar, without a browser."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from avatars import puppet_model
from PIL import Image
from scenes import random_gaussians
from toy_rig import tent_rig

import fourdgs as fd
from fourdgs import InputError, Model, Static, live
from fourdgs.drive import DriveTrack, speech_like
from fourdgs.drive_widget import GROUPS, DrivePanel, drive_panel
from fourdgs.talking import expressions, posed

SIZE = 32


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for newest in list(live._EVERY):
        newest.close()


@pytest.fixture(scope="module")
def model() -> Model:
    return puppet_model(250)


def panel_of(model, **options) -> DrivePanel:
    return drive_panel(model, **({"size": SIZE} | options))


def shown(panel: DrivePanel) -> np.ndarray:
    assert panel.settle()
    assert "Error" not in panel.status.value, panel.status.value
    return np.asarray(Image.open(io.BytesIO(panel.image.value)))


def rendered(panel: DrivePanel) -> np.ndarray:
    """What the panel must show, from its values and its camera."""
    drive = panel.rig.drive(panel.drive)
    still = Model(posed(panel.model, drive), Static(), panel.model.background)
    return live.eight_bits(fd.render(still, panel.scene.camera(panel.asked.view)).rgb[0])


def test_at_first_it_is_the_neutral_face_from_the_front(model):
    panel = panel_of(model)
    assert np.array_equal(shown(panel), expressions(model, {"n": {}}, size=SIZE)["n"])
    assert set(panel.drive.values()) == {0.0} and not panel.status.value.startswith("<b>")


def test_every_slider_moves_its_controls_and_the_picture_and_back_is_as_before(model):
    panel = panel_of(model, size=24)
    first = shown(panel)
    assert len(panel.handles) == sum(map(len, GROUPS.values()))
    for words, slider in panel.handles.items():
        for value in {slider.max, slider.min} - {0.0}:
            slider.value = value
            moved = {name for name, now in panel.drive.items() if now}
            handle = panel._of[words]
            assert moved == set(handle.plus if value > 0 or not handle.minus else handle.minus), words
            assert all(panel.drive[name] == pytest.approx(abs(value) if handle.minus else value) for name in moved)
        slider.value = 0.0
        assert not any(panel.drive.values())
    panel.handles["jaw open"].value = 1.0
    assert not np.array_equal(shown(panel), first) and np.array_equal(shown(panel), rendered(panel))
    panel.reset()
    assert np.array_equal(shown(panel), first) and panel.handles["jaw open"].value == 0


def test_the_camera_turns_by_sliders_and_by_the_mouse_and_reset_brings_it_home(model):
    panel = panel_of(model)
    first = shown(panel)
    panel.azimuth.value, panel.elevation.value = 40.0, -10.0
    turned = shown(panel)
    assert not np.array_equal(turned, first) and np.array_equal(turned, rendered(panel))
    panel.reset()
    shown(panel)
    panel.text.value = "1 0.5 0.5 0.25 0.5 0"
    panel.text.value = "1 0.5 0.5 0.25 0.5 1"  # a quarter of the picture to the left: 45 degrees
    assert panel.azimuth.value == pytest.approx(45) and np.array_equal(shown(panel), rendered(panel))
    panel.reset()
    assert np.array_equal(shown(panel), first)


def test_a_random_expression_is_within_the_sliders_and_the_sliders_show_it(model):
    panel, seen = panel_of(model), set()
    for _ in range(8):
        values = panel.random_expression()
        for words, handle in panel._of.items():
            slider = panel.handles[words]
            up, down = (values.get((*names, "")[0], 0.0) for names in (handle.plus, handle.minus))
            assert slider.min <= slider.value <= slider.max
            assert slider.value == pytest.approx(up - down, abs=(slider.max - slider.min) / 100)
        assert np.array_equal(shown(panel), rendered(panel))
        seen.add(shown(panel).tobytes())
    assert len(seen) == 8


def test_a_track_plays_and_when_it_stops_the_sliders_follow(model):
    track = speech_like(1.0, 2)
    panel = panel_of(model, track=track)
    assert panel.play.max == 25
    slider = panel.handles["jaw open"]
    panel.play.playing = True
    for index in (3, 14, 25):
        panel.play.value = index
        wanted = track.to(panel.rig.controls).at(index / 25)[0]
        np.testing.assert_allclose(list(panel.drive.values()), wanted, atol=1e-6)
        assert slider.value == 0.0
    assert np.array_equal(shown(panel), rendered(panel))
    panel.play.value = peak = int(np.argmax(track.resampled(25).values[:, track.controls.index("jawOpen")]))
    panel.play.playing = False
    assert slider.value == pytest.approx(panel.drive["jawOpen"], abs=0.01) and peak and slider.value > 0.1
    assert panel_of(model).play is None


def test_rigs_with_other_names_and_chosen_controls(model):
    panel = panel_of(puppet_model(20, tent_rig()))
    assert list(panel.handles) == ["yaw, °", "fold"]
    panel.handles["fold"].value = 0.5
    assert panel.drive == {"fold": 0.5, "headYaw": 0.0}
    chosen = panel_of(model, controls=["tongueOut", "eyeBlink_L"])
    assert list(chosen.handles) == ["tongueOut", "eyeBlinkLeft"]
    chosen.handles["eyeBlinkLeft"].value = 1.0
    assert chosen.drive["eyeBlinkLeft"] == 1.0 and chosen.drive["eyeBlinkRight"] == 0.0
    track = DriveTrack([0, 1], ("fold",), [[-2.0], [3.0]])
    wide = puppet_model(20, tent_rig())
    wide = Model(wide.gaussians, wide.motion.driven(track.times_s.copy(), track.to(wide.motion.rig.controls).tensor()))
    assert (panel_of(wide).handles["fold"].min, panel_of(wide).handles["fold"].max) == (-2, 3)


def test_a_neutral_that_is_not_zero_is_where_sliders_start():
    rig = tent_rig()
    rig.neutral.copy_(torch.tensor([0.25, 0.0]))
    panel = panel_of(puppet_model(20, rig))
    panel.handles["fold"].value = 0.5
    panel.reset()
    assert panel.handles["fold"].value == panel.drive["fold"] == 0.25


def test_bad_calls_are_one_sentence(model):
    for make, words in (
        (lambda: drive_panel(Model(random_gaussians(5), Static())), "run: model moves as 'static'"),
        (lambda: panel_of(model, controls=["jawOpn"]), "'jawOpn' is unknown"),
        (lambda: panel_of(model, size=4), "size: is 4"),
        (lambda: panel_of(model, coarse=0), "coarse: is 0"),
        (lambda: panel_of(model, track="gone.csv"), "gone.csv"),
    ):
        with pytest.raises(InputError, match=words):
            make()
