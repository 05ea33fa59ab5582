"""Reports: what runs, what is shown of it, and what happens when it does not run. Notebooks go through real kernels."""

from __future__ import annotations

import errno
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourdgs import files, report
from fourdgs.errors import InputError, OutputError
from fourdgs.report import blocks, build, execute, markdown, pages
from fourdgs.report.parameters import check_parameters

v4 = nbformat.v4
PARAMETERS = """steps: int = 5  # how many
rate: float = 0.5
name: str = "a"
views: list[int] = [1, 2]
limit: int | None = None"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    # The notebooks import the library that is tested, installed or not.
    monkeypatch.setenv("PYTHONPATH", str(Path(report.__file__).parents[2]))


def code(source: str, *tags: str):
    return v4.new_code_cell(source, metadata={"tags": list(tags)})


def write(path: Path, *cells) -> Path:
    cells = [v4.new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_are_read_with_type_default_and_help(tmp_path):
    found = report.read_parameters(write(tmp_path / "a.ipynb", code(PARAMETERS, "parameters")))
    assert [(p.name, p.type, p.default, p.help) for p in found] == [
        ("steps", "int", 5, "how many"), ("rate", "float", 0.5, ""), ("name", "str", "a", ""),
        ("views", "list[int]", [1, 2], ""), ("limit", "int | None", None, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("steps", 7, True), ("steps", 7.0, False), ("steps", True, False), ("steps", "7", False),
        ("steps", None, False), ("rate", 1, True), ("rate", float("inf"), True), ("rate", "1", False),
        ("name", Path("x"), True), ("name", 3, False), ("views", [3], True), ("views", ["3"], False),
        ("views", 3, False), ("limit", 3, True), ("limit", None, True), ("limit", "3", False),
    ],
)  # fmt: skip
def test_parameters_are_checked_by_type(tmp_path, name, value, fits):
    known = report.read_parameters(write(tmp_path / "a.ipynb", code(PARAMETERS, "parameters")))
    if fits:
        assert check_parameters(known, {name: value}, "a.ipynb") == {name: str(value) if name == "name" else value}
    else:
        with pytest.raises(InputError, match=f"a.ipynb: {name}: takes"):
            check_parameters(known, {name: value}, "a.ipynb")


def test_an_unknown_parameter_names_the_known_ones_and_nothing_runs(tmp_path):
    leaves_a_trace = code(f"open({str(tmp_path / 'ran')!r}, 'w')")
    notebook = write(tmp_path / "a.ipynb", code(PARAMETERS, "parameters"), leaves_a_trace)
    with pytest.raises(InputError, match=r"a.ipynb: stepz: .*steps: int, rate: float"):
        report.run_notebook(notebook, tmp_path / "out.ipynb", {"stepz": 1})
    with pytest.raises(InputError, match="stepz"):
        report.build_report([(notebook, {"stepz": 1})], tmp_path / "reports" / "x", title="x")
    assert leftovers(tmp_path) == ["a.ipynb"]


@pytest.mark.parametrize("source", ["import os", "a: int = f()", "a: set = 1", "a, b = 1, 2", "a: int", "a ="])
def test_a_parameters_cell_holds_plain_values_only(tmp_path, source):
    with pytest.raises(InputError, match="a.ipynb"):
        report.read_parameters(write(tmp_path / "a.ipynb", code(source, "parameters")))


def test_what_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "a.ipynb").write_text("{}")
    (tmp_path / "b.ipynb").write_text("hello")
    for name in ("a", "b", "c"):
        with pytest.raises(InputError, match=f"{name}.ipynb"):
            report.run_notebook(tmp_path / f"{name}.ipynb", tmp_path / "out.ipynb")
    with pytest.raises(InputError, match="it takes none"):
        report.run_notebook(write(tmp_path / "d.ipynb", "no parameters"), tmp_path / "out.ipynb", {"a": 1})


# --- outputs reduced -------------------------------------------------------------------------------------------------


@given(st.text(st.sampled_from("ab \r\n"), max_size=40))
def test_the_last_state_has_no_returns_and_is_stable(text):
    once = execute.last_state(text)
    assert "\r" not in once and execute.last_state(once) == once
    assert once.count("\n") == text.replace("\r\n", "\n").count("\n")


def test_progress_bars_keep_their_last_state():
    assert execute.last_state("x\r 0%\r 50%\r100%\ndone\n") == "100%\ndone\n"
    notebook = v4.new_notebook(cells=[code("")])
    notebook.cells[0].outputs = [
        v4.new_output("stream", name="stderr", text="\r 0%"), v4.new_output("stream", name="stdout", text="a\n"),
        v4.new_output("stream", name="stderr", text="\r100%\n"), v4.new_output("stream", name="stdout", text="b\n"),
    ]  # fmt: skip
    execute.tidy(notebook)
    assert [(out.name, out.text) for out in notebook.cells[0].outputs] == [("stderr", "100%\n"), ("stdout", "a\nb\n")]


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_headings_move_down_outside_code_only():
    assert blocks.demoted("# a\n```\n# b\n```\n## c\n#d\n###### e") == "## a\n```\n# b\n```\n### c\n#d\n###### e"


def test_pictures_of_the_network_become_links_and_missing_ones_are_errors(tmp_path):
    (tmp_path / "x.png").touch()
    text = "![a](https://example.org/a.png) ![b](x.png)\n```\n![c](missing.png)\n```"
    assert blocks.with_local_images(text, tmp_path, lambda path: f"figures/{path.name}") == (
        "[a](https://example.org/a.png) ![b](figures/x.png)\n```\n![c](missing.png)\n```"
    )
    with pytest.raises(InputError, match="missing.png"):
        blocks.with_local_images("![c](missing.png)", tmp_path, str)


def test_tables_of_pandas_are_read():
    table = pd.DataFrame({"run": ["a", "b"], "psnr_db": [1.5, 2.5]})
    found = blocks.parse_table(table.to_html())
    assert (found.head, found.body) == ([["run", "psnr_db"]], [["a", "1.5"], ["b", "2.5"]])
    assert found.numeric == [False, True]
    styled = blocks.parse_table(table.style.format(precision=2).hide(axis="index").set_caption("two").to_html())
    assert (styled.head, styled.body, styled.caption) == ([["run", "psnr_db"]], [["a", "1.50"], ["b", "2.50"]], "two")
    kept = blocks.parse_table(table.set_index("run").to_html())
    assert (kept.head, kept.body) == ([["run", "psnr_db"]], [["a", "1.5"], ["b", "2.5"]])


def test_spans_of_a_table_are_filled():
    index = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["run", "seed"])
    columns = pd.MultiIndex.from_product([["still", "talking"], ["low", "high"]])
    found = blocks.parse_table(pd.DataFrame(7, index, columns).to_html())
    assert found.head == [["", "", "still", "", "talking", ""], ["run", "seed", "low", "high", "low", "high"]]
    assert [row[:3] for row in found.body] == [["a", "1", "7"], ["", "2", "7"], ["b", "1", "7"], ["", "2", "7"]]
    assert {len(row) for row in found.head + found.body} == {6}


def test_text_is_escaped_everywhere(tmp_path):
    shown = [
        blocks.Prose("<script>alert(1)</script> [x](javascript:alert(1))"), blocks.Text("<b>&"),
        blocks.Code("a < b", "<log>"), blocks.Table([["<h>"]], [["a|b <c>"]], "<cap>", [False]),
        blocks.Settings([("<p>", "<v>", "<help>", True)]),
    ]  # fmt: skip
    facts = {
        "title": "<t> \"q\"", "date": "2026-01-01", "summary": "<s>", "made": "<m>", "metrics": False, "lang": "en",
        "tags": ["<tag>"], "flavor": "plain",
    }  # fmt: skip
    page = pages.html_page(shown, tmp_path, facts)
    assert "<script" not in page and 'href="javascript' not in page
    for raw in ("<b>&", "<log>", "<h>", "<c>", "<cap>", '<p>"', "<v>", "<help>", "<t>", "<m>"):
        assert raw not in page
    text = markdown.markdown_page(shown, facts)
    assert "a\\|b" in text and text.startswith('---\ntitle: "<t> \\"q\\""\n')


# --- runs ------------------------------------------------------------------------------------------------------------


FIRST = (
    "# The dataset\n\nWords, *words*. ![still](picture.png)\n\n## Inside",
    code(PARAMETERS, "parameters"),
    code("import sys\nfrom tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass\nprint('ran', steps, sys.executable)"),
    code("from fourdgs import plots\nfig = plots.timeline([('install', 90)])\n"
         "plots.show(fig, 'cost', 'One <bar>', caption='What ' + '*it* cost.')"),
    code("raise RuntimeError('by hand only')", "interactive"),
    code("'not to be seen'", "hide"),
    code("import pandas as pd\nfrom fourdgs.report import record_metrics\ntable = pd.DataFrame({'run': ['0001'], "
         "'psnr_db': [1 / 3]})\nrecord_metrics(table, seed=0)\ntable", "hide-input"),
)  # fmt: skip
SECOND = (
    "# The verdict",
    code("from IPython.display import Markdown, display\ndisplay(Markdown('It reads **12.1 dB**.'))"),
    code("import pandas as pd\nfrom fourdgs import report\nreport.record_metrics(pd.DataFrame({'other': [2]}))"),
    code("from PIL import Image\nImage.new('RGB', (40, 20), (200, 0, 0))"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("report")
    one, two = write(folder / "nb/01_dataset.ipynb", *FIRST), write(folder / "nb/02_verdict.ipynb", *SECOND)
    Image.new("RGB", (30, 30), (0, 200, 0)).save(folder / "nb/picture.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(report.__file__).parents[2]))
        page = report.build_report(
            [(one, {"steps": 9}), two], folder / "reports/x", title="Was it?", summary="In **short**.",
            info={"capture": "abc"}, date="2026-01-02", progress=False,
        )  # fmt: skip
    assert page == folder / "reports/x/index.html"
    assert leftovers(folder / "reports") == ["x"]
    return page.parent


def test_a_report_is_whole(finished):
    assert leftovers(finished) == ["figures", "index.html", "index.md", "metrics.csv", "run.json"]
    assert leftovers(finished / "figures") == [
        "01-dataset-picture.png", "02-verdict-1.png", "cost.png", "cost.svg",
    ]  # fmt: skip
    assert sum(file.stat().st_size for file in finished.rglob("*")) < 500_000


def test_the_page_needs_no_network_and_describes_its_figures(finished):
    page = (finished / "index.html").read_text()
    assert not re.search(r"<script|<link|<iframe|@import|src=(?!\"data:)|url\(", page)
    figure = re.search(r'<figure id="figure-cost".*?</figure>', page, re.DOTALL).group()
    assert 'alt="One &lt;bar&gt;"' in figure and "<figcaption><b>Figure 1.</b> What <em>it</em> cost." in figure
    assert page.count("What <em>it</em> cost.") == 1 and page.count("<figure") == 2
    assert 'alt="still"' in page and "<h1>Was it?</h1>" in page
    assert re.findall(r'<a href="#([\w-]+)">', page) == ["the-dataset", "the-verdict"]
    assert all(f'id="{anchor}"' in page for anchor in ("the-dataset", "the-verdict", "inside"))
    assert "by hand only" not in page and "not to be seen" not in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    for target in re.findall(r'href="((?:figures|run|metrics)[^"]*)"', page):
        assert (finished / target).is_file()


def test_code_is_folded_hidden_or_dropped_by_tag(finished):
    page = (finished / "index.html").read_text()
    folded = re.findall(r"<details><summary>(\w+)</summary>(.*?)</details>", page, re.DOTALL)
    assert [kind for kind, _ in folded] == ["parameters", "code", "code", "code", "code"]
    assert "9 *" in folded[0][1] and "how many" in folded[0][1]
    text = re.sub(r"<[^>]+>", "", page)
    assert "record_metrics(table" not in text and "plots.timeline" in text
    assert "100% 3/3" in re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", folded[1][1]))
    assert page.count("0.333333") == 1


def test_the_notebooks_run_in_this_python_with_the_parameters(finished):
    assert f"ran 9 {sys.executable}" in (finished / "index.md").read_text()


def test_the_markdown_has_its_figures_beside_it(finished):
    text = (finished / "index.md").read_text()
    assert text.startswith(
        '---\ntitle: "Was it?"\ndate: "2026-01-02"\ndescription: "In short."\n'
        'tags: ["4DGS", "Gaussian splatting"]\nlang: "en"\n---\n'
    )
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert links == ["figures/01-dataset-picture.png", "figures/cost.png", "figures/02-verdict-1.png"]
    assert all((finished / link).is_file() for link in links)
    assert "\n## The dataset\n" in text and "\n### Inside\n" in text and "| 0001 | 0.333333 | 0 |" not in text
    assert "| 0001 | 0.333333 |" in text and "It reads **12.1 dB**." in text
    assert text.count("What *it* cost.") == 1


def test_metrics_are_kept_to_the_last_digit(finished):
    assert (finished / "metrics.csv").read_text() == f"run,psnr_db,seed,other\n0001,{1 / 3},0,\n,,,2\n"


def test_every_input_is_in_the_record(finished):
    record = json.loads((finished / "run.json").read_text())
    first, second = record["notebooks"]
    assert first["sha256"] == files.hash_file(finished.parents[1] / "nb/01_dataset.ipynb")
    assert first["parameters"] == {"steps": 9, "rate": 0.5, "name": "a", "views": [1, 2], "limit": None}
    assert second["parameters"] == {} and record["info"] == {"capture": "abc"}
    assert record["versions"]["python"] and record["hardware"]["cores"] >= 1 and len(record["inputs_sha256"]) == 64


def test_a_notebook_runs_under_plain_papermill_too(tmp_path):
    import papermill

    notebook = write(tmp_path / "a.ipynb", code("steps: int = 5", "parameters"), code("print(steps * 2)"))
    raw = nbformat.read(notebook, 4)
    raw.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    raw.metadata["language_info"] = {"name": "python"}
    nbformat.write(raw, notebook)
    papermill.execute_notebook(notebook, tmp_path / "out.ipynb", {"steps": 4}, progress_bar=False)
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs[0].text == "8\n"


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_failing_cell_is_named_and_an_earlier_report_stays(tmp_path):
    failing = code("def f(a):\n    return a / 0\n\nf(x)")
    bad = write(tmp_path / "bad.ipynb", "words", code("x = 1"), failing, code("print()"))
    out = tmp_path / "reports" / "x"
    out.mkdir(parents=True)
    (out / "run.json").write_text("earlier")
    with pytest.raises(report.NotebookFailed) as caught:
        report.build_report([bad], out, title="x", progress=False)
    text = str(caught.value)
    assert re.match(r"\S*bad\.ipynb: cell 3: ZeroDivisionError: division by zero\n", text)
    assert "return a / 0" in text and "    f(x)" in text and "\x1b" not in text
    assert str(tmp_path / "reports" / "bad.failed.ipynb") in text
    assert (out / "run.json").read_text() == "earlier"
    assert leftovers(tmp_path / "reports") == ["bad.failed.ipynb", "x"] and leftovers(out) == ["run.json"]
    assert "ZeroDivisionError" in (tmp_path / "reports" / "bad.failed.ipynb").read_text()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
        ("import sys\nsys.exit(0)", "ended the run"),
    ],
    ids=["killed", "exit"],
)
def test_a_dead_kernel_and_an_early_exit_are_failed_runs(tmp_path, source, reason):
    notebook = write(tmp_path / "a.ipynb", code("x = 1"), code(source), code("print('after')"))
    with pytest.raises(report.NotebookFailed, match=rf"a\.ipynb: cell 2: .*{reason}") as caught:
        report.run_notebook(notebook, tmp_path / "out.ipynb", progress=False)
    assert caught.value.source == source and caught.value.failed_copy == tmp_path / "out.failed.ipynb"
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert leftovers(tmp_path) == ["a.ipynb", "out.failed.ipynb"]


def fake_run(source, output, parameters=None, **_):
    """In place of an execution, for what happens after it."""
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, output)
    return Path(output)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_cannot_be_made_is_one_error_before_anything_runs(tmp_path, monkeypatch):
    notebook = write(tmp_path / "a.ipynb", "words")
    (tmp_path / "file").touch()
    monkeypatch.setattr(build, "run_notebook", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(OutputError, match=r"file/x: cannot be written"):
        report.build_report([notebook], tmp_path / "file" / "x", title="x")
    with pytest.raises(OutputError, match=r"file/out\.ipynb: cannot be written"):
        report.run_notebook(notebook, tmp_path / "file" / "out.ipynb")
    assert leftovers(tmp_path) == ["a.ipynb", "file"]


@pytest.mark.parametrize("where", ["write_text", "write_json"])
def test_a_full_disk_is_one_error_and_leaves_the_earlier_report(tmp_path, monkeypatch, where):
    notebook = write(tmp_path / "a.ipynb", "words")
    monkeypatch.setattr(build, "run_notebook", fake_run)
    out = tmp_path / "reports" / "x"
    report.build_report([notebook], out, title="first")
    monkeypatch.setattr(build.files, where, full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        report.build_report([notebook], out, title="second")
    assert leftovers(tmp_path / "reports") == ["x"]
    assert json.loads((out / "run.json").read_text())["title"] == "first"


def test_a_disk_that_fills_while_a_notebook_runs_is_one_error(tmp_path, monkeypatch):
    notebook = write(tmp_path / "a.ipynb", "words")
    monkeypatch.setattr(execute, "_execute", full_disk)
    with pytest.raises(OutputError, match=r"out\.ipynb: cannot be written: No space left"):
        report.run_notebook(notebook, tmp_path / "out.ipynb")
    assert leftovers(tmp_path) == ["a.ipynb"]


def test_a_folder_that_is_no_report_is_never_replaced(tmp_path, monkeypatch):
    notebook = write(tmp_path / "mine" / "a.ipynb", "words")
    monkeypatch.setattr(build, "run_notebook", fake_run)
    with pytest.raises(InputError, match="not a report"):
        report.build_report([notebook], tmp_path / "mine", title="x")
    assert leftovers(tmp_path / "mine") == ["a.ipynb"]


def test_what_is_not_json_and_two_figures_of_one_name_are_refused(tmp_path, monkeypatch):
    notebook = write(tmp_path / "a.ipynb", code("", "x"))
    monkeypatch.setattr(build, "run_notebook", fake_run)
    for info in ({"a": float("nan")}, {"a": object()}):
        with pytest.raises(InputError, match="info"):
            report.build_report([notebook], tmp_path / "x", title="x", info=info)
    raw = nbformat.read(notebook, 4)
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    figure = v4.new_output("display_data", {"image/png": png}, metadata={"fourdgs": {"name": "same"}})
    raw.cells[0].outputs = [figure] * 2
    nbformat.write(raw, notebook)
    with pytest.raises(InputError, match="same: two figures"):
        report.build_report([notebook], tmp_path / "x", title="x")
    assert leftovers(tmp_path) == ["a.ipynb"]
