"""Does the doctor predict? Train captures with known faults, and hold its predictions against what came out.

    python benchmarks/doctor.py draw        # the pictures (a few minutes, needs the extra `avatar`)
    python benchmarks/doctor.py train       # what is not in doctor_results.csv yet; --workers N
    python benchmarks/doctor.py fit         # the predictor's coefficients, from the avatars for fitting
    python benchmarks/doctor.py             # the verdict: Spearman and error on the avatars for judging

Training results are kept with their recipe and the settings; changing either trains them again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pandas as pd
from doctor_captures import FITTING, JUDGING, Recipe, capture, draw, recipes

from fourdgs.doctor.facts import Facts, measure_facts
from fourdgs.doctor.predict import COEFFICIENTS, psnr_of
from fourdgs.doctor.survey import survey
from fourdgs.errors import InputError
from fourdgs.files import write_json

HERE = Path(__file__).parent
POOL = HERE.parent / "data" / "doctor"
RESULTS, FEATURES = HERE / "doctor_results.csv", HERE / "doctor_predictions.csv"
PREDICTOR = HERE.parent / "fourdgs" / "doctor" / "predictor.json"
SETTINGS = {"motion": "deform", "iterations": 2500, "gaussians": 4000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", nargs="?", default="judge", choices=["draw", "train", "fit", "judge"])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--avatars", type=int, nargs="+", default=[*FITTING, *JUDGING], help="train only these")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.step == "draw":
        draw(recipes(), POOL)
    elif given.step == "train":
        train_all(given.workers, given.seeds, given.avatars, given.results)
    elif given.step == "fit":
        fit_all(given.workers)
    else:
        judge(given.workers)


# --- training ---


def settings_key(seed: int) -> str:
    from fourdgs.files import hash_json

    return hash_json({**SETTINGS, "seed": seed})[:8]


def train_all(workers: int, seeds: int, avatars: list[int], results: Path) -> None:
    """Train what is missing, a process a capture, and add a row each to the results."""
    from tqdm.auto import tqdm

    known = set()
    if results.exists():
        known = {tuple(row) for row in pd.read_csv(results)[["key", "settings"]].astype(str).to_numpy()}
    jobs = [(recipe, seed) for seed in range(seeds) for recipe in recipes() if recipe.avatar in avatars]
    jobs = [job for job in jobs if (job[0].key, settings_key(job[1])) not in known]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _one_thread) as pool:
        waiting = [pool.submit(train_one, *job) for job in jobs]
        for done in tqdm(as_completed(waiting), total=len(waiting), desc="train", unit="run"):
            try:
                # Row by row, so that a run that is stopped loses only what it was at.
                pd.DataFrame([done.result()]).to_csv(results, mode="a", header=not results.exists(), index=False)
            except InputError as error:
                tqdm.write(f"not trained: {error}")


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def train_one(recipe: Recipe, seed: int) -> dict:
    """Held-out PSNR of one capture, dB, over still and talking frames apart."""
    import fourdgs as fd

    whole = capture(recipe, POOL)
    config = fd.TrainConfig(**SETTINGS, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        run = fd.train(whole.select(split="train"), config, folder, progress=False, device="cpu")
        table = fd.evaluate(run, whole.select(split="test"), split="test", progress=False)
        seconds = run.info["phases_s"]["train"]
    means = table.groupby("source")["psnr_db"].mean()
    row = {"key": recipe.key, "settings": settings_key(seed), "avatar": recipe.avatar, "seed": seed}
    row |= {"still_db": round(float(means["still"]), 3), "talking_db": round(float(means["talking"]), 3)}
    return row | {"train_s": seconds, "label": recipe.label}


# --- features, fit, verdict ---


def all_facts(avatars: Sequence[int], workers: int) -> dict[str, Facts]:
    """What the doctor measures on every capture of some avatars, by the recipe's key."""
    from tqdm.auto import tqdm

    chosen = [recipe for recipe in recipes() if recipe.avatar in avatars]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread) as pool:
        found = tqdm(pool.map(facts_of, chosen), total=len(chosen), desc="measure", unit="capture")
        return {recipe.key: facts for recipe, facts in zip(chosen, found, strict=True)}


def facts_of(recipe: Recipe) -> Facts:
    """What the doctor measures on one capture."""
    return measure_facts(survey(capture(recipe, POOL), progress=False))


