"""Several notebooks to one report folder."""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files, provenance
from ..errors import InputError
from ..runs import Run, phase
from .blocks import Block, Media, Picture, Prose, blocks_of, with_local_images
from .execute import run_notebook
from .markdown import check_flavor, markdown_page
from .pages import html_page
from .parameters import check_parameters, parameters_of, read_notebook
from .words import words_of

if TYPE_CHECKING:
    import pandas as pd

_SMALL_SVG = 40_000  # bytes

Source = str | Path | tuple[str | Path, Mapping[str, Any]]


def build_report(
    notebooks: Sequence[Source],
    out: str | Path,
    *,
    title: str,
    summary: str = "",
    date: str | None = None,
    lang: str = "en",
    tags: Sequence[str] = ("4DGS", "Gaussian splatting"),
    flavor: str = "plain",
    info: Mapping[str, Any] | None = None,
    metrics: pd.DataFrame | None = None,
    cwd: str | Path | None = None,
    runs: Sequence[Run] = (),
    progress: bool = True,
) -> Path:
    """Run notebooks in order and write them up as one folder, which appears whole or not at all.

    The folder holds ``index.html`` (figures inside; no network), ``index.md``, ``figures/`` with every figure (PNG, and
    SVG where that is small), video and scene, ``metrics.csv`` (what `record_metrics` was given; left out where
    nothing was) and ``run.json`` (hashes of the notebooks, their parameters, ``info``, versions, hardware). An earlier
    report at ``out`` is replaced; a process that is killed leaves it. Built again from the same runs, by the same code
    on the same machine, the report is the same to the byte but for its date.

    Args:
        notebooks: paths, or ``(path, parameters)``.
        out: for instance ``"reports/alpha"``.
        title: the page's title; the notebooks' own titles become its sections.
        summary: a sentence or two under the title, Markdown.
        date: ``YYYY-MM-DD``; by default today's.
        lang: of the headings and fixed words, "en" or "ru"; what notebooks compute and say stays English.
        tags: for the front matter of ``index.md``.
        flavor: what ``index.md`` is for: "plain" (GitHub and most others), "hugo", "jekyll" or "quarto".
        info: JSON values to keep in ``run.json``, for instance ``{"capture": capture.digest()}``.
        metrics: rows for ``metrics.csv`` from outside the notebooks.
        cwd: where the notebooks run; by default where the caller does.
        runs: what the report is of: they share its seconds, as their phase ``report``.
        progress: progress bars on stderr.

    Returns:
        The path of the report's ``index.html``.

    Raises:
        InputError: a notebook, a parameter, ``info``, ``lang`` or ``flavor`` that cannot be used, found before anything
            is run; two figures of one name; an ``out`` that is no report.
        NotebookFailed: a notebook did not run to its end; it is left as ``<its name>.failed.ipynb`` beside ``out``.
        OutputError: ``out`` cannot be written.
    """
    out = Path(out)
    sources = [item if isinstance(item, tuple) else (item, {}) for item in notebooks]
    checked = [_checked(Path(path), given) for path, given in sources]
    info = _checked_info(info)
    facts = {"title": title, "summary": summary.strip(), "lang": lang, "tags": [str(tag) for tag in tags]}
    facts |= {"flavor": flavor, "date": date or datetime.datetime.now(datetime.UTC).date().isoformat()}
    _check_page(out, lang, flavor)
    with (
        phase(runs, "report"),
        files.folder_aside(out) as folder,
        tempfile.TemporaryDirectory(prefix="fourdgs-report-") as scratch,
    ):
        if metrics is not None:
            _write_table(metrics, Path(scratch, "tables"))
        blocks = _run_all(checked, folder, Path(scratch), cwd=cwd, progress=progress, failed=out.parent)
        record = _record(title, facts["date"], [_entry(path, given) for path, given in checked], info)
        _write_up(blocks, record, facts, Path(scratch, "tables"), folder)
    return out / "index.html"


