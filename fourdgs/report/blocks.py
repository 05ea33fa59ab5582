"""An executed notebook as a list of blocks: what a reader is to see, before it is HTML or Markdown."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ..errors import InputError
from .execute import last_state
from .parameters import parameters_of

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_UNSTEADY = (
    (re.compile(r"\s*\[\d+:\d\d(:\d\d)?(<|, +[\d.?]+ ?\w*/)[^\]\n]*\]"), ""),  # of tqdm: [00:01<00:02, 3.4it/s]
    (re.compile(r"\S*[/\\]ipykernel_\d+[/\\]\d+\.py"), "<cell>"),
    (re.compile(r"(?<= at )0x[0-9a-fA-F]+"), "0x..."),
)


@dataclass
class Prose:
    """Markdown, headings already one level down."""

    text: str


@dataclass
class Code:
    """Code that is folded away, with what it wrote to stderr."""

    source: str
    log: str = ""


@dataclass
class Text:
    """Printed text."""

    text: str


@dataclass
class Settings:
    """The parameters of a notebook: rows of name, value, help; and whether the value differs from the default."""

    rows: list[tuple[str, Any, str, bool]]


@dataclass
class Table:
    """Cells as text; ``numeric`` says which columns are to be set flush right."""

    head: list[list[str]]
    body: list[list[str]]
    caption: str = ""
    numeric: list[bool] = field(default_factory=list)


@dataclass
class Picture:
    """A figure: its name, texts, the PNG that the notebook showed, and the names of its files in ``figures/``."""

    name: str
    alt: str
    caption: str
    png: bytes
    files: list[str] = field(default_factory=list)

    def size(self) -> tuple[int, int]:
        """Width and height on the page, CSS pixels, at most 1000 wide."""
        from PIL import Image

        image = Image.open(io.BytesIO(self.png))
        per_inch = image.info.get("dpi", (100,))[0] or 100
        width = min(round(image.width / per_inch * 100), 1000)
        return width, round(width * image.height / image.width)


@dataclass
class Media:
    """What `show_wipe`, `show_video` or `show_scene` showed.

    Its files lie in ``figures/``, but a scene's page beside ``index.html``: Hugo, for one, builds no site with a page
    among its pictures. ``kind`` is "wipe" (files: left, right), "video" or "scene" (files: the MP4 or the page, then
    the poster); ``size`` is (width, height) in CSS pixels; ``labels`` those of a wipe.
    """

    kind: str
    name: str
    alt: str
    caption: str
    files: list[str]
    size: tuple[int, int]
    labels: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """Where the files lie in the report."""
        return [file if file.endswith(".html") else f"figures/{file}" for file in self.files]


Block = Prose | Code | Text | Settings | Table | Picture | Media


def blocks_of(notebook: Any, path: Path, given: dict[str, Any]) -> list[Block]:
    """The blocks of an executed notebook; ``path`` is its source, ``given`` the parameters that it was run with."""
    found: list[Block] = []
    figures = 0
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        if tags & {"hide", "interactive", "injected-parameters"}:
            continue
        if cell.cell_type == "markdown":
            found.append(Prose(demoted(cell.source)))
        elif "parameters" in tags:
            rows = [(p.name, given.get(p.name, p.default), p.help, given.get(p.name, p.default) != p.default)
                    for p in parameters_of(notebook, path)]  # fmt: skip
            if rows and "hide-input" not in tags:
                found.append(Settings(rows))
        elif cell.cell_type == "code":
            log = "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stderr")
            if "hide-input" not in tags and cell.source.strip():
                _add_code(found, Code(cell.source.rstrip(), steady(last_state(_ANSI.sub("", log)).strip())))
            for block in _outputs(cell.outputs):
                if isinstance(block, Picture) and not block.name:
                    figures += 1
                    block.name = f"{_slug(path.stem)}-{figures}"
                    block.alt = block.alt or f"Figure {figures} of {path.stem}"
                found.append(block)
    return found


def steady(text: str) -> str:
    """The same text without what differs from one run to the next: rates of progress bars, numbers of processes,
    addresses of objects. A report built twice from the same runs is to be the same report. Nor is a reader to learn
    where somebody's home is."""
    text = text.replace(f"{Path.home()}/", "~/") if Path.home() != Path("/") else text
    for pattern, replacement in _UNSTEADY:
        text = pattern.sub(replacement, text)
    return text


def _add_code(found: list[Block], code: Code) -> None:
    """Cells with nothing shown between them fold into one."""
    if found and isinstance(found[-1], Code):
        last = found[-1]
        last.source = f"{last.source}\n\n{code.source}"
        last.log = "\n".join(part for part in (last.log, code.log) if part)
    else:
        found.append(code)


