"""Text as LaTeX that pdflatex sets without further packages, whatever letters it has."""

from __future__ import annotations

import unicodedata

from .values import FIGURE_SPACE

MISSING = "U+ with a number stands for a character that the standard fonts of LaTeX do not have."

_TEXT = {
    **{char: rf"\{char}" for char in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"[": "{[}", "*": "{*}"},  # after \\ they would be read as its arguments
    **{"–": "--", "—": "---", "⁄": "/", "‐": "-", "‑": "-", "…": r"\dots{}", "•": r"$\bullet$"},
    **{"‘": "`", "’": "'", "“": "``", "”": "''", '"': "''", "„": ",,", "«": r"$\ll$", "»": r"$\gg$"},
    **{"¡": "!`", "¿": "?`", "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}"},
    **{"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}"},
    **{"ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "ȷ": r"\j{}"},
    FIGURE_SPACE: r"\phantom{0}",
    "\u00a0": "~",
}
_MATH = {
    **{"±": "pm", "∓": "mp", "×": "times", "÷": "div", "·": "cdot", "⋅": "cdot", "⊙": "odot", "⊕": "oplus"},
    **{"⊗": "otimes", "∗": "ast", "∘": "circ", "°": "circ", "⋆": "star", "†": "dagger", "‡": "ddagger", "′": "prime"},
    **{"≤": "leq", "≥": "geq", "≠": "neq", "≈": "approx", "≡": "equiv", "∼": "sim", "∝": "propto", "≪": "ll"},
    **{"≫": "gg", "→": "rightarrow", "←": "leftarrow", "↔": "leftrightarrow", "↑": "uparrow", "↓": "downarrow"},
    **{"⇒": "Rightarrow", "⇐": "Leftarrow", "⇔": "Leftrightarrow", "↦": "mapsto", "∞": "infty", "∈": "in"},
    **{"∉": "notin", "∋": "ni", "⊂": "subset", "⊆": "subseteq", "⊃": "supset", "∪": "cup", "∩": "cap"},
    **{"∅": "emptyset", "∀": "forall", "∃": "exists", "¬": "neg", "∧": "wedge", "∨": "vee", "∑": "sum"},
    **{"∏": "prod", "∫": "int", "√": "surd", "∂": "partial", "∇": "nabla", "⊥": "perp", "∥": "parallel"},
    **{"‖": "Vert", "⟨": "langle", "⟩": "rangle", "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil"},
    **{"ℓ": "ell", "ℏ": "hbar", "ℜ": "Re", "ℑ": "Im", "ℵ": "aleph", "µ": "mu", "ϕ": "phi", "φ": "varphi"},
    **{"ϵ": "epsilon", "ε": "varepsilon", "ϑ": "vartheta", "ϱ": "varrho", "ς": "varsigma", "ϖ": "varpi"},
}
_ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."},
    **{"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b"},
}
_LETTERS = "alpha beta gamma delta zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon chi psi omega"
_CAPITALS = "gamma delta theta lambda xi pi sigma upsilon phi psi omega"
_LATIN = [
    "A",
    "B",
    "E",
    "Z",
    "H",
    "I",
    "K",
    "M",
    "N",
    "O",
    "P",
    "T",
    "X",
]  # capitals of Greek that LaTeX has as Latin ones
_ROMAN = ["ALPHA", "BETA", "EPSILON", "ZETA", "ETA", "IOTA", "KAPPA", "MU", "NU", "OMICRON", "RHO", "TAU", "CHI"]
_RAISED = {"<super>": "^", "<sub>": "_"}


def tex(text: str) -> str:
    """Write text as LaTeX in ASCII; a character that it cannot set is its number, see `MISSING`."""
    written = "".join(map(_char, unicodedata.normalize("NFC", text)))
    return written.replace(r" \%", r"~\%")


def is_missing(written: str) -> bool:
    """Return whether something that `tex` has written holds a number in place of a character."""
    return r"\texttt{U+" in written


def _char(char: str) -> str:
    if char in _TEXT:
        return _TEXT[char]
    if char in _MATH:
        return f"${'^' if char in '°†‡′' else ''}\\{_MATH[char]}$"
    if char == "−":
        return "$-$"
    if char.isascii():
        return char if char.isprintable() else " "
    return _greek(char) or _composed(char) or _rest(char)


def _greek(char: str) -> str:
    name = unicodedata.name(char, "").split()
    if name[:1] != ["GREEK"] or len(name) != 4 or name[2] != "LETTER":
        return ""
    if name[1] == "SMALL":
        letter = {"lamda": "lambda", "final": ""}.get(name[3].lower(), name[3].lower())
        return "o" if letter == "omicron" else rf"$\{letter}$" if letter in _LETTERS.split() else ""
    if name[3] in _ROMAN:
        return _LATIN[_ROMAN.index(name[3])]
    letter = {"lamda": "lambda"}.get(name[3].lower(), name[3].lower())
    return rf"$\{letter.capitalize()}$" if letter in _CAPITALS.split() else ""


def _composed(char: str) -> str:
    """Write a letter with an accent, and a letter or digit in another form."""
    parts = unicodedata.decomposition(char).split()
    if not parts:
        return ""
    form = parts.pop(0) if parts[0].startswith("<") else ""
    inner = [chr(int(part, 16)) for part in parts]
    if form in _RAISED:
        written = "".join(map(_char, inner))
        return "" if is_missing(written) else f"${_RAISED[form]}{{\\mbox{{\\scriptsize {written}}}}}$"
    if form:
        return "".join(map(_char, inner))
    base, *marks = inner
    written = {"i": r"\i{}", "j": r"\j{}"}.get(base) or _char(base)
    for mark in marks:
        if mark not in _ACCENTS:
            return ""
        written = rf"\{_ACCENTS[mark]}{{{written}}}"
    return written


def _rest(char: str) -> str:
    kind = unicodedata.category(char)
    if kind in ("Zs", "Zl", "Zp", "Cc"):
        return " "
    if kind in ("Cf", "Mn", "Me"):  # marks without a width, on what has been written
        return ""
    return rf"\texttt{{U+{ord(char):04X}}}"
