"""One notebook, run headless by papermill, with what papermill lacks."""

from __future__ import annotations

import contextlib
import html
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import files
from ..errors import MissingDependency
from .parameters import check_parameters, parameters_of, read_notebook

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


class NotebookFailed(RuntimeError):
    """A notebook did not run to its end: a cell raised or stopped, or the kernel died.

    Attributes: ``notebook`` (path), ``cell`` (its number in the file, from 1), ``source`` (the cell's code),
    ``reason``, ``failed_copy`` (the partly run notebook, or None where it could not be kept).
    """

    def __init__(self, notebook: Path, cell: int, source: str, reason: str, failed_copy: Path | None):
        self.notebook, self.cell, self.source, self.reason, self.failed_copy = (
            notebook, cell, source, reason, failed_copy,
        )  # fmt: skip
        code = "\n".join("    " + line for line in source.strip().splitlines()[:12])
        kept = f"\nThe partly run notebook is {failed_copy}" if failed_copy else ""
        super().__init__(f"{notebook}: cell {cell}: {reason}\nwhile running\n{code}{kept}")


def run_notebook(
    source: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    figures: str | Path | None = None,
    tables: str | Path | None = None,
    cwd: str | Path | None = None,
    progress: bool = True,
    failed_copy: str | Path | None = None,
) -> Path:
    """Execute a notebook with this very Python and write it, outputs included, to ``output``.

    Cells tagged ``interactive`` are left out of the run. Progress bars and other repeated lines are reduced to their
    last state.

    Args:
        parameters: by name, for the notebook's cell tagged ``parameters``.
        figures: the folder that `plots.show` writes into; None for none.
        tables: the folder that `record_metrics` writes into; None for none.
        cwd: where the notebook runs; by default where the caller does, as with papermill.
        progress: a progress bar over the cells, on stderr.
        failed_copy: where to leave a notebook that failed; by default ``<output>.failed.ipynb`` beside ``output``.

    Returns:
        ``output``.

    Raises:
        InputError: no notebook, or a parameter that it does not take; nothing has been run then.
        NotebookFailed: a cell raised, or the kernel died. ``output`` is left as it was.
        OutputError: ``output`` cannot be written.
    """
    source, output = Path(source), Path(output)
    notebook = read_notebook(source)
    given = check_parameters(parameters_of(notebook, source), parameters or {}, source)
    failed = Path(failed_copy) if failed_copy else output.with_suffix(".failed.ipynb")
    env = {name: str(Path(folder).resolve()) for name, folder in
           (("FOURDGS_FIGURES", figures), ("FOURDGS_TABLES", tables)) if folder}  # fmt: skip
    with files.write_aside(output) as aside:
        try:
            _execute(notebook, source, aside, given, env, cwd, progress)
        except NotebookFailed as error:
            with contextlib.suppress(OSError):
                _tidy_file(aside)
                shutil.copyfile(aside, failed)
                raise NotebookFailed(source, error.cell, error.source, error.reason, failed) from None
            raise
        _tidy_file(aside)
    failed.unlink(missing_ok=True)  # of an earlier run
    return output


