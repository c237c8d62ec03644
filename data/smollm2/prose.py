"""English prose: the paragraphs of a text, without code, tables, headings and markup."""

import re
from collections.abc import Iterator

LEAST_WORDS = 12  # of a paragraph
LEAST_PLAIN = 0.8  # of the words are letters alone
LEAST_COMMON = 0.25  # of the words are among the most common ones of English
WORD = re.compile(
    r"[(\"'`\u201c\u2018]*[A-Za-z]+(?:['\u2019/-][A-Za-z]+)*[)\"'`\u201d\u2019,.;:!?]*"
)
SENTENCE_END = re.compile(r"[.!?][)\"'`\u201d\u2019]*$")
CODE = re.compile(r">>>|\.\.\. |::|==|->|[{}|\\<>~^]|[=*_#-]{4}|https?://")
ITEM = re.compile(r"\s*(?:[-*+\u2022]|\(?\w{1,3}[.)]|\[\w+\])\s+")  # of a list
MARKUP = (
    (re.compile(r":[\w:+-]+:`~?([^`<]*?)(?: ?<[^`]*>)?`"), r"\1"),  # :class:`~package.Name`
    (re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])"), r"\1"),  # [words](address)
    (re.compile(r"`([^`<]+?) ?<[^`]*>`__?"), r"\1"),  # `words <address>`_
    (re.compile(r" ?\[[\w#]+\]_"), ""),  # [1]_
    (re.compile(r"(?<=[\w`])__?(?=[\s.,;)])"), ""),  # words_
    (re.compile(r"\*\*([^*\s][^*]*)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^*\s](?:[^*]*[^*\s])?)\*(?![\w*])"), r"\1"),
    (re.compile(r"``"), "`"),
)
COMMON_WORDS = (
    "a an and are as at be been but by can do does for from has have if in is it its may must no"
    " not of on only or other should such than that the their then there these they this to was"
    " we when which will with you your"
)
COMMON = frozenset(COMMON_WORDS.split())


def without_markup(text: str) -> str:
    """Return text without the markup of reStructuredText and Markdown inside of its lines."""
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    return text


def runs(text: str) -> Iterator[list[str]]:
    """Yield runs of lines that stand together at one indentation; each item of a list is one."""
    run: list[str] = []
    depth = 0
    for line in text.expandtabs().splitlines():
        item = ITEM.match(line)
        content = line[item.end() :] if item else line.lstrip()
        indentation = len(line) - len(content)
        if run and (item or not content or indentation != depth):
            yield run
            run = []
        if content:
            run.append(content)
            depth = indentation
    if run:
        yield run


def is_prose(paragraph: str) -> bool:
    """Tell if a line of text reads as whole sentences of English."""
    words = paragraph.split()
    if len(words) < LEAST_WORDS or CODE.search(paragraph):
        return False
    if not paragraph[0].isupper() or not SENTENCE_END.search(paragraph):
        return False
    plain = sum(WORD.fullmatch(word) is not None for word in words)
    common = sum(word.lower().strip("(\"'`,.;:!?)") in COMMON for word in words)
    return plain >= LEAST_PLAIN * len(words) and common >= LEAST_COMMON * len(words)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of prose in a text, one line each."""
    joined = (" ".join(" ".join(run).split()) for run in runs(without_markup(text)))
    return [paragraph for paragraph in joined if is_prose(paragraph)]
