"""Formulas of docstrings as a terminal can show them."""
# ruff: noqa: RUF001 (letters of Greek are meant)

import re

SYMBOLS = {
    "sum": "Σ", "prod": "Π", "in": "∈", "notin": "∉", "cup": "∪", "setminus": "∖", "propto": "∝", "le": "≤", "ge": "≥",
    "ne": "≠", "approx": "≈", "leftarrow": "←", "to": "→", "cdot": "·", "times": "x", "odot": "⊙", "otimes": "⊗",
    "mid": "|", "lVert": "‖", "rVert": "‖", "Vert": "‖", "dots": "...", "top": "ᵀ", "infty": "∞", "sqrt": "√",
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η", "theta": "θ", "lambda": "λ",
    "mu": "μ", "nu": "ν", "xi": "ξ", "phi": "φ", "sigma": "σ", "tau": "τ", "Sigma": "Σ",
    "mathrm": "", "text": "", "mathbb": "", "operatorname": "", "left": "", "right": "", "big": "", "Big": "",
}  # fmt: skip
GROUP = re.compile(r"\{([^{}]*)\}")


def plain(formula: str) -> str:
    r"""Return a formula of LaTeX as plain text: letters of Greek, names of functions, no backslash and no brace.

    Args:
        formula: What stands within `:math:` of a docstring.

    Example:
        >>> plain(r"-\sum_c p_c \log p_c"), plain(r"1 - (p_{(1)} - p_{(2)})"), plain(r"\frac{1}{n}")
        ('-Σ_c p_c log p_c', '1 - (p_(1) - p_(2))', '(1)/(n)')
    """
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)", formula)
    text = re.sub(r"\\[,;:! ]|\\q?quad", " ", text).replace(r"\{", "(").replace(r"\}", ")")
    text = re.sub(r"\\([A-Za-z]+)", lambda found: SYMBOLS.get(found[1], found[1]), text)
    while GROUP.search(text):
        text = GROUP.sub(r"\1", text)
    return " ".join(text.split())


def without_latex(text: str) -> str:
    """Return text in which each formula is as `plain` writes it."""
    return re.sub(r":math:`([^`]*)`", lambda found: plain(found[1]), text)
