"""HTML that shows and does nothing: what a notebook holds, made fit for a page of ours.

A notebook is a stranger's file. Its Markdown is rendered as Jupyter does it, its formulas as MathML, and
what comes out, like every HTML output, passes through one list of elements and attributes that may stay
(bleach): no script, style sheet, frame or form, no address that runs code, and no picture that is not in
the file itself. So a page of it loads nothing and runs nothing, wherever it is shown.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
import warnings
from collections.abc import Mapping
from html import escape
from typing import Any
from xml.etree import ElementTree

import bleach
from bleach.css_sanitizer import CSSSanitizer
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from hml_core.system import images


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TEXT = _words(
    """a abbr b blockquote br caption center cite code col colgroup dd del details div dl dt em
figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strike strong sub
summary sup table tbody td tfoot th thead tr tt u ul var"""
)
# No annotation-xml, mglyph or semantics: through these, other languages get into MathML.
_MATHML = _words(
    """math menclose merror mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom mroot mrow
mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover"""
)
_ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt", "width", "height", "title"},
    "caption": {"style"},
    "td": {"colspan", "rowspan", "align", "style"},
    "th": {"colspan", "rowspan", "align", "scope", "style"},
    "table": {"border", "style"},
    "div": {"align", "style"},
    "p": {"align", "style"},
    "span": {"style", "title"},
    "details": {"open"},
    "ol": {"start"},
}
_MATHML_ATTRIBUTES = _words(
    """accent accentunder close columnalign columnlines columnspacing depth display displaystyle fence form
    height linethickness lspace mathvariant maxsize minsize movablelimits notation open rowlines rowspacing
    rspace scriptlevel separator separators stretchy symmetric voffset width"""
)
PICTURES = {"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"}
_UPWARD = re.compile(r"(?:\.\./)+(.+)", re.S)
_CHILDREN = {
    "mfrac": 2, "mover": 2, "mroot": 2, "msub": 2, "msubsup": 3, "msup": 2, "munder": 2, "munderover": 3,
}  # fmt: skip
_EMBEDDED = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]+\Z")
# Their content is no text for a reader. (What keeps them from working is the list, not this.)
_WITHOUT_TEXT = re.compile(r"<(script|style|template|title)\b.*?(?:</\1\s*>|\Z)", re.S | re.I)


# What takes a parser time that grows with the square of it.
MOST_NESTED, MOST_WORDS = 2_000, 20_000
LEFT_OUT = "<p>(HTML of too many nested elements, or too many attributes, is left out.)</p>"
# (Nothing is given back: a long word without an end would be gone over for each of its letters.)
_TAG = re.compile(r"<(/?)([A-Za-z][\w:-]*+)([^<>]*+)>")
_NEED_NO_END = _words(
    """area base br col colgroup dd dt embed hr img input li link meta option p source tbody td tfoot th
