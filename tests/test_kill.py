"""SIGKILL at random moments, and before every single write: nothing half-done passes for done, a rerun completes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fourdgs.files import folder_aside, write_aside, write_json

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def test_killed_work_is_never_taken_for_done_and_a_rerun_completes_it(tmp_path):
    script = Path(__file__).with_name("killing.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(tmp_path), "--kills", "6"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [kill["phase"] for kill in found["kills"]] == ["train", "evaluate", "promote"] * 2
    assert [kill["wrong"] for kill in found["kills"]] == [[]] * 6
    assert sum(kill["alive"] for kill in found["kills"]) >= 3  # the rest came too late
    assert len(found["writes"]) >= 6 and not any(found["writes"])


def killed_before_write(number: int, below: Path, job) -> bool:
    """Do a job in a fork that is killed right before its n-th change below a folder; whether it was."""
    from killing import Child, kill_at_write

    def hurt(tell) -> None:
        kill_at_write(number, below)
        job()

    return not Child(hurt).start().finish()


def contents(folder: Path) -> dict[str, str]:
    """The files of a folder that are not hidden, and what is in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_write_is_whole_or_absent_wherever_it_is_killed(tmp_path, kind):
    """A report is one such folder."""

    def write(text: str) -> None:
        if kind == "file":
            with write_aside(root / "out" / "a.json") as aside:
                aside.write_text(text)
            return
        with folder_aside(root / "out") as aside:
            write_json(aside / "a.json", text)
            (aside / "sub").mkdir()
            (aside / "sub" / "b.txt").write_text(text)

    root, number, seen = tmp_path / "root", 0, set()
    while True:
        shutil.rmtree(root, ignore_errors=True)
        write("old")
        old = contents(root)
        number += 1
        killed = killed_before_write(number, root, lambda: write("new"))
        after = contents(root)
        write("new")
        new = contents(root)
        assert after in (old, new) and old != new
        seen.add("old" if after == old else "new")
        if not killed:
            break
    assert number > 3 and seen == {"old", "new"}
