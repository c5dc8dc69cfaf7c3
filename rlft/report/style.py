"""How figures look: one palette, few lines, no boxes. In SVG the colours follow the page's light or dark theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.style import context

INK, MUTED, GRID = "#23292f", "#69737d", "#dfe3e7"
BEFORE, AFTER, ACCENT = "#8a97a6", "#0e7c74", "#c4812b"

# What each colour becomes inside a page; the variables are defined in template.html.
THEME = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)", BEFORE: "var(--before)",
         AFTER: "var(--after)", ACCENT: "var(--accent)"}  # fmt: skip
RC = {
    "font.family": ["DejaVu Sans"], "font.size": 9.0, "text.color": INK,
    "axes.edgecolor": GRID, "axes.facecolor": "none", "axes.labelcolor": MUTED, "axes.labelsize": 8.5,
    "axes.titlecolor": INK, "axes.titlesize": 10.0, "axes.titlelocation": "left", "axes.titlepad": 9.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.7,
    "xtick.color": MUTED, "xtick.labelsize": 8.0, "xtick.major.size": 0.0,
    "ytick.color": MUTED, "ytick.labelsize": 8.0, "ytick.major.size": 0.0,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
    "legend.frameon": False, "legend.fontsize": 8.0, "legend.labelcolor": INK,
    "svg.fonttype": "path",  # glyphs as outlines: the layout was computed for this font, the reader may not have it
}  # fmt: skip


def render_png(draw: Callable[[Figure], None], size: tuple[float, float], dpi: int) -> bytes:
    """Draw a figure and encode it.

    Args:
        draw: fills the figure.
        size: width and height, inches.
        dpi: pixels per inch.
    """
    with context(RC):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def render_svg(name: str, draw: Callable[[Axes], None], size: tuple[float, float]) -> str:
    """Draw one set of axes as an SVG element for a page; its title becomes the label that is read out.

    Args:
        name: letters and digits, unique within the page: it prefixes every id, and makes the ids reproducible.
        draw: fills the axes.
        size: width and height, inches.
    """
    with context({**RC, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # The element alone, with ids of its own and colours of the page's theme.
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    label = escape(axes.get_title(loc="left"), quote=True)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