def _outputs(outputs: list[Any]) -> Iterator[Block]:
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stdout" and output.text.strip():
                yield Text(steady(_ANSI.sub("", output.text).strip("\n")))
            continue
        data, metadata = output.get("data", {}), output.get("metadata", {})
        mark = metadata.get("fourdgs", {})
        if "caption_of" in mark:
            continue
        if "kind" in mark:
            keys = ("kind", "name", "alt", "caption", "files", "size", "labels")
            yield Media(**{key: mark[key] for key in keys})
            continue
        if "image/png" in data or "image/jpeg" in data:
            png = base64.b64decode(data.get("image/png") or data["image/jpeg"])
            alt = mark.get("alt") or metadata.get("image/png", {}).get("alt", "")
            yield Picture(mark.get("name", ""), alt, mark.get("caption", ""), png)
        elif "text/markdown" in data:
            yield Prose(demoted(steady(data["text/markdown"])))
        elif "<table" in data.get("text/html", ""):
            yield parse_table(data["text/html"])
        elif not re.fullmatch(r"<.*>|\[?<.*>\]?|None|", data.get("text/plain", "").strip(), re.DOTALL):
            yield Text(steady(data["text/plain"]))


# --- Markdown --------------------------------------------------------------------------------------------------------


def demoted(text: str) -> str:
    """The same Markdown with every ``#`` heading one level down, since the page has its own title."""
    return outside_code(text, lambda line: re.sub(r"^(#{1,5})(?=\s)", r"#\1", line))


def with_local_images(text: str, folder: Path, adopt: Any) -> str:
    """The same Markdown with pictures that lie beside the notebook renamed to ``adopt(path)``.

    Pictures from the network become links: a report can be read without one.

    Raises:
        InputError: a picture that is not there.
    """

    def one(match: re.Match[str]) -> str:
        alt, target = match.groups()
        if re.match(r"[a-z]+:", target, re.IGNORECASE):
            return f"[{alt or target}]({target})"
        if not (folder / target).is_file():
            raise InputError(f"the picture {target} is not there", file=folder)
        return f"![{alt}]({adopt(folder / target)})"

    return outside_code(text, lambda line: _IMAGE.sub(one, line))


def outside_code(text: str, change: Any) -> str:
    """The same Markdown with ``change(line)`` in place of every line outside fenced code."""
    lines, fence = [], ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and line.strip().startswith(fence) else fence
        elif mark:
            fence = mark.group(1)
        else:
            line = change(line)
        lines.append(line)
    return "\n".join(lines)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure"


# --- tables ----------------------------------------------------------------------------------------------------------


class _TableParser(HTMLParser):
    """The first table of what pandas writes (``DataFrame`` or ``Styler``): texts only, spans filled with blanks."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[bool, list[str]]] = []  # (is it a heading, its cells)
        self.caption = ""
        self.numbers: list[bool] = []
        self._section = "tbody"
        self._text: list[str] | None = None
        self._down: dict[int, int] = {}  # column -> rows that a span still covers
        self._across = 1
        self._span = 1

    def handle_starttag(self, tag, attrs):
        if tag in ("thead", "tbody", "tfoot"):
            self._section = tag
        elif tag == "tr":
            self.rows.append((self._section == "thead", []))
            self._fill()
        elif tag in ("td", "th", "caption"):
            self._text = []
            values = dict(attrs)
            self._across, self._span = int(values.get("colspan") or 1), int(values.get("rowspan") or 1)
        elif tag == "br" and self._text is not None:
            self._text.append(" ")

    def handle_endtag(self, tag):
        if self._text is None or tag not in ("td", "th", "caption"):
            return
        text = " ".join("".join(self._text).split())
        self._text = None
        if tag == "caption":
            self.caption = text
            return
        cells = self.rows[-1][1]
        for extra in range(self._across):
            if self._span > 1:
                self._down[len(cells)] = self._span - 1
            cells.append(text if extra == 0 else "")
        self._fill()

    def handle_data(self, data):
        if self._text is not None:
            self._text.append(data)

    def _fill(self) -> None:
        cells = self.rows[-1][1]
        while self._down.get(len(cells), 0) > 0:
            self._down[len(cells)] -= 1
            cells.append("")


_NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?[\d.,]+(e[-+]?\d+)?( ?(%|dB|s|ms|min|h|MB|GB|px))?|nan|inf|\N{EN DASH}|-|")


def parse_table(html: str) -> Table:
    """A pandas table, as text cells. An index that only counts the rows is left out."""
    parser = _TableParser()
    parser.feed(re.split(r"</table>", html[html.index("<table") :])[0])
    head = [cells for is_head, cells in parser.rows if is_head]
    body = [cells for is_head, cells in parser.rows if not is_head]
    width = max((len(cells) for cells in head + body), default=0)
    head, body = ([cells + [""] * (width - len(cells)) for cells in part] for part in (head, body))
    head = [cells for cells in head if any(cells)]
    # pandas sets the names of an index in a heading row of their own; they fit above the index, where the row before
    # holds at most the name of the columns.
    if len(head) > 1 and head[-1][0] and not head[-1][-1]:
        names = head.pop()
        head[-1] = [name or cell for name, cell in zip(names, head[-1], strict=True)]
    counted = [str(row) for row in range(len(body))]
    if body and head and not any(cells[0] for cells in head) and [cells[0] for cells in body] == counted:
        head, body = ([cells[1:] for cells in part] for part in (head, body))
    numeric = [all(_NUMBER.fullmatch(cell) for cell in column) and any(column) for column in zip(*body, strict=True)]
    return Table(head, body, parser.caption, numeric)