def _execute(notebook, source: Path, aside: Path, given: dict, env: dict, cwd, progress: bool) -> None:
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ImportError as error:
        raise MissingDependency("running notebooks needs papermill: pip install 'fourdgs-lab[notebook]'") from error
    # papermill asks the file for a kernel and a language; the kernel is ours whatever it says.
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata.setdefault("language_info", {"name": "python"})
    bar = {"desc": source.stem, "unit": " cells", "leave": True} if progress else False
    try:
        papermill.execute_notebook(
            notebook, aside.resolve(), parameters=given, cwd=None if cwd is None else Path(cwd), progress_bar=bar,
            kernel_name="python3", kernel_manager_class=_kernel_manager(env), skip_cells_with_tag="interactive",
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise NotebookFailed(source, *_numbered(notebook, error.source), _summary(error), None) from None
    except RuntimeError as error:
        dead = isinstance(error, DeadKernelError)
        reason = "the kernel died: killed, crashed, or out of memory" if dead else f"no kernel could start: {error}"
        # papermill leaves the cell marked "completed"; it is the last one that was started.
        cells = [cell for cell in read_notebook(aside).cells if cell.metadata.get("papermill", {}).get("start_time")]
        raise NotebookFailed(source, *_numbered(notebook, cells[-1].source if cells else ""), reason, None) from None
    for cell in read_notebook(aside).cells:
        # sys.exit() ends the run early, which papermill takes for success.
        if cell.metadata.get("papermill", {}).get("status") == "failed":
            raise NotebookFailed(source, *_numbered(notebook, cell.source), "the cell ended the run", None)


def _numbered(notebook: Any, source: str) -> tuple[int, str]:
    """The number of the cell in the file as its author sees it (0 for the injected parameters), and its code."""
    numbers = [number for number, cell in enumerate(notebook.cells, 1) if cell.source == source]
    return (numbers[0] if numbers else 0), source


def _summary(error: Any) -> str:
    """The exception and, for each level of its traceback, the line that was running."""
    lines = [_ANSI.sub("", line) for entry in error.traceback for line in entry.splitlines()]
    arrows = [line for line in lines if re.match(r"\s*-+> ?\d+", line)]
    shown = [f"    {line.strip()}" for line in arrows[-6:]]
    return "\n".join([f"{error.ename}: {_ANSI.sub('', error.evalue)}", *shown])


def _kernel_manager(env: dict[str, str]) -> type:
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        """Kernels of the interpreter that is running, whatever kernels a user has registered as "python3"."""

        @property
        def kernel_spec(self) -> KernelSpec:
            # Only errors: the kernel would say at every start that loopback TCP is not encrypted.
            argv = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "--IPKernelApp.log_level=40"]
            argv += ["-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python", env=env)

    return ThisPython


# --- what a run leaves in the outputs --------------------------------------------------------------------------------


def _tidy_file(path: Path) -> None:
    import nbformat

    notebook = read_notebook(path)
    tidy(notebook)
    nbformat.write(notebook, path)


def tidy(notebook: Any) -> None:
    """Reduce the outputs, in place: one stream of each name between displays, progress bars at their last state."""
    widgets = notebook.metadata.pop("widgets", {}).get(_WIDGET_STATE, {}).get("state", {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = list(_tidied(cell.outputs, widgets))


def _tidied(outputs: list, widgets: Mapping[str, Any]) -> Iterator[Any]:
    import nbformat

    streams: dict[str, Any] = {}
    for output in outputs:
        if _WIDGET in output.get("data", {}):
            text = _widget_text(output["data"][_WIDGET].get("model_id"), widgets)
            output = nbformat.v4.new_output("stream", name="stderr", text=f"{text}\n" if text else "")
        if output.output_type == "stream":
            known = streams.setdefault(output.name, nbformat.v4.new_output("stream", name=output.name, text=""))
            known.text += output.text
            continue
        yield from _closed(streams)
        yield output
    yield from _closed(streams)


def _closed(streams: dict[str, Any]) -> Iterator[Any]:
    for stream in streams.values():
        stream.text = last_state(stream.text)
        if stream.text.strip():
            yield stream
    streams.clear()


def last_state(text: str) -> str:
    """What a terminal would show at the end: of a line rewritten through carriage returns, its last writing."""
    lines = []
    for line in re.sub(r"\x1b\[[A-K]", "", text).replace("\r\n", "\n").split("\n"):
        writings = [writing for writing in line.split("\r") if writing.strip()]
        lines.append(writings[-1] if writings else "")
    return "\n".join(lines)


def _widget_text(model: str | None, widgets: Mapping[str, Any]) -> str:
    """The words of a widget and its children: of a tqdm bar, what the terminal would show."""
    state = widgets.get(model, {}).get("state", {})
    words = [html.unescape(str(state["value"]))] if state.get("_model_name") in ("HTMLModel", "LabelModel") else []
    for child in state.get("children", []):
        words.append(_widget_text(str(child).removeprefix("IPY_MODEL_"), widgets))
    return " ".join(word.strip() for word in words if word.strip())
