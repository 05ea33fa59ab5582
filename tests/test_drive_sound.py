"""Made-up speech, a mouth that moves with a sound, and films that carry one."""

from __future__ import annotations

import math
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest

from fourdgs.data.avatar import HEAD
from fourdgs.data.video_encode import write_video
from fourdgs.drive import ARKIT, DriveTrack, from_audio, speech_like
from fourdgs.drive.audio import CONTROLS
from fourdgs.drive.speech import _syllables
from fourdgs.errors import InputError

RATE = 16_000
MOUTH = CONTROLS[:6]


def column(track: DriveTrack, name: str) -> np.ndarray:
    return track.values[:, track.controls.index(name)]


def opening(track: DriveTrack) -> np.ndarray:
    """How far the lips are apart."""
    return column(track, "jawOpen") - column(track, "mouthClose")


def tone(seconds: float, amplitude: float = 0.3, hertz: float = 800.0, rate: float = RATE) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def voice(seed: int = 0, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Bursts of harmonics at three loudnesses, with gaps."""
    rng, parts = np.random.default_rng(seed), []
    while sum(map(len, parts)) < seconds * rate:
        amplitude, pitch = rng.choice([0.05, 0.15, 0.4]), rng.uniform(110, 220)
        parts.append(sum(tone(0.1, amplitude / k, k * pitch, rate) for k in range(1, 9)))
        parts.append(np.zeros(int(rng.uniform(0.1, 0.3) * rate)))
    return np.concatenate(parts)[: int(seconds * rate)]


def save(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * samples).astype("<i2").tobytes())
    return path


# --- made-up speech ---


def test_speech_has_the_pace_of_speech():
    track = speech_like(60, seed=3, fps=60)
    assert track.controls == (*ARKIT, *HEAD) and track.duration_s == 60 and len(track) == 3601
    actions = track.values[:, : len(ARKIT)]
    assert actions.min() >= 0 and actions.max() <= 1
    assert np.abs(track.values[:, len(ARKIT) :]).max() < 20
    mouth = ("jawOpen", "mouthPucker", "mouthStretchLeft", "mouthRollLower", "mouthRollUpper")
    moving = sum(column(track, name) for name in mouth)
    shut = moving < 0.05
    assert 0.08 < shut.mean() < 0.45  # pauses
    gaps = np.diff([each.time_s for each in _syllables(3, 60)])
    assert 3 <= 1 / np.median(gaps) <= 6 and 0.1 < gaps.min()
    lids = column(track, "eyeBlinkLeft") > 0.5
    blinks = np.count_nonzero(np.diff(lids.astype(int)) == 1)
    assert 10 <= blinks <= 30 and 0.01 < lids.mean() < 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_a_longer_speech_begins_with_the_shorter_and_seeds_differ(seed):
    long, short = speech_like(7, seed, 25), speech_like(2.5, seed, 25)
    np.testing.assert_array_equal(long.values[: len(short)], short.values)
    fine = speech_like(2.5, seed, 100)
    np.testing.assert_allclose(fine.values[::4], short.values, atol=1e-6)  # a function of time
    assert np.abs(long.values - speech_like(7, seed + 2, 25).values).max() > 0.3


def test_speech_is_smooth():
    steps = [np.abs(np.diff(speech_like(5, 0, fps).values[:, : len(ARKIT)], axis=0)).max() for fps in (100, 400)]
    assert steps[1] < 0.3 * steps[0]
    for bad in ({"duration_s": 0}, {"duration_s": math.nan}, {"duration_s": 1, "fps": 0}):
        with pytest.raises(InputError):
            speech_like(**bad)


# --- a mouth for a sound ---


@pytest.mark.parametrize("level", [None, -20.0])
def test_silence_keeps_the_mouth_shut(level):
    for hush in (np.zeros(RATE), 1e-4 * np.random.default_rng(0).standard_normal(RATE)):
        track = from_audio(hush, RATE, level_db=level)
        assert np.abs(track.values[:, : len(MOUTH)]).max() < 1e-3
        assert column(track, "eyeBlinkLeft").max() <= 1 and len(track) == 31
    assert not from_audio(np.zeros(RATE), RATE, seed=None).values.any()


def test_the_mouth_is_shut_in_a_gap_and_open_around_it():
    gap = np.concatenate([tone(0.6), np.zeros(RATE // 2), tone(0.6)])
    track = from_audio(gap, RATE, fps=50)
    wide = opening(track)
    assert wide[(track.times_s > 0.75) & (track.times_s < 0.95)].max() < 0.01
    assert wide[(track.times_s > 0.1) & (track.times_s < 0.5)].min() > 0.4
    assert (wide > -1e-6).all()  # lips never shut more than the jaw is open
    burst = np.concatenate([np.zeros(RATE // 2), tone(0.08), np.zeros(RATE // 2)])
    assert opening(from_audio(burst, RATE, fps=100)).max() > 0.85 * wide.max()  # a slow jaw is no slow mouth


def test_a_louder_tone_opens_the_jaw_more():
    amplitudes = np.geomspace(0.02, 0.9, 9)
    apart = [column(from_audio(tone(0.5, a), RATE, level_db=-6), "jawOpen")[8] for a in amplitudes]
    assert (np.diff(apart) > 0.01).all()
    whole = from_audio(np.concatenate([tone(0.5, a) for a in amplitudes]), RATE, fps=20)  # of one recording
    steps = column(whole, "jawOpen")[5::10][: len(amplitudes)]
    assert (np.diff(steps) > -1e-6).all() and steps[-1] > steps[0] + 0.3
    soft = from_audio(0.1 * voice(), RATE)
    np.testing.assert_allclose(soft.values, from_audio(voice(), RATE).values, atol=1e-3)  # the sound's own loudness


@pytest.mark.parametrize("fps", [25, 50])
def test_a_later_sound_gives_a_later_mouth(fps):
    sound, frames = voice(1), 10
    late = np.concatenate([np.zeros(frames * RATE // fps), sound])
    one, other = from_audio(sound, RATE, fps=fps, level_db=-15), from_audio(late, RATE, fps=fps, level_db=-15)
    inner = slice(fps // 5, len(one) - fps // 5)  # where the smoothing sees no end
    shifted = other.values[frames:][inner, : len(MOUTH)]
    np.testing.assert_allclose(shifted, one.values[inner, : len(MOUTH)], atol=1e-5)
    assert one.values[:, 0].max() > 0.3


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_the_sample_rate_does_not_matter(rate):
    def sound(rate):
        return np.concatenate([tone(0.4, a, hz, rate) for a, hz in ((0.4, 800), (0.05, 300), (0.3, 2000), (0.2, 300))])

    one, other = from_audio(sound(RATE), RATE), from_audio(sound(rate), rate)
    assert abs(len(one) - len(other)) <= 1
    count = min(len(one), len(other)) - 2
    np.testing.assert_allclose(other.values[2:count], one.values[2:count], atol=0.03)


def test_the_spectrum_shapes_the_lips():
    low, middle, high = (from_audio(tone(0.6, 0.4, hertz), RATE).values[9] for hertz in (250, 800, 2200))
    names = CONTROLS.index("mouthFunnel"), CONTROLS.index("jawOpen"), CONTROLS.index("mouthStretchLeft")
    for index, one, others in zip(
        names, (low, middle, high), ((middle, high), (low, high), (low, middle)), strict=True
    ):
        assert all(one[index] > other[index] + 0.15 for other in others)


def test_channels_types_and_files_are_one_sound(tmp_path):
    sound = voice(2).astype(np.float64)
    track = from_audio(sound, RATE)
    same = {
        "stereo": from_audio(np.stack([sound, sound], 1), RATE),
        "16 bits": from_audio((32767 * sound).astype(np.int16), RATE),
        "file": from_audio(save(tmp_path / "a.wav", sound)),
    }
    for other in same.values():
        np.testing.assert_allclose(other.values, track.values, atol=0.02)
    assert track.duration_s == pytest.approx(2.0)


def test_sounds_that_are_none(tmp_path):
    (tmp_path / "a.wav").write_text("la la la")
    for path in (tmp_path / "none.wav", tmp_path / "a.wav"):
        with pytest.raises(InputError, match=str(path)):
            from_audio(path)
    with pytest.raises(InputError, match="sample_rate"):
        from_audio(np.zeros(5))
    for bad in (np.zeros(0), np.zeros((2, 2, 2)), np.array([0.0, np.nan]), np.array(["a"])):
        with pytest.raises(InputError, match="sound"):
            from_audio(bad, RATE)


def test_a_sound_in_another_format(tmp_path):
    pytest.importorskip("av")
    pictures = [np.zeros((8, 8, 3), np.uint8)] * 40
    film = write_video(pictures, tmp_path / "a.mp4", 20, audio=save(tmp_path / "a.wav", voice(4)), progress=False)
    one, other = from_audio(tmp_path / "a.wav"), from_audio(film)
    assert np.abs(opening(one)[3:55] - opening(other)[3:55]).mean() < 0.03  # AAC's loss


# --- films ---


def test_a_film_carries_the_sound_for_as_long_as_it_lasts(tmp_path):
    av = pytest.importorskip("av")
    frames = [np.full((16, 24, 3), 20 * index, np.uint8) for index in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        film = write_video(frames, tmp_path / "a.mp4", 25, audio=save(tmp_path / "a.wav", tone(0.4)), progress=False)
    with av.open(str(film)) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    with av.open(str(film)) as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
    heard = np.concatenate(parts, axis=1)[0]
    assert len(shown) == 10 and shown[-1] == pytest.approx(0.36)
    assert len(heard) / RATE == pytest.approx(0.4, abs=2 * 1024 / RATE)  # whole AAC frames, and the coder's delay
    assert np.std(heard[RATE // 10 : -RATE // 10]) == pytest.approx(0.3 / math.sqrt(2), rel=0.1)


def test_sound_that_is_longer_than_the_film_is_said_in_one_sentence(tmp_path):
    pytest.importorskip("av")
    frames = [np.zeros((16, 24, 3), np.uint8)] * 10
    audio = save(tmp_path / "a.wav", tone(1.5))
    with pytest.warns(UserWarning, match=r"a\.wav: the sound goes on for 1\.10 s .* at 0\.40 s, and is cut") as told:
        write_video(frames, tmp_path / "a.mp4", 25, audio=audio, progress=False)
    assert len(told) == 1 and Path(told[0].filename).name == Path(__file__).name
