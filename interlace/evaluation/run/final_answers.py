"""The final answer of a long text: an option's letter, a phrase, or yes or no. No torch here.

Rules that expect an answer alone misread reasoning: lmms-eval takes the first letter of "Based on
the picture" for option B, and "The answer is B." for no option of AI2D. So the final answer is
found first, and then scored by lmms-eval's rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

STATED = 400  # characters of a statement; a looping model may make thousands
_STATED = re.compile(  # "the correct answer is", "Answer:", "Final option -"
    r"\b(?:answer|option|choice)\b(?:\s+(?:to|for|from|among)\b[^.:\n]{0,80}?)?"
    r"\s*[*_]*\s*(?:\b(?:is|would be|should be|must be)\b\s*[:=]?|[:=])\s*",
    re.IGNORECASE,
)
_OPENED = r"(?:[\s*_$:\"'`(\[{]|\\(?:boxed|text|textbf|mathrm|mathbf|\()|option\b|choice\b)*"
# "A" before a word is an article, but for these words
_LETTER = (
    r"([A-J])(?![A-Za-z0-9'\u2019])(?!(?<=A)\s+(?!because|since|as\b|for\b|and\b|or\b|is\b)[a-z])"
)
_LETTER_AT_START = re.compile(rf"{_OPENED}{_LETTER}")
_BOXED = re.compile(
    r"\\boxed\{\s*((?:[^{}]|\{[^{}]*\})*)\}|<answer>\s*(.*?)\s*</answer>", re.DOTALL
)
_ALONE = re.compile(rf"(?<![A-Za-z0-9'\u2019]){_LETTER}")
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_DRESSING = re.compile(r"^[\s*_\"'`(\[]+|[\s*_\"'`)\]]+$")
_FORMULA = re.compile(r"^\$(.*)\$$|^\\\((.*)\\\)$", re.DOTALL)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\{([^{}]*)\}")
_SENTENCE_END = re.compile(r"(?<=[^\s.])(?<!\bSt)(?<!\bMr)(?<!\bMrs)(?<!\bDr)[.!](?=\s|$)|\n")


def final_option(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a text ends on; None if it names none or several.

    In this order: the last letter, or words of an option, that is stated as the answer or boxed;
    the only option that has a line to itself; the only letter that stands alone; the only option
    whose words are in the text.

    Args:
        text: of a model, without reasoning between tags.
        options: the words of each option by its letter; empty: A to D, of unknown words.
    """
    letters = set(options or "ABCD")
    for words in reversed(_statements(text)):
        if (match := _LETTER_AT_START.match(words)) and match[1] in letters:
            return str(match[1])
        if letter := _by_words(_first_sentence(words), options):
            return letter
    lines = [letter for line in text.splitlines() if (letter := _line_option(line, options))]
    for mentions in (lines, _ALONE.findall(text)):
        choices = set(mentions) & letters
        if len(choices) == 1:
            return str(choices.pop())
    return _by_words(text, options)


def _line_option(line: str, options: Mapping[str, str]) -> str | None:
    """Return the option that a line names and nothing else: "B", "**B. blue car**"."""
    if not (match := _LETTER_AT_START.match(line)):
        return None
    rest = line[match.end() :].strip(" .:,)]}*_$-").casefold()
    return str(match[1]) if rest in ("", options.get(match[1], "").casefold()) else None


def final_phrase(text: str) -> str:
    """Return the words that are stated last as the answer; the text itself if none are."""
    statements = _statements(text)
    if not statements:
        return text.strip("*_ \n")
    phrase = _first_sentence(statements[-1]).strip(" *_").rstrip(".")
    formula = _FORMULA.match(phrase)
    phrase = formula[1] or formula[2] or "" if formula else _bare(phrase)
    return _WRAPPED.sub(r"\1", phrase).strip().rstrip(".")


def final_yes_or_no(text: str) -> str | None:
    """Return yes or no: as stated last, else the first word, else the only one in the text."""
    stated = [match[1] for words in _statements(text) if (match := _YES_OR_NO.match(_bare(words)))]
    if stated:
        return stated[-1].lower()
    if match := _YES_OR_NO.match(_bare(text)):
        return match[1].lower()
    words = {word.lower() for word in _YES_OR_NO.findall(text)}
    return words.pop() if len(words) == 1 else None


def _statements(text: str) -> list[str]:
    """Return what follows each statement of an answer, and what each box holds, in order."""
    statements = [
        (match.start(), text[match.end() : match.end() + STATED])
        for match in _STATED.finditer(text)
    ]
    statements += [(match.start(), match[1] or match[2] or "") for match in _BOXED.finditer(text)]
    return [words for _, words in sorted(statements, key=lambda item: item[0])]


def _first_sentence(words: str) -> str:
    return _SENTENCE_END.split(words.strip(), maxsplit=1)[0]


def _bare(text: str) -> str:
    return _DRESSING.sub("", text)


def _by_words(text: str, options: Mapping[str, str]) -> str | None:
    """Return the only option whose words are in a text; "car" is not in "blue car" if both are."""
    choices = []
    for letter, words in sorted(options.items(), key=lambda item: -len(item[1])):
        pattern = rf"(?<!\w){re.escape(words)}(?!\w)"
        text, count = re.subn(pattern, " ", text, flags=re.IGNORECASE) if words else (text, 0)
        choices += [letter] if count else []
    return choices[0] if len(choices) == 1 else None
