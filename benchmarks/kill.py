"""SIGKILL at random moments of train, evaluate, promote and report, and before every write of the first three.

    python benchmarks/kill.py [--kills 50] [--reports 10] [--seed 0] [--no-writes]

After each kill: no run may be listed as finished that is not (its model is compared, byte by byte, with that of
undisturbed work), production has to point at a complete run, a report has to be the old or the new one as a whole. Then
the work is done again, and has to come to the same model, figures and report.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from fourdgs.report import build_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from killing import Child, every_write, random_kills, reference  # noqa: E402

MARK = "FOURDGS_KILLED_REPORT"
CELLS = {
    "parameters": "title: str = 'old'  # what the report says",
    "": "import numpy as np\nfrom matplotlib.figure import Figure\nfrom fourdgs import plots\n"
    "fig = Figure()\nfig.subplots().plot(np.arange(5))\n"
    "plots.show(fig, 'line', alt='A rising line.', caption='A line.')\nprint('this is the', title, 'report')",
}


def write_notebook(path: Path) -> Path:
    """A small notebook with a parameter and a figure."""
    import nbformat

    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# A notebook")]
    cells += [v4.new_code_cell(text, metadata={"tags": [tag] if tag else []}) for tag, text in CELLS.items()]
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


def report(notebook: Path, out: Path, title: str) -> None:
    """Build the report."""
    build_report([(notebook, {"title": title})], out, title=title, date="2020-01-01", progress=False)


def wrong_report(out: Path, titles: tuple[str, ...]) -> list[str]:
    """What is not whole in a report that has to be one of some titles."""
    try:
        title = json.loads((out / "run.json").read_text())["title"]
        page, words = (out / "index.html").read_text(), (out / "index.md").read_text()
    except (OSError, ValueError) as error:
        return [f"no report: {error}"]
    wrong = [] if title in titles else [f"the report of {title!r}"]
    wrong += [] if f"this is the {title} report" in page and "</html>" in page[-20:] else ["half a page"]
    wrong += [] if f"this is the {title} report" in words else ["half the Markdown"]
    figures = set(re.findall(r"figures/[\w.-]+", words))
    wrong += [] if figures and all((out / name).stat().st_size for name in figures) else ["a figure is missing"]
    return wrong


def strangers(mark: str) -> list[str]:
    """Processes that a killed report left behind."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(folder.name)
        except OSError:
            continue
    return found


def killed_reports(folder: Path, kills: int, seed: int, bar: tqdm) -> pd.DataFrame:
    """Kill `build_report` at random moments, over an earlier report; a row a kill, as `killing.random_kills` gives."""
    folder.mkdir()
    notebook, out, chance, rows = write_notebook(folder / "a.ipynb"), folder / "reports" / "x", random.Random(seed), []
    begun = time.perf_counter()
    assert Child(lambda tell: report(notebook, out, "old")).start().finish(), "the report fails undisturbed"
    seconds = time.perf_counter() - begun
    for number in range(kills):
        os.environ[MARK] = str(number)
        child = Child(lambda tell: report(notebook, out, "new")).start()
        at = chance.random() * seconds
        time.sleep(at)
        alive = child.kill()
        wrong = wrong_report(out, ("old", "new"))
        again = Child(lambda tell: report(notebook, out, "new")).start().finish()
        wrong += wrong_report(out, ("new",)) if again else ["the rerun failed"]
        end = time.monotonic() + 30
        while strangers(str(number)) and time.monotonic() < end:  # a kernel sees that its parent is gone
            time.sleep(0.2)
        wrong += ["a kernel is left behind"] if strangers(str(number)) else []
        rows.append({"phase": "report", "at_s": at, "alive": alive, "trial": number, "wrong": wrong})
        del os.environ[MARK]
        assert Child(lambda tell: report(notebook, out, "old")).start().finish()
        bar.update()
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of train, evaluate and promote together")
    parser.add_argument("--reports", type=int, default=10, help="kills of build_report")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-writes", action="store_true", help="leave out the kills before every write")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fourdgs-kill-"))
    known = reference(folder)
    print(f"undisturbed: {', '.join(f'{seconds:.2f} s' for seconds in known.seconds)} of train, evaluate, promote")
    with tqdm(desc="kills", unit="kill", mininterval=5) as bar:
        rows = random_kills(folder, known, options.kills, options.seed, bar.update)
        if options.reports:
            rows = pd.concat([rows, killed_reports(folder / "report", options.reports, options.seed, bar)])
        writes = [] if options.no_writes else every_write(folder / "writes", known, bar.update)
    print("\n| phase | kills | while at work | left a checkpoint | wrong afterwards |\n|---|---|---|---|---|")
    for phase, group in rows.groupby("phase", sort=False):
        resumed = f"{int(group['checkpoint'].sum())}" if phase == "train" else "-"
        print(f"| {phase} | {len(group)} | {group['alive'].sum()} | {resumed} | {sum(map(bool, group['wrong']))} |")
    if writes:
        print(f"| before each write | {len(writes)} | {len(writes)} | - | {sum(map(bool, writes))} |")
    wrong = [text for texts in [*rows["wrong"], *writes] for text in texts]
    print("\n" + ("\n".join(wrong) if wrong else "nothing wrong"))
    shutil.rmtree(folder)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