def record_metrics(table: pd.DataFrame, **labels: Any) -> None:
    """Add the rows of ``table`` to the ``metrics.csv`` of the report that is being built.

    Args:
        table: any columns; tables with different columns are joined by name.
        labels: columns to add with one value, for instance ``run="v2"``.

    A notebook that is run by hand records nothing.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = os.environ.get("FOURDGS_TABLES")
    if folder:
        _write_table(table.assign(**labels), Path(folder))


# --- before the run --------------------------------------------------------------------------------------------------


def _checked(path: Path, given: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    return path, check_parameters(parameters_of(read_notebook(path), path), given, path)


def _check_page(out: Path, lang: str, flavor: str) -> None:
    words_of(lang)
    check_flavor(flavor)
    if out.is_dir() and any(out.iterdir()) and not (out / "run.json").is_file():
        raise InputError("holds something that is not a report", file=out, remedy="choose a new folder")


def _checked_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(info or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"is not JSON: {error}", field="info") from error


# --- the notebooks ---------------------------------------------------------------------------------------------------


def _run_all(
    checked: Sequence[tuple[Path, dict[str, Any]]], folder: Path, scratch: Path, *, failed: Path, **how: Any
) -> list[Block]:
    """Run notebooks in order; what they show, with its files in the report's ``folder``, tables in ``scratch``.

    Args:
        failed: where a notebook that fails is left. how: ``cwd`` and ``progress``.
    """
    (folder / "figures").mkdir()
    blocks: list[Block] = []
    for number, (path, given) in enumerate(checked, 1):
        work = scratch / f"{number:02d}"
        executed = run_notebook(
            path, work / path.name, given, figures=work / "figures", tables=scratch / "tables",
            failed_copy=failed / f"{path.stem}.failed.ipynb", **how,
        )  # fmt: skip
        blocks += _adopt(blocks_of(read_notebook(executed), path, given), path, work / "figures", folder)
    return blocks


# --- figures and tables ----------------------------------------------------------------------------------------------


def _adopt(blocks: list[Block], path: Path, shown: Path, folder: Path) -> list[Block]:
    """Move what the blocks of one notebook refer to into the report's ``figures/``."""
    figures = folder / "figures"

    def copied(image: Path) -> str:
        name = re.sub(r"[^a-z0-9.]+", "-", f"{path.stem}-{image.name}".lower())
        shutil.copyfile(image, figures / name)
        return f"figures/{name}"

    for block in blocks:
        if isinstance(block, Prose):
            block.text = with_local_images(block.text, path.parent, copied)
        elif isinstance(block, Picture):
            if (figures / f"{block.name}.png").exists():
                raise InputError("two figures of the report have this name", file=path, field=block.name)
            made = [shown / f"{block.name}{ending}" for ending in (".png", ".svg")]
            if made[0].is_file():
                for file in made[: 2 if _is_worth(made[1]) else 1]:
                    shutil.move(file, figures / file.name)
            else:  # shown by other means than plots.show
                block.png = _as_png(block.png)
                (figures / f"{block.name}.png").write_bytes(block.png)
            block.files = [file.name for file in made if (figures / file.name).is_file()]
        elif isinstance(block, Media):
            for name, place in zip(block.files, block.paths, strict=True):
                if (folder / place).exists() or place == "index.html":
                    raise InputError("two figures of the report have this name", file=path, field=name)
                shutil.move(shown / name, folder / place)
    return blocks


def _is_worth(svg: Path) -> bool:
    """Whether an SVG is small, and a drawing rather than a frame around pictures.

    A drawing of thousands of marks is slow to show, and a report is to stay small enough to be committed.
    """
    text = svg.read_text(encoding="utf-8")
    pictures = sum(len(found) for found in re.findall(r'="data:image/[^"]*', text))
    return 2 * pictures < len(text) <= _SMALL_SVG


def _as_png(data: bytes) -> bytes:
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    if image.format == "PNG":
        return data
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write_table(table: pd.DataFrame, folder: Path) -> None:
    number = len(list(folder.glob("*.csv"))) if folder.is_dir() else 0
    files.write_text(folder / f"{number:04d}.csv", table.to_csv(index=False))


def _join_tables(folder: Path, path: Path) -> bool:
    import pandas as pd

    # As text: what a notebook wrote is what the report holds, to the last digit.
    parts = [pd.read_csv(file, dtype=str, keep_default_na=False) for file in sorted(folder.glob("*.csv"))]
    if parts:
        files.write_text(path, pd.concat(parts, ignore_index=True).to_csv(index=False, na_rep=""))
    return bool(parts)


def _write_up(blocks: list[Block], record: dict[str, Any], facts: dict[str, Any], tables: Path, folder: Path) -> None:
    """Write ``metrics.csv``, ``run.json`` and the pages."""
    facts = facts | {"made": _made(record, facts["lang"]), "metrics": _join_tables(tables, folder / "metrics.csv")}
    files.write_json(folder / "run.json", record)
    files.write_text(folder / "index.md", markdown_page(blocks, facts))
    files.write_text(folder / "index.html", html_page(blocks, folder, facts))


# --- what is known of the run ----------------------------------------------------------------------------------------


def _entry(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    values = {parameter.name: parameter.default for parameter in parameters_of(read_notebook(path), path)}
    inside = path.resolve().is_relative_to(Path.cwd())
    return {
        "file": path.resolve().relative_to(Path.cwd()).as_posix() if inside else path.name,
        "sha256": files.hash_file(path),
        "parameters": values | dict(given),
    }


def _record(title: str, date: str, entries: list[dict], info: dict) -> dict[str, Any]:
    """What ``run.json`` says: all that decided the report, and no clock but its date, so that it can be built again."""
    inputs = [{key: entry[key] for key in ("sha256", "parameters")} for entry in entries]
    return {
        "title": title,
        "date": date,
        "inputs_sha256": files.hash_json({"notebooks": inputs, "info": info}),
        "notebooks": entries,
        "info": info,
        "code": provenance.code_state(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }


def _made(record: Mapping[str, Any], lang: str) -> str:
    """The last line of the page."""
    machine, code, versions, words = record["hardware"], record["code"], record["versions"], words_of(lang)
    commit = words["commit"].format(commit=code["commit"][:10]) if code else ""
    return words["made"].format(
        version=versions.get("fourdgs-lab", ""),
        commit=commit + (words["modified"] if code and code["modified"] else ""),
        cores=machine["cores"],
        processor=machine["processor"] or words["processor"],
        gpus=", ".join(machine["gpus"]) or words["no_gpu"],
        python=versions["python"],
        torch=versions.get("torch", words["absent"]),
        inputs=record["inputs_sha256"][:12],
    )
