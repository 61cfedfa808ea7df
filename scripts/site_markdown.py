"""What the site's Markdown has beyond the usual: formulas as MathML, flowcharts as SVG, doctests as code.

Given to Zensical as an extension of Python-Markdown in docs/zensical.toml, and so for docstrings, too. Formulas are
`$...$` and `$$...$$` in pages, and `:math:` and `.. math::` in docstrings.
"""

import html
import re
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from site_diagrams import draw

FENCE = re.compile(r"^ *(`{3,}|~{3,})")
BLOCK = re.compile(r"^(?P<indent> *)\$\$(?P<formula>.+?)\$\$ *$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^(?P<indent> *)\.\. math::(?P<formula>.*(?:\n *\S.*)*)", re.MULTILINE)


def mathml(formula: str, display: str) -> str:
    """Return a formula of LaTeX as MathML."""
    text = " ".join(formula.split()).replace(r"\arg", r"\operatorname{arg}")
    found = convert(re.sub(r"(\\[bB]igg?[lr]?)\\[lr]Vert", r"\1\\Vert", text), display=display)
    return found.replace(r">\Vert<", ">&#x2016;<")  # which the converter leaves as it is behind `\Big`


def diagram(source: str, language: str, css_class: str, options: dict[str, Any], md: Markdown, **_: Any) -> str:
    """Draw a fence of mermaid."""
    return f'<div class="diagram">{draw(source)}</div>'


class Doctests(Preprocessor):
    """Make code of lines that begin with `>>>`, which would be quotes."""

    def run(self, lines: list[str]) -> list[str]:
        """Fence them."""
        result: list[str] = []
        fenced = inside = False
        for line in lines:
            fenced ^= bool(FENCE.match(line))
            begins = not fenced and not inside and line.lstrip().startswith(">>> ")
            ends = inside and not line.strip()
            indent = line[: len(line) - len(line.lstrip())] if begins else ""
            if begins:
                result += ["", f"{indent}```pycon"]
                margin = indent
            if ends:
                result.append(f"{margin}```")
            inside = (inside or begins) and not ends
            result.append(line)
        return [*result, f"{margin}```"] if inside else result


class Blocks(Preprocessor):
    """Put formulas that stand alone into blocks; fences are out of the way by then."""

    def run(self, lines: list[str]) -> list[str]:
        """Replace them."""
        text = DIRECTIVE.sub(self.block, BLOCK.sub(self.block, "\n".join(lines)))
        return text.split("\n")

    def block(self, found: re.Match[str]) -> str:
        """Keep a formula's MathML, and return what stands for it."""
        kept = self.md.htmlStash.store(f'<div class="formula">{mathml(found["formula"], "block")}</div>')
        return f"\n{found['indent']}{kept}\n"


class Inline(InlineProcessor):
    """A formula within a line."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element | str, int, int]:  # type: ignore[override]
        """Keep its MathML, and return what stands for it."""
        return self.md.htmlStash.store(mathml(html.unescape(m[1]), "inline")), m.start(0), m.end(0)


class SiteMarkdown(Extension):
    """All of it."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register what is above."""
        md.preprocessors.register(Doctests(md), "doctests", 30)
        md.preprocessors.register(Blocks(md), "formulas", 20)
        md.inlinePatterns.register(Inline(r":math:`([^`]+)`", md), "math_role", 195)
        md.inlinePatterns.register(
            Inline(r"(?<![\\$\w])\$(?![\s$])((?:[^$\\]|\\.)+?)(?<!\s)\$(?![\w$])", md), "math", 185
        )


def makeExtension(**options: Any) -> SiteMarkdown:
    """Return the extension, as Python-Markdown asks for it."""
    return SiteMarkdown(**options)
