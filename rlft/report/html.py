"""HTML in small safe pieces: text is escaped where it enters, so nothing from a config can become markup.

A :class:`Markup` is finished HTML; a plain string is text. Every helper escapes text and passes markup through.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape

from rlft.report.page_style import CSS

# No scripts at all, and nothing from anywhere: only what the file itself holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"


class Markup(str):
    """HTML that is already safe."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Escape, unless it is markup already."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def element(name: str, *children: object, attributes: Mapping[str, str] | None = None) -> Markup:
    """``<name attributes>children</name>``; children and attribute values are escaped."""
    written = "".join(f' {key}="{escape(value, quote=True)}"' for key, value in (attributes or {}).items())
    return Markup(f"<{name}{written}>{''.join(map(text, children))}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Put pieces one after the other."""
    return Markup("\n".join(map(text, parts)))


def table(rows: Iterable[Iterable[object]], head: Iterable[object] = (), caption: str = "") -> Markup:
    """A table; cells that hold numbers stand right.

    Args:
        rows: the first cell of a row is its heading.
        head: column headings; empty for none.
        caption: a line above it; empty for none.
    """
    lines = [element("caption", caption)] if caption else []
    headings = [element("th", cell, attributes={"scope": "col"}) for cell in head]
    if headings:
        lines.append(element("tr", *headings))
    for first, *others in rows:
        lines.append(element("tr", element("th", first, attributes={"scope": "row"}), *map(_cell, others)))
    return element("table", *lines)


def tile(value: str, label: str) -> Markup:
    """One large number with what it is."""
    return element("div", element("b", value), element("span", label), attributes={"class": "tile"})


def block(kind: str, *children: object) -> Markup:
    """A ``div`` of the style sheet's class ``kind``."""
    return element("div", *children, attributes={"class": kind})


def paragraph(kind: str, *children: object) -> Markup:
    """A ``p`` of the style sheet's class ``kind`` (``muted``, ``warning``)."""
    return element("p", *children, attributes={"class": kind})


def figure(content: Markup, caption: object = "") -> Markup:
    """A picture or video, with a caption below it unless that is empty."""
    return element("figure", content, element("figcaption", caption) if caption else "")


def video(mp4: bytes, label: str) -> Markup:
    """A looping, silent, self-contained video.

    Args:
        mp4: the file.
        label: read out by screen readers.
    """
    source = data_url("video/mp4", mp4)
    flags = {"controls": "", "loop": "", "muted": "", "autoplay": "", "playsinline": ""}
    return element("video", attributes={"src": source, "aria-label": label, **flags})


def data_url(mime: str, content: bytes) -> str:
    """The content itself as an address."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def page(title: str, body: Markup) -> str:
    """The whole document."""
    head = join(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", title),
            Markup(f"<style>{CSS}</style>"),
        ]
    )
    content = f"<head>\n{head}\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>"
    return f'<!doctype html>\n<html lang="en">\n{content}\n</html>\n'


def _cell(value: object) -> Markup:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return element("td", value, attributes={"class": "number"})
    return element("td", value)
