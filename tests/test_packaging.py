from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED_EXTRAS = ("notebook", "avatar", "capture", "sweep", "gpu", "dev")
# What a CUDA build of PyTorch brings along depends on its build, which the lock leaves open.
CUDA = re.compile(r"nvidia-|triton|cuda-")


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "every line of the lock is name==version"
    return {canonicalize_name(name): version for name, version in pins}


def declared() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [Requirement(text) for text in PROJECT["dependencies"] + [r for e in LOCKED_EXTRAS for r in extras[e]]]


def test_names_and_python():
    assert PROJECT["name"] == "fourdgs-lab"
    assert sys.version_info[:2] in [(3, 11), (3, 12), (3, 13)]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(9, 16) if f"3.{minor}.5" in allowed] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_the_lock_satisfies_every_declared_requirement(requirement):
    version = locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


def test_the_lock_is_of_exact_plain_versions_in_order():
    pins = locked()
    assert list(pins) == sorted(pins)
    assert not [version for version in pins.values() if "+" in version or "*" in version]
    assert pins["torch"] == "2.13.0"


def test_the_lock_holds_all_that_is_installed_through_the_extras_and_nothing_else():
    pins, queue, seen = locked(), [(r, "") for r in declared()], set()
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if CUDA.match(name):
            continue
        assert name in pins, f"{name} is not in the lock"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement}: {pins[name]} is locked"
        for wanted in ("", *sorted(requirement.extras)):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            queue += [(Requirement(text), wanted) for text in metadata.requires(name) or []]
    strangers = set(pins) - {name for name, _ in seen}
    assert not strangers, f"in the lock, but required by nothing: {strangers}"


def test_the_conda_environment_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    (python,) = [item.split("=")[1] for item in conda if item.startswith("python=")]
    assert f"{python}.0" in SpecifierSet(PROJECT["requires-python"])
    assert "pip" in conda and not [item for item in conda if "torch" in item]
    assert "--constraint requirements.lock" in pip
    (editable,) = [line for line in pip if line.startswith("--editable .")]
    extras = re.search(r"\[(.*)\]", editable).group(1).split(",")
    assert "notebook" in extras and set(extras) <= set(PROJECT["optional-dependencies"])


def test_the_makefile_installs_under_the_lock():
    text = (ROOT / "Makefile").read_text()
    assert "--constraint requirements.lock" in text
    (editable,) = re.findall(r"--editable '\.\[(.*)\]'", text)
    assert set(editable.split(",")) == {"notebook", "avatar", "capture", "sweep", "dev"}
    for target in ("demo", "test", "lint", "lab"):
        assert re.search(rf"^{target}: \$\(VENV\)/\.installed$", text, re.MULTILINE)


def test_the_report_templates_are_in_the_package():
    folder = resources.files("fourdgs.report") / "templates"
    assert {"index.html.j2", "report.css"} <= {file.name for file in folder.iterdir()}


def test_imports_are_light():
    code = """
import sys
def present(names): return [name for name in names.split() if name in sys.modules]
import fourdgs
import fourdgs.doctor
heavy = present("matplotlib ipywidgets papermill nbconvert pyvista anny gsplat av cv2 pycolmap dask distributed viser")
import fourdgs.report
print(heavy, present("papermill nbconvert nbformat mistune jinja2 matplotlib"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[] []"