def measured_psnr() -> pd.DataFrame:
    """By key: label, avatar, still, moving (means over seeds), both, and spread (over seeds), dB."""
    table = pd.read_csv(RESULTS)
    means = table.groupby("key").agg(
        label=("label", "first"), avatar=("avatar", "first"), still=("still_db", "mean"), moving=("talking_db", "mean"),
        spread=("talking_db", lambda values: values.max() - values.min()),
    )  # fmt: skip
    return means.assign(both=(12 * means["still"] + 36 * means["moving"]) / 48)  # as many frames of each


def fit_all(workers: int) -> None:
    """Fit the coefficients to the avatars for fitting, and write them with bootstrap samples into the package."""
    facts, truth = all_facts(FITTING, workers), measured_psnr()
    keys = [recipe.key for recipe in recipes() if recipe.avatar in FITTING]
    values = fit(facts, truth, keys)
    random = np.random.default_rng(0)
    samples = [fit(facts, truth, random.choice(keys, len(keys)).tolist(), values) for _ in range(20)]
    # The error that is told to users is that of a fit which has not seen the avatar: each in turn is left out.
    errors = []
    for avatar in FITTING:
        seen = [recipe.key for recipe in recipes() if recipe.avatar in FITTING and recipe.avatar != avatar]
        held = [key for key in keys if key not in seen]
        other = fit(facts, truth, seen, values)
        errors += [psnr_of(facts[key], other)["both"] - truth["both"][key] for key in held]
    content = {
        "about": "written by benchmarks/doctor.py fit",
        "captures": len(keys),
        "error_db": round(float(np.sqrt(np.mean(np.square(errors)))), 3),
        "reach": reach([facts[key] for key in keys]),
        "values": {name: round(value, 5) for name, value in values.items()},
        "samples": [[round(value, 4) for value in sample.values()] for sample in samples],
    }
    write_json(PREDICTOR, content)
    print(f"{PREDICTOR}: {len(keys)} captures, error {content['error_db']} dB on an avatar left out")


def reach(seen: list[Facts]) -> dict[str, float]:
    """The largest of what tells a strange capture."""
    table = pd.DataFrame([facts.reach() for facts in seen])
    return {name: float(table[name].max()) for name in table}


def fit(facts: dict[str, Facts], truth: pd.DataFrame, keys: list[str], start: dict[str, float] | None = None) -> dict:
    """Robust least squares of both kinds' PSNR, held by the priors of the coefficients."""
    from scipy.optimize import least_squares

    names = list(COEFFICIENTS)
    prior, sd = np.array(list(COEFFICIENTS.values())).T

    def left(vector: np.ndarray) -> np.ndarray:
        values = dict(zip(names, vector.tolist(), strict=True))
        errors = []
        for key in keys:
            found = psnr_of(facts[key], values)
            errors += [found[kind] - truth[kind][key] for kind in ("still", "moving")]
        return np.concatenate([errors, (vector - prior) / sd])

    begin = prior if start is None else np.array([start[name] for name in names])
    found = least_squares(left, begin, loss="soft_l1", max_nfev=60 if start is None else 15)
    return dict(zip(names, found.x.tolist(), strict=True))


def judge(workers: int) -> None:
    """Predictions against trainings, on the avatars that the predictor has not seen."""
    from scipy.stats import spearmanr

    facts, truth = all_facts((*FITTING, *JUDGING), workers), measured_psnr()
    values = json.loads(PREDICTOR.read_text(encoding="utf-8"))["values"]
    found = pd.DataFrame({key: psnr_of(facts[key], values) for key in facts}).T.add_suffix(" predicted")
    table = truth.join(found)
    for name, avatars in (("fitted to", FITTING), ("not seen", JUDGING)):
        part = table[table["avatar"].isin(avatars)]
        for kind in ("both", "still", "moving"):
            error = part[f"{kind} predicted"] - part[kind]
            rho = spearmanr(part[kind], part[f"{kind} predicted"])[0]
            print(
                f"{name}, {len(part)} captures, {kind:>6}: Spearman {rho:.3f}, mean absolute error "
                f"{error.abs().mean():.2f} dB, root mean square {np.sqrt((error**2).mean()):.2f}, "
                f"bias {error.mean():+.2f}"
            )
    print(f"seeds differ by {truth['spread'].median():.2f} dB (median)")
    table.round(2).to_csv(FEATURES)
    worst = (table["both predicted"] - table["both"]).abs().sort_values(ascending=False).index[:12]
    print(
        table.loc[worst, ["label", "still", "still predicted", "moving", "moving predicted"]]
        .round(1)
        .to_string(index=False)
    )


if __name__ == "__main__":
    main()
