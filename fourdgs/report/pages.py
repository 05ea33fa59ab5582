"""Blocks to one HTML page that needs no network, and to Markdown with its figures beside it."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from .blocks import Block, Code, Picture, Prose, Settings, Table, Text

_TEMPLATES = Path(__file__).parent / "templates"


def embedded(png: bytes) -> str:
    """A picture as the smallest faithful data URI: WebP without loss while that is small, else of high quality."""
    image = Image.open(io.BytesIO(png))
    image = image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB")
    exact, close = io.BytesIO(), io.BytesIO()
    image.save(exact, "WEBP", lossless=True, method=4)
    best = exact.getvalue()
    if len(best) > 60_000:
        image.save(close, "WEBP", quality=85, method=5)
        best = min(best, close.getvalue(), key=len)
    return "data:image/webp;base64," + base64.b64encode(best).decode()


# --- HTML ------------------------------------------------------------------------------------------------------------


def html_page(blocks: list[Block], folder: Path, facts: dict[str, Any]) -> str:
    """The whole page.

    Args:
        blocks: of all notebooks, in order.
        folder: the report's folder, where pictures named in Markdown are found.
        facts: ``title``, ``date``, ``summary`` and ``made`` (a line about how it was made).
    """
    import jinja2
    from pygments.formatters import HtmlFormatter

    markdown, contents = _markdown(folder)
    parts, number = [], 0
    for block in blocks:
        if isinstance(block, Picture):
            number += 1
            parts.append(_html_figure(block, number, markdown))
        else:
            parts.append(_html_block(block, markdown))
    pygments = {
        "pygments_light": HtmlFormatter(style="default").get_style_defs(".highlight"),
        "pygments_dark": HtmlFormatter(style="github-dark").get_style_defs(".highlight"),
    }
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    ).get_template("index.html.j2")
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    summary = markdown(facts["summary"]) if facts["summary"] else ""
    return template.render(
        **facts | {"summary": summary}, body="\n".join(parts), contents=contents, style=style, **pygments
    )


def _markdown(folder: Path) -> tuple[Callable[[str], str], list[tuple[str, str]]]:
    """A Markdown renderer, and the list of (anchor, text) that it fills with the headings of the second level."""
    import mistune

    contents: list[tuple[str, str]] = []
    anchors: set[str] = set()

    class Renderer(mistune.HTMLRenderer):
        def heading(self, text: str, level: int, **attributes: Any) -> str:
            plain = html.unescape(re.sub(r"<[^>]+>", "", text))
            base = re.sub(r"[^\w]+", "-", plain.lower()).strip("-") or "section"
            anchor = next(name for name in _numbered(base) if name not in anchors)
            anchors.add(anchor)
            if level == 2:
                contents.append((anchor, plain))
            return f'<h{level} id="{html.escape(anchor)}">{text}</h{level}>\n'

        def image(self, text: str, url: str, title: str | None = None) -> str:
            uri = embedded((folder / url).read_bytes())
            return f'<img src="{uri}" alt="{html.escape(text)}">'

        def block_code(self, code: str, info: str | None = None) -> str:
            return _highlighted(code, (info or "").split()[0] if info else "text")

    render = mistune.create_markdown(escape=True, renderer=Renderer(escape=True), plugins=["table", "strikethrough"])

    def markdown(text: str) -> str:
        page = str(render(text))
        return re.sub(r"<table>.*?</table>", lambda found: _scrolled(found.group()), page, flags=re.DOTALL)

    return markdown, contents


def _numbered(base: str) -> Iterator[str]:
    yield base
    for number in range(2, 10_000):
        yield f"{base}-{number}"


def _scrolled(table: str) -> str:
    return f'<div class="scroll" role="region" aria-label="table" tabindex="0">{table}</div>'


def _highlighted(code: str, language: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return highlight(code, lexer, HtmlFormatter())


def _html_figure(block: Picture, number: int, markdown: Callable[[str], str]) -> str:
    width, height = block.size()
    caption = re.sub(r"^<p>|</p>$", "", markdown(block.caption).strip()) if block.caption else ""
    links = " ".join(f'<a href="figures/{file}">{Path(file).suffix[1:].upper()}</a>' for file in block.files)
    marks = " ".join(mark for mark, least in (("wide", 760), ("scrolls", 370)) if width > least)
    style = f'width="{width}" height="{height}" style="--width: {width}px"'
    return (
        f'<figure id="figure-{block.name}" class="{marks}"><div class="scroll" tabindex="0">'
        f'<img src="{embedded(block.png)}" alt="{html.escape(block.alt)}" {style}></div>'
        f'<figcaption><b>Figure {number}.</b> {caption} <span class="files">{links}</span></figcaption></figure>'
    )


def _html_block(block: Block, markdown: Callable[[str], str]) -> str:
    if isinstance(block, Prose):
        return markdown(block.text)
    if isinstance(block, Text):
        return f'<pre class="output" tabindex="0">{html.escape(block.text)}</pre>'
    if isinstance(block, Code):
        log = f'<pre class="output" tabindex="0">{html.escape(block.log)}</pre>' if block.log else ""
        return f"<details><summary>code</summary>{_highlighted(block.source, 'python')}{log}</details>"
    if isinstance(block, Settings):
        rows = [[name, _value(value) + (" *" if changed else ""), text] for name, value, text, changed in block.rows]
        changed = any(row[3] for row in block.rows)
        note = "* differs from the notebook's default" if changed else ""
        table = _html_table(Table([["parameter", "value", ""]], rows, note, [False] * 3))
        return f"<details><summary>parameters</summary>{table}</details>"
    return _html_table(block)


def _html_table(table: Table) -> str:
    def row(cells: list[str], tag: str) -> str:
        marks = [' class="number"' if number else "" for number in table.numeric] or [""] * len(cells)
        return "<tr>" + "".join(
            f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True)
        ) + "</tr>"  # fmt: skip

    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    head = "".join(row(cells, "th") for cells in table.head)
    body = "".join(row(cells, "td") for cells in table.body)
    return _scrolled(f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>")


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown_page(blocks: list[Block], facts: dict[str, Any]) -> str:
    """The report as Markdown with front matter; figures are linked in ``figures/``."""
    front = {"title": facts["title"], "date": facts["date"], "description": re.sub(r"[*`]", "", facts["summary"])}
    lines = ["---", *(f"{key}: {_value(value)}" for key, value in front.items() if value), "---"]
    parts, number = ["\n".join(lines)], 0
    if facts["summary"]:
        parts.append(facts["summary"])
    for block in blocks:
        if isinstance(block, Picture):
            number += 1
            alt = re.sub(r"([\[\]])", r"\\\1", block.alt)
            parts.append(f"![{alt}](figures/{block.name}.png)")
            parts.append(f"**Figure {number}.** {block.caption}".rstrip())
        elif isinstance(block, Prose):
            parts.append(block.text.strip())
        elif isinstance(block, Text):
            parts.append(_fenced(block.text))
        elif isinstance(block, Code):
            log = "\n\n" + _fenced(block.log) if block.log else ""
            code = _fenced(block.source, "python")
            parts.append(f"<details><summary>code</summary>\n\n{code}{log}\n\n</details>")
        elif isinstance(block, Settings):
            rows = [[name, f"`{_value(value)}`", text] for name, value, text, _ in block.rows]
            table = _markdown_table(Table([["parameter", "value", ""]], rows, "", [False] * 3))
            parts.append(f"<details><summary>parameters</summary>\n\n{table}\n\n</details>")
        else:
            parts.append(_markdown_table(block))
    parts.append(f"---\n\n{facts['made']}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _fenced(text: str, language: str = "text") -> str:
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"{fence}{language}\n{text}\n{fence}"


def _markdown_table(table: Table) -> str:
    def row(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    # Markdown has one heading row: of several, the words of each column are joined.
    head = [" ".join(word for word in column if word) for column in zip(*table.head, strict=True)]
    head = head or [""] * len(table.numeric)
    rule = "|" + "|".join("---:" if number else "---" for number in table.numeric) + "|"
    lines = [row(head), rule, *(row(cells) for cells in table.body)]
    return "\n".join(lines) + (f"\n\n*{table.caption}*" if table.caption else "")
