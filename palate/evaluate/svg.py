"""Matplotlib figures as SVG elements that belong to the page they stand in.

Colours are placeholders that become CSS variables (``--ink``, ``--muted``, ``--line``, ``--accent``,
``--bar``, ``--page``, and ``--sans`` for the font), so a figure follows the light or dark scheme of its
page. Text stays text.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from contextlib import AbstractContextManager

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 460
"""Units; at this width text reads well on a phone too."""
INK, MUTED, LINE, ACCENT, BAR, PAGE = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_REFERENCE = re.compile(r"(?<=href=\"#)[\w-]+|(?<=url\(#)[\w-]+")
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", BAR: "bar", PAGE: "page"}


def style() -> AbstractContextManager[None]:
    """Inside it, figures have the settings that ``svg`` counts on."""
    return rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "palate",
            "text.parse_math": False,
            "font.family": "DejaVu Sans",
            "font.size": 12,
        }
    )


def figure_with_axes(
    height: int, *, left: int, right: int, bottom: int, top: int = 10
) -> tuple[Figure, Axes]:
    """An empty figure of the usual width with bare axes; height and margins in units."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    FigureCanvasSVG(figure)
    box = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    axes = figure.add_axes(box)
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=6, colors=MUTED)
    return figure, axes


def svg(figure: Figure, words: str) -> Markup:
    """The figure as an element of an HTML page, with ``words`` as its text alternative.

    It has no style of its own, and only ids that it refers to itself (see ``numbered``).
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text, so it does not matter which glyphs the measuring font has.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", transparent=True)
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("xlink:href", "href")
    drawn = re.sub(r"font(?:-family)?: ((?:(?:bold|[\d.]+px|\d+) )*)'[^;\"]*", _page_font, drawn)
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(f": {colour}", f": var(--{variable})")
    drawn = _without_idle_ids(drawn)
    height = round(figure.get_figheight() * 72)
    opening = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(words)}">'
    drawn = re.sub(r"^<svg[^>]*>", lambda _: opening, drawn)
    return Markup(re.sub(r"\s*\n\s*", " ", drawn).strip())  # noqa: S704  (Matplotlib escapes all text)


def _page_font(found: re.Match[str]) -> str:
    return f"font: {found[1]}var(--sans)" if found[1] else "font-family: var(--sans)"


def _without_idle_ids(drawn: str) -> str:
    """Only ids that something refers to stay."""
    used = set(_REFERENCE.findall(drawn))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", drawn)


def numbered(drawn: Markup, number: int) -> Markup:
    """The element with ids of its own, where several stand on one page: each has another number."""
    named = re.sub(r'(?<= id=")[\w-]+', lambda found: f"picture{number}-{found[0]}", str(drawn))
    return Markup(_REFERENCE.sub(lambda found: f"picture{number}-{found[0]}", named))  # noqa: S704
