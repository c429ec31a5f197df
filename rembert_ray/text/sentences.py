"""Cutting texts into sentences by the marks that end them, in any script. No model, no language.

Marks are those of Unicode's property Sentence_Terminal that are common in running text (UAX #29 gives the property, not
these rules). A mark of a script that writes spaces ends a sentence only before white space; one of a script without
them (Chinese, Japanese) ends it at once. A line break always ends one. Abbreviations are not known: "Dr. No" is cut in
two.
"""

from __future__ import annotations

import re

# Before white space: Latin, Armenian, Hebrew, Arabic, Devanagari, Ethiopic, Myanmar, Khmer.
_SPACED = ".!?…։׃؟۔।॥።፧፨။៕"
# At once: ideographic and full-width.
_UNSPACED = "。！？．｡"
_CLOSING = "\"'”’»›)\\]}」』）】〉》"
_END = re.compile(
    rf"[{_SPACED}]+[{_CLOSING}]*(?=\s)|[{_UNSPACED}]+[{_CLOSING}]*|[\r\n\u2028\u2029]+",
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Character ranges of the sentences, without white space around them; none for a text without characters.

    Every character that is no white space is in exactly one of them.
    """
    ends = [match.end() for match in _END.finditer(text)]
    ranges = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        part = text[start:end]
        first = start + len(part) - len(part.lstrip())
        last = start + len(part.rstrip())
        if first < last:
            ranges.append((first, last))
    return ranges
