from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError, scaling
from fourdgs.laws import FORMS, fitted
from fourdgs.scaling import answer, fit_law, measure_grid, read_results, thinned

CAMERAS, TIMES = (6, 8, 12, 16, 24), (4, 8, 15, 30, 60)
TRUE = {
    "sum with a floor": np.log([3e-4, 9e-4, 1.6, 2e-4, 1.2]),
    "sum": np.log([9e-4, 1.1, 2e-4, 2.0]),
    "product with a floor": np.log([3e-4, 9e-4, 1.3, 0.7]),
    "logarithms": np.array([29.0, np.log(2.0), np.log(0.5)]),
}
powers = st.floats(0.3, 3.0)
errors = st.floats(1e-4, 3e-3)


def cells(form: str = "sum with a floor", noise: float = 0.0, parameters=None, seeds: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(0)
    c, t, s = (axis.ravel() for axis in np.meshgrid(CAMERAS, TIMES, range(seeds)))
    psnr = FORMS[form].psnr(TRUE[form] if parameters is None else parameters, c, t)
    psnr = psnr + noise * random.standard_normal(len(c))
    return pd.DataFrame({"grid_cameras": c, "grid_times": t, "seed": s, "source": "talking", "psnr_db": psnr})


@pytest.mark.parametrize("form", FORMS)
def test_a_law_is_recovered_from_cells_that_follow_it(form):
    law = fit_law(cells(form), resamples=0)
    # A form with a floor holds the one without: where the floor is nothing, the simpler form is kept.
    assert law.form == form and len(law.forms) == len(FORMS)
    assert law.parameters == pytest.approx(TRUE[form], abs=0.02)
    assert law.psnr_db(10, 20) == pytest.approx(FORMS[form].psnr(TRUE[form], 10, 20), abs=0.005)


def test_noise_widens_the_interval_which_holds_the_truth():
    quiet, loud = (fit_law(cells(noise=noise), resamples=100) for noise in (0.05, 0.3))
    widths = [np.diff(law.interval_db(12, 15))[0] for law in (quiet, loud)]
    assert 0 < widths[0] < widths[1] < 1
    low, high = quiet.interval_db(12, 15)
    assert low - 0.1 < FORMS["sum with a floor"].psnr(TRUE["sum with a floor"], 12, 15) < high + 0.1


@given(st.sampled_from(list(FORMS)), st.tuples(errors, errors, powers, errors, powers), st.floats(20, 40))
@settings(max_examples=60, deadline=None)
def test_more_never_harms_and_what_is_needed_is_enough(form, drawn, db):
    kinds = FORMS[form].kinds
    pools = {"mse": [drawn[0], drawn[1], drawn[3]], "power": [drawn[2], drawn[4]], "slope": [drawn[2], drawn[4]]}
    parameters = np.array([30.0 if kind == "db" else np.log(pools[kind].pop(0)) for kind in kinds])
    table = cells(form, parameters=parameters).rename(columns={"grid_cameras": "cameras", "grid_times": "times"})
    law = scaling.Law(form, parameters, table, pd.DataFrame(), parameters[None].repeat(3, 0))
    grid = law.psnr_db(np.arange(1, 60)[:, None], np.arange(1, 60)[None])
    assert (np.diff(grid, axis=0) > 0).all() and (np.diff(grid, axis=1) > 0).all()
    for need in (law.needed(db, cameras=9), law.needed(db, times=9)):
        assert need.low == need.count == need.high
        at = (lambda n: law.psnr_db(9, n)) if need.what == "times" else (lambda n: law.psnr_db(n, 9))
        if need.enough:
            assert at(need.count) >= db - 1e-6 and (need.count == 1 or at(need.count - 1) < db)
            assert f"{need.count:.0f} {need.what}" in need.words()
        else:
            assert at(1e6) < db and need.words().count("no number" if at(np.inf) <= db else "more") == 1
    curve = law.contour(db)
    assert law.psnr_db(*curve) == pytest.approx(np.full(len(curve[0]), db), abs=1e-6)
    assert (np.diff(curve[0]) >= 0).all() and (np.diff(curve[1]) <= 1e-6 * curve[1][:-1]).all()
    # Cameras and times change places.
    swapped = scaling.Law(form, parameters[list(FORMS[form].swap)], table, pd.DataFrame(), parameters[None])
    assert swapped.psnr_db(7, 13) == pytest.approx(law.psnr_db(13, 7))


def test_the_fewest_frames_are_fewer_than_all_others_that_reach_it():
    law = fit_law(cells(), resamples=0)
    cameras, times = law.fewest_frames(28.0)
    assert law.psnr_db(cameras, times) >= 28
    reached = [c * t for c in range(1, 25) for t in range(1, 200) if law.psnr_db(c, t) >= 28]
    assert cameras * times == min(reached)
    assert law.fewest_frames(60.0) is None


def test_a_fit_of_many_weights_is_each_of_them_alone():
    array = cells(noise=0.1)[["grid_cameras", "grid_times", "psnr_db"]].to_numpy(float)
    weights = np.random.default_rng(1).integers(0, 3, (3, len(array))).astype(float)
    start = np.tile(TRUE["sum"], (3, 1))
    together = fitted(FORMS["sum"], array, weights, start)
    for k in range(3):
        alone = fitted(FORMS["sum"], array, weights[k : k + 1], start[:1])[0]
        assert together[k] == pytest.approx(alone, abs=1e-6)
        # A weight of two is the cell twice, of none no cell.
        twice = array.repeat(weights[k].astype(int), 0)
        assert fitted(FORMS["sum"], twice, np.ones((1, len(twice))), start[:1])[0] == pytest.approx(alone, abs=1e-6)


def test_seeds_are_averaged_and_the_order_of_rows_does_not_matter():
    table = cells(noise=0.2, seeds=3)
    law = fit_law(table, resamples=20)
    assert (law.cells["seeds"] == 3).all() and len(law.cells) == 25
    again = fit_law(table.sample(frac=1, random_state=0), resamples=20)
    assert again.psnr_db(10, 10) == pytest.approx(law.psnr_db(10, 10), abs=1e-6)
    other = pd.concat([table, table.assign(source="still", psnr_db=0.0)])
    assert fit_law(other, resamples=0).psnr_db(10, 10) == pytest.approx(law.psnr_db(10, 10), abs=1e-6)


def test_the_answer_says_what_the_cells_and_the_law_say():
    table = cells()
    law = fit_law(table, resamples=50)
    words = answer(law, 30.0)
    reached = (table["psnr_db"] >= 30).sum()
    assert words[0].startswith(f"{reached} of 25 measured cells reach 30 dB")
    ends = law.psnr_db(6, np.inf)
    assert ends < 30 and f"With 6 cameras no number of times is enough for 30 dB: they end at {ends:.1f} dB" in words[2]
    assert f"With 24 cameras 30 dB needs {law.needed(30, cameras=24).count:.0f} times" in " ".join(words)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (cells().drop(columns="grid_times"), "grid_times"),
        (cells().iloc[:5], "5 cells"),
        (cells().query("grid_cameras == 6"), "1 numbers of cameras"),
        (cells().assign(trial=["static", "deform"] * 12 + ["deform"]), "several trials"),
        (cells().assign(source="still"), "0 cells"),
        (cells().assign(grid_cameras=0), "fewer than 1"),
    ],
)
def test_cells_that_say_too_little_are_one_clear_error(table, words):
    with pytest.raises(InputError, match=words):
        fit_law(table)


