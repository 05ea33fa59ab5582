"""What a notebook takes: the cell tagged ``parameters``, one ``name: type = value  # help`` a line."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingDependency

_SCALARS = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook. ``type`` is the annotation as written, or the default's type where there is none."""

    name: str
    type: str
    default: Any
    help: str


def read_notebook(path: str | Path) -> Any:
    """A notebook file as an nbformat node, brought to the current version of the format.

    Raises:
        InputError: no such file, or no notebook.
    """
    try:
        import nbformat
    except ImportError as error:
        raise MissingDependency("notebooks need more packages: pip install 'fourdgs-lab[notebook]'") from error
    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such notebook", file=path)
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise InputError(f"is not a notebook: {str(error).splitlines()[0]}", file=path) from error
    return notebook


def read_parameters(path: str | Path) -> list[Parameter]:
    """The parameters of a notebook, in order; empty where no cell is tagged ``parameters``.

    Raises:
        InputError: no notebook, or a parameters cell that holds more than assignments of JSON values.
    """
    return parameters_of(read_notebook(path), path)


def parameters_of(notebook: Any, path: str | Path) -> list[Parameter]:
    """`read_parameters` of a notebook that is already read."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if not cells:
        return []
    if len(cells) > 1 or cells[0].cell_type != "code":
        raise InputError("one code cell may be tagged 'parameters'", file=path)
    source = cells[0].source
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise InputError(f"the parameters cell does not parse: {error.msg}", file=path) from error
    comments = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return [_parameter(node, comments, path) for node in tree.body]


def _parameter(node: ast.stmt, comments: Mapping[int, str], path: str | Path) -> Parameter:
    written = ast.unparse(node)
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        name, annotation = node.target.id, ast.unparse(node.annotation)
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name, annotation = node.targets[0].id, None
    else:
        raise InputError(
            f"the parameters cell holds {written!r}", file=path, remedy="one 'name: type = value  # help' a line"
        )
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        raise InputError(f"the default is no plain value: {written!r}", file=path, field=name) from None
    kind = annotation or type(default).__name__
    if annotation and not _known(ast.parse(annotation, mode="eval").body):
        raise InputError(
            f"has the type {annotation}", file=path, field=name,
            remedy="int, float, str, bool, list, dict, list[...], dict[str, ...], or these with '| None'",
        )  # fmt: skip
    return Parameter(name, kind, default, comments.get(node.end_lineno, ""))


def check_parameters(known: list[Parameter], given: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The given values, paths as text, when the notebook takes each of them by name and type.

    Raises:
        InputError: an unknown name (the message lists the known ones), or a value of another type.
    """
    types = {parameter.name: parameter for parameter in known}
    checked = {}
    for name, value in given.items():
        if name not in types:
            takes = ", ".join(f"{parameter.name}: {parameter.type}" for parameter in known)
            raise InputError("is no parameter of this notebook", file=path, field=name,
                             remedy=f"it takes {takes}" if takes else "it takes none")  # fmt: skip
        value = str(value) if isinstance(value, Path) else value
        if types[name].type != "NoneType" and not _matches(value, ast.parse(types[name].type, mode="eval").body):
            raise InputError(f"takes {types[name].type}, not {value!r}", file=path, field=name)
        checked[name] = value
    return checked


def _known(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _known(node.left) and _known(node.right)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return len(inner) == {"list": 1, "dict": 2}.get(node.value.id) and all(map(_known, inner))
    return (isinstance(node, ast.Name) and node.id in _SCALARS) or (
        isinstance(node, ast.Constant) and node.value is None
    )


def _matches(value: Any, node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _matches(value, node.left) or _matches(value, node.right)
    if isinstance(node, ast.Constant):
        return value is None
    if isinstance(node, ast.Subscript):
        if node.value.id == "list":
            return isinstance(value, list | tuple) and all(_matches(item, node.slice) for item in value)
        key, item = node.slice.elts
        return isinstance(value, dict) and all(_matches(k, key) and _matches(v, item) for k, v in value.items())
    kind = _SCALARS[node.id]
    if isinstance(value, bool):  # an int to Python, but never meant as one
        return kind is bool
    return isinstance(value, (int, float) if kind is float else (list, tuple) if kind is list else kind)