thead tr track wbr"""
)


def _takes_long(html: str) -> bool:
    """Whether elements stand in each other, or attributes in one, beyond what anybody would look at."""
    depth = 0
    for is_end, name, rest in _TAG.findall(html):
        if not rest.endswith("/") and name.lower() not in _NEED_NO_END:
            depth = max(depth - 1, 0) if is_end else depth + 1
            if depth > MOST_NESTED:
                return True
    tags = (piece.partition(">")[0] for piece in html.split("<")[1:])
    return any(len(tag.split(None, MOST_WORDS)) > MOST_WORDS for tag in tags)


def _may_stay(tag: str, name: str, value: str) -> bool:
    if tag in _MATHML:
        return name in _MATHML_ATTRIBUTES
    if name not in _ATTRIBUTES.get(tag, ()):
        return False
    if name == "src":
        return bool(_EMBEDDED.match(value))
    return not (name == "href" and value.strip().lower().startswith("data:"))


_CLEANER = bleach.Cleaner(
    tags={*_TEXT, *_MATHML},
    attributes=_may_stay,
    protocols={"http", "https", "mailto", "data"},
    strip=True,
    css_sanitizer=CSSSanitizer(
        allowed_css_properties=[
            "background-color", "border", "color", "font-style", "font-weight", "padding", "text-align",
            "vertical-align", "white-space",
        ]
    ),
)  # fmt: skip


def sanitised(html: str) -> str:
    """The part of some HTML that shows something; what runs or loads is left out.

    >>> sanitised("<b onclick='x()'>bold</b><script>alert(1)</script><img src='https://a.b/c' alt='c'>")
    '<b>bold</b><img alt="c">'
    >>> sanitised("<a href='javascript:x()'>here</a> <svg><script>x()</script></svg>")
    '<a>here</a> '
    """
    if _takes_long(html):
        return LEFT_OUT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of text that looks like an address
        return _CLEANER.clean(_WITHOUT_TEXT.sub("", html))


def from_markdown(text: str, attachments: Mapping[str, Any] | None = None) -> str:
    """The HTML of a Markdown cell, as Jupyter shows it but for what :func:`sanitised` leaves out.

    A picture stands on the page if it is attached to the cell; of another the description is shown, with
    a link to it where it has an address. A link to a file beside the notebook's folder would lead nowhere:
    its text is shown, with the file's name.
    """
    renderer = _Renderer(
        escape=False, attachments=dict(attachments or {}), exclude_anchor_links=True
    )
    return sanitised(MarkdownWithMath(renderer=renderer).render(text))


def mathml(latex: str, display: str = "inline") -> str:
    """A formula as MathML, which browsers show without a script; its source where it is malformed.

    It is :func:`sanitised`: a formula may hold links (``\\href``).

    >>> mathml("x^2")[:5], mathml("x_")
    ('<math', '<code>x_</code>')
    """
    from latex2mathml.converter import convert

    try:
        result = convert(latex, display=display)
        if _is_whole(ElementTree.fromstring(result)):
            return sanitised(result)
    except Exception:  # latex2mathml raises IndexError, KeyError, RecursionError and its own
        pass
    return f"<code>{escape(latex.strip())}</code>"


def _is_whole(formula: ElementTree.Element) -> bool:
    """Whether no argument is missing and no command is left: latex2mathml passes both on."""
    for element in formula.iter():
        tag = element.tag.rpartition("}")[2]
        if len(element) != _CHILDREN.get(tag, len(element)):
            return False
        if tag != "mtext" and re.match(r"\\[A-Za-z]", element.text or ""):
            return False
    return True


def embedded(mime: str, data: Any) -> str:
    """A picture's address that holds the picture: a ``data:`` URI.

    Raises
    ------
    ValueError, ImageError
        For what is no picture of this kind.
    """
    if mime not in PICTURES or not isinstance(data, str):
        raise ValueError(f"no picture of a known kind: {mime}")
    if mime == "image/svg+xml" and "<" in data:
        if "<svg" not in data:
            raise ValueError("no SVG")
        content = data.encode()
    else:
        try:
            content = base64.b64decode("".join(data.split()), validate=True)
        except binascii.Error as error:
            raise ValueError(f"its data are damaged: {error}") from error
    if mime == "image/gif" and not content.startswith(b"GIF8"):
        raise ValueError("its data are damaged: no GIF")
    if mime not in ("image/svg+xml", "image/gif"):
        images.decode(content)
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


class _Renderer(IPythonRenderer):
    """Formulas as MathML; pictures that are attached, or their descriptions."""

    def block_math(self, body: str) -> str:
        return f"<p>{mathml(body, 'block')}</p>"

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        latex = rf"\begin{{{name}}}{body}\end{{{name}}}"
        return f"<p>{mathml(latex, 'block')}</p>"

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if (upward := _UPWARD.match(url)) is None:
            return super().link(text, url, title)
        file = escape(urllib.parse.unquote(upward[1]))
        return text if file in text else f"{text} ({file})"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        alt = text or title or ""
        if url.startswith("attachment:"):
            name = url.removeprefix("attachment:")
            bundle = self.attachments.get(name) or self.attachments.get(urllib.parse.unquote(name))
            for mime, data in (bundle if isinstance(bundle, Mapping) else {}).items():
                try:
                    return f'<img src="{embedded(mime, data)}" alt="{escape(alt)}">'
                except (ValueError, images.ImageError):
                    continue
            return f"<em>[a picture that is not in the notebook: {escape(alt or name)}]</em>"
        if _EMBEDDED.match(url):
            return f'<img src="{escape(url)}" alt="{escape(alt)}">'
        return self.link(f"[picture: {escape(alt or url[:80])}]", url)