def test_needs_of_nothing_are_refused():
    law = fit_law(cells(), resamples=0)
    for given_ in ({}, {"cameras": 3, "times": 4}, {"cameras": 0}, {"times": float("nan")}):
        with pytest.raises(InputError):
            law.needed(30, **given_)


def test_tables_are_read_or_said_to_be_none(tmp_path):
    path = tmp_path / "t.csv"
    cells().to_csv(path, index=False)
    assert len(read_results(path, "psnr_db")) == 25
    for name, text, words in (("none.csv", None, "no such table"), ("e.csv", "", "CSV"), ("t.csv", None, "wanted")):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=words):
            read_results(tmp_path / name, "wanted")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    root, moments = tmp_path_factory.mktemp("grid"), np.linspace(0, 1, 5)
    stands = ball_cameras(4, 20)[np.repeat(np.arange(4), 5).tolist()].with_times(np.tile(moments, 4))
    train = ball_capture(root, stands, source="grid")
    train.frames["camera"] = [f"grid{k // 5:02d}" for k in range(20)]
    test = ball_capture(root, ball_cameras(2, 20, start_deg=40, times=[0.3, 0.7]), source="talking", split="test")
    return fd.merge([train, test])


def test_a_thinned_grid_is_so_many_cameras_at_the_same_times_spread_evenly(grid):
    whole = grid.select(source="grid")
    for cameras, times in ((4, 5), (2, 3), (3, 2), (1, 5)):
        frames = thinned(whole, cameras, times).frames
        assert len(frames) == cameras * times and frames["camera"].nunique() == cameras
        seen = frames.groupby("camera")["time"].apply(sorted)
        assert all(row == seen.iloc[0] for row in seen) and seen.iloc[0][0] == 0 and seen.iloc[0][-1] == 1
    assert list(thinned(whole, 2, 3).frames["camera"].unique()) == ["grid00", "grid02"]
    for cameras, times in ((5, 5), (4, 6), (0, 5), (4, 1)):
        with pytest.raises(InputError, match="grid of 4 x 5"):
            thinned(whole, cameras, times)


def test_cells_are_measured_once_and_then_opened(grid, tmp_path, monkeypatch):
    base = fd.TrainConfig(motion="static", iterations=4, gaussians=40, init="box")
    asked = {"cameras": [2, 4], "times": [2], "progress": False}
    table = measure_grid(grid, base, tmp_path, **asked)
    assert list(table["grid_cameras"]) == [2, 4] and table["psnr_db"].notna().all() and (table["frames"] == 2).all()
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 2
    states = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    assert states
    again = measure_grid(grid, base, tmp_path, **asked)
    assert again["psnr_db"].tolist() == table["psnr_db"].tolist()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")} == states
    with pytest.raises(InputError, match="no source 'talking'"):
        measure_grid(grid.select(source="grid"), base, tmp_path, **asked)
    with pytest.raises(InputError, match="grid of 4 x 5"):  # before anything is trained
        measure_grid(grid, base, tmp_path / "more", cameras=[2, 9], times=[2], progress=False)
    assert not (tmp_path / "more").exists()
