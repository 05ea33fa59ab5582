"""Blocks to Markdown with front matter, for GitHub and for blogs; figures lie beside it in ``figures/``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .blocks import Block, Code, Media, Picture, Prose, Settings, Table, Text
from .pages import settings_table
from .words import translated, words_of

FLAVORS = ("plain", "hugo", "jekyll", "quarto")


def check_flavor(flavor: str) -> None:
    """Raises InputError for a flavour that is not known."""
    if flavor not in FLAVORS:
        raise InputError(f"{flavor!r} is unknown", field="flavor", remedy=f"use one of {', '.join(FLAVORS)}")


def markdown_page(blocks: list[Block], facts: dict[str, Any]) -> str:
    """The report as Markdown with front matter; figures are linked in ``figures/``.

    Args:
        facts: as for `html_page`, with ``tags`` and ``flavor``. The flavours differ where the programs do. Hugo drops
            HTML, so what folds is its shortcode ``details`` (Hugo 0.140 or later), and takes a page among a post's
            files for content, so of a scene there is the picture only (put its page below ``static/`` and link it).
            Jekyll reads Markdown inside HTML only where told to, and braces in code as its own template language
            unless told not to. Quarto calls tags categories, and would print an alt text as a second caption.
    """
    lang, flavor = facts["lang"], facts["flavor"]
    words = words_of(lang)
    parts, number = [_front_matter(facts)], 0
    if flavor == "jekyll":
        parts.append("{% raw %}")
    if facts["summary"]:
        parts.append(facts["summary"])
    for block in blocks:
        if isinstance(block, Picture | Media):
            number += 1
            parts.append(_picture(block, flavor) if isinstance(block, Picture) else _media(block, flavor))
            parts.append(f"**{words['figure']} {number}.** {block.caption}".rstrip())
        elif isinstance(block, Prose):
            parts.append(translated(block.text.strip(), lang))
        elif isinstance(block, Text):
            parts.append(_fenced(block.text))
        elif isinstance(block, Code):
            log = "\n\n" + _fenced(block.log) if block.log else ""
            parts.append(_folded(words["code"], _fenced(block.source, "python") + log, flavor))
        elif isinstance(block, Settings):
            table = settings_table(block, words, lambda value, changed: f"`{value}`" + (" *" if changed else ""))
            parts.append(_folded(words["parameters"], _table(table), flavor))
        else:
            parts.append(_table(block))
    parts.append(f"---\n\n{facts['made']}")
    if flavor == "jekyll":
        parts.append("{% endraw %}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: Mapping[str, Any]) -> str:
    front = {
        "title": facts["title"], "date": facts["date"], "description": re.sub(r"[*`]", "", facts["summary"]),
        "categories" if facts["flavor"] == "quarto" else "tags": list(facts["tags"]), "lang": facts["lang"],
    }  # fmt: skip
    # JSON is YAML.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items() if value]
    return "\n".join(["---", *lines, "---"])


def _picture(block: Picture, flavor: str) -> str:
    return _image(block.alt, f"figures/{block.name}.png", flavor)


def _image(alt: str, target: str, flavor: str) -> str:
    if flavor == "quarto":
        quoted = alt.replace("\\", "\\\\").replace('"', '\\"')
        return f'![]({target}){{fig-alt="{quoted}"}}'
    return f"![{_escaped(alt)}]({target})"


def _media(block: Media, flavor: str) -> str:
    """Two pictures of a wipe side by side; of a video or a scene a picture that leads to it."""
    if block.kind == "wipe":
        images = [
            _image(f"{label}: {block.alt}", path, flavor).replace("|", "\\|")
            for label, path in zip(block.labels, block.paths, strict=True)
        ]
        return _table(Table([block.labels], [], "", [False] * 2)) + f"\n| {' | '.join(images)} |"
    file, poster = block.paths
    image = _image(block.alt, poster, flavor)
    if flavor == "hugo" and block.kind == "scene":
        return image
    return f"[{image}]({file}) [{_escaped(Path(file).suffix[1:].upper())}]({file})"


def _escaped(alt: str) -> str:
    return re.sub(r"([\[\]])", r"\\\1", alt)


def _folded(title: str, content: str, flavor: str) -> str:
    if flavor == "hugo":
        return f'{{{{< details summary="{title}" >}}}}\n\n{content}\n\n{{{{< /details >}}}}'
    mark = ' markdown="1"' if flavor == "jekyll" else ""
    return f"<details{mark}><summary>{title}</summary>\n\n{content}\n\n</details>"


def _fenced(text: str, language: str = "text") -> str:
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"{fence}{language}\n{text}\n{fence}"


def _table(table: Table) -> str:
    def row(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    # Markdown has one heading row: of several, the words of each column are joined.
    head = [" ".join(word for word in column if word) for column in zip(*table.head, strict=True)]
    head = head or [""] * len(table.numeric)
    rule = "|" + "|".join("---:" if number else "---" for number in table.numeric) + "|"
    lines = [row(head), rule, *(row(cells) for cells in table.body)]
    caption = table.caption.replace("*", "\\*")
    return "\n".join(lines) + (f"\n\n*{caption}*" if caption else "")
