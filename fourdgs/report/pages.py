"""Blocks to one HTML page that needs no network."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .blocks import Block, Code, Media, Picture, Prose, Settings, Table, Text
from .words import HEADINGS, heading, words_of

EMBEDDED_MB = 1.5  # a video larger than this lies beside the page only
_SMALL_PICTURE = 30_000  # bytes that a picture may take without a second thought
_TEMPLATES = Path(__file__).parent / "templates"


def embedded(png: bytes, file: bytes | None = None) -> str:
    """A picture as a small data URI: WebP without loss, or of high quality where that is much smaller.

    Args:
        png: the picture, true to the last bit.
        file: what of it the report keeps as a file, with a palette: a page that shows these very pixels is as true as
            that, and for a chart far smaller than one of all the colours of its edges.
    """
    exact = min((_webp(data, lossless=True) for data in (png, file or png)), key=len)
    if len(exact) > _SMALL_PICTURE:
        close = _webp(png, quality=80)
        # Letters and lines suffer from it: not for a few bytes.
        exact = close if len(close) < 0.8 * len(exact) else exact
    return "data:image/webp;base64," + base64.b64encode(exact).decode()


def _webp(png: bytes, **options: Any) -> bytes:
    image = Image.open(io.BytesIO(png))
    image = image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB")
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=6, **options)
    return buffer.getvalue()


# --- HTML ------------------------------------------------------------------------------------------------------------


def html_page(blocks: list[Block], folder: Path, facts: dict[str, Any]) -> str:
    """The whole page.

    Args:
        blocks: of all notebooks, in order.
        folder: the report's folder, where pictures named in Markdown are found.
        facts: ``title``, ``date``, ``summary``, ``lang``, ``metrics`` (whether there is a metrics.csv) and ``made`` (a
            line about how it was made).
    """
    import jinja2
    from pygments.formatters import HtmlFormatter

    lang, words = facts["lang"], words_of(facts["lang"])
    markdown, contents = _markdown(folder, lang)
    parts, number = [], 0
    for block in blocks:
        if isinstance(block, Picture | Media):
            number += 1
            label = f"<b{_lang(lang)}>{words['figure']} {number}.</b>"
            parts.append(
                (_html_figure if isinstance(block, Picture) else _html_media)(block, label, folder, markdown, lang)
            )
        else:
            parts.append(_html_block(block, markdown, lang))
    wipes = any(isinstance(block, Media) and block.kind == "wipe" for block in blocks)
    wipe_style, script = wipe_parts() if wipes else ("", "")
    pygments = {
        "pygments_light": HtmlFormatter(style="default").get_style_defs(".highlight"),
        "pygments_dark": HtmlFormatter(style="github-dark").get_style_defs(".highlight"),
    }
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    ).get_template("index.html.j2")
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8") + wipe_style
    summary = markdown(facts["summary"]) if facts["summary"] else ""
    return template.render(
        **facts | {"summary": summary},
        body="\n".join(parts),
        contents=contents,
        style=style,
        script=script,
        words=words,
        **pygments,
    )


def _lang(lang: str) -> str:
    """The attribute of the report's own words, which stand between a notebook's English."""
    return "" if lang == "en" else f' lang="{lang}"'


def _markdown(folder: Path, lang: str) -> tuple[Callable[[str], str], list[tuple[str, str]]]:
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
            mark = ""
            if plain.strip() in HEADINGS.get(lang, {}):
                plain, mark = heading(plain, lang), _lang(lang)
                text = html.escape(plain)
            if level == 2:
                contents.append((anchor, plain))
            return f'<h{level} id="{html.escape(anchor)}"{mark}>{text}</h{level}>\n'

        def image(self, text: str, url: str, title: str | None = None) -> str:
            uri = embedded((folder / url).read_bytes())
            return f'<img src="{uri}" alt="{html.escape(text)}">'

        def block_code(self, code: str, info: str | None = None) -> str:
            return _highlighted(code, (info or "").split()[0] if info else "text")

    render = mistune.create_markdown(escape=True, renderer=Renderer(escape=True), plugins=["table", "strikethrough"])

    def markdown(text: str) -> str:
        page = str(render(text))
        table = words_of(lang)["table"]
        return re.sub(r"<table>.*?</table>", lambda found: _scrolled(found.group(), table), page, flags=re.DOTALL)

    return markdown, contents


def _numbered(base: str) -> Iterator[str]:
    yield base
    for number in range(2, 10_000):
        yield f"{base}-{number}"


def _scrolled(table: str, label: str) -> str:
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">{table}</div>'


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


def _caption(block: Picture | Media, label: str, markdown: Callable[[str], str]) -> str:
    caption = re.sub(r"^<p>|</p>$", "", markdown(block.caption).strip()) if block.caption else ""
    paths = block.paths if isinstance(block, Media) else [f"figures/{file}" for file in block.files]
    links = " ".join(f'<a href="{path}">{Path(path).suffix[1:].upper()}</a>' for path in paths)
    return f'<figcaption>{label} {caption} <span class="files">{links}</span></figcaption>'


def _html_figure(block: Picture, label: str, folder: Path, markdown: Callable[[str], str], lang: str) -> str:
    width, height = block.size()
    marks = " ".join(mark for mark, least in (("wide", 760), ("scrolls", 370)) if width > least)
    style = f'width="{width}" height="{height}" style="--width: {width}px"'
    file = (folder / "figures" / f"{block.name}.png").read_bytes()
    return (
        f'<figure id="figure-{block.name}" class="{marks}"><div class="scroll" tabindex="0">'
        f'<img src="{embedded(block.png, file)}" alt="{html.escape(block.alt)}" {style}></div>'
        f"{_caption(block, label, markdown)}</figure>"
    )


def _html_media(block: Media, label: str, folder: Path, markdown: Callable[[str], str], lang: str) -> str:
    data = [(folder / path).read_bytes() for path in block.paths]
    file = block.paths[0]
    words, (width, height), alt = words_of(lang), block.size, html.escape(block.alt)
    if block.kind == "wipe":
        shown = wipe_html(data, block.alt, block.labels, block.size, lang)
    elif block.kind == "video":
        # Safari plays no data URI: it takes the second source, the file beside the page.
        uri = "data:video/mp4;base64," + base64.b64encode(data[0]).decode()
        sources = [uri, file] if len(data[0]) <= EMBEDDED_MB * 1e6 else [file]
        shown = (
            f'<video controls loop muted playsinline preload="metadata" width="{width}" height="{height}" '
            f'poster="{embedded(data[1])}" aria-label="{alt}">'
            + "".join(f'<source src="{source}" type="video/mp4">' for source in sources)
            + f'<a href="{file}"{_lang(lang)}>{words["video"]}</a></video>'
        )
    else:
        size = f"{len(data[0]) / 1e6:.1f}"
        # Closed at first: nothing is loaded, no GPU runs and no finger is caught before the reader wants it, nor after.
        # (An iframe's own "lazy" does not wait for what it lies in to be opened.)
        toggled = "const f = this.querySelector('iframe'); f.src = this.open ? f.dataset.src : 'about:blank'"
        shown = (
            f'<img src="{embedded(data[1])}" alt="{alt}" width="{width}" height="{height}">'
            f'<details ontoggle="{toggled}"{_lang(lang)}><summary>{words["scene"].format(size=size)}</summary>'
            f'<iframe data-src="{file}" title="{alt}" allowfullscreen></iframe>'
            f'<a href="{file}">{words["scene_alone"]}</a></details>'
        )
    caption = _caption(block, label, markdown)
    return f'<figure id="figure-{block.name}" class="{block.kind}-figure">{shown}{caption}</figure>'


def wipe_parts() -> tuple[str, str]:
    """The style and the script that `wipe_html` needs, once a page."""
    return tuple((_TEMPLATES / f"wipe.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))


def wipe_html(pictures: Sequence[bytes], alt: str, labels: Sequence[str], size: Sequence[int], lang: str = "en") -> str:
    """Two pictures (PNG) under a divider; ``size`` is that of one, CSS pixels."""
    width, height = size
    sides = "".join(
        f'<div class="side"><img src="{embedded(png)}" alt="{html.escape(f"{label}: {alt}")}" width="{width}" '
        f'height="{height}" draggable="false"><span>{html.escape(label)}</span></div>'
        for png, label in zip(pictures, labels, strict=True)
    )
    label = html.escape(words_of(lang)["wipe"].format(left=labels[0], right=labels[1]))
    slider = f'<input type="range" min="0" max="100" value="50" aria-label="{label}"{_lang(lang)} hidden>'
    return f'<div class="wipe" style="--width: {width}px"><div class="stage">{sides}</div>{slider}</div>'


def _html_block(block: Block, markdown: Callable[[str], str], lang: str) -> str:
    words = words_of(lang)
    if isinstance(block, Prose):
        return markdown(block.text)
    if isinstance(block, Text):
        return f'<pre class="output" tabindex="0">{html.escape(block.text)}</pre>'
    if isinstance(block, Code):
        log = f'<pre class="output" tabindex="0">{html.escape(block.log)}</pre>' if block.log else ""
        return _folded(words["code"], f"{_highlighted(block.source, 'python')}{log}", lang)
    if isinstance(block, Settings):
        table = settings_table(block, words, lambda value, changed: value + (" *" if changed else ""))
        return _folded(words["parameters"], _html_table(table, words), lang)
    return _html_table(block, words)


def _folded(title: str, content: str, lang: str) -> str:
    return f"<details><summary{_lang(lang)}>{title}</summary>{content}</details>"


def settings_table(block: Settings, words: Mapping[str, str], written: Callable[[str, bool], str]) -> Table:
    """Parameters as a table; ``written(value, changed)`` is a value's text, from its JSON."""
    rows = [
        [name, written(json.dumps(value, ensure_ascii=False), changed), text]
        for name, value, text, changed in block.rows
    ]
    note = words["changed"] if any(row[3] for row in block.rows) else ""
    return Table([[words["parameter"], words["value"], ""]], rows, note, [False] * 3)


def _html_table(table: Table, words: Mapping[str, str]) -> str:
    def row(cells: list[str], tag: str) -> str:
        marks = [' class="number"' if number else "" for number in table.numeric] or [""] * len(cells)
        return "<tr>" + "".join(
            f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True)
        ) + "</tr>"  # fmt: skip

    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    head = "".join(row(cells, "th") for cells in table.head)
    body = "".join(row(cells, "td") for cells in table.body)
    return _scrolled(f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>", words["table"])
