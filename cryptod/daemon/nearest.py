"""The word that was meant: which of some known words differs from a text by one letter.

Knows letters. What is looked up was worked out before, so that a text costs a few look-ups however many words there are: two words differ
by one letter that is missing, wrong, swapped with its neighbour or too many where they are equal once a letter is left out of one or both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

LONGEST: Final = 32
"""Letters of a text; a longer one is near to nothing."""


class Nearest:
    """The ``words``, in the order in which they are preferred."""

    def __init__(self, words: Iterable[str]) -> None:
        self._near: dict[str, tuple[str, ...]] = {}
        for word in dict.fromkeys(words):
            for key in {word, *_shorter(word)}:
                self._near[key] = (*self._near.get(key, ()), word)

    def find(self, text: str, most: int = 1) -> list[str]:
        """The words that are near, the nearest first; at most so many."""
        if not 1 < len(text) <= LONGEST:
            return []
        found: Counter[str] = Counter()
        for key in {text, *_shorter(text)}:
            found.update(word for word in self._near.get(key, ()) if len(word) > 1)
        for end in range(len(text) - 1, 2, -1):  # a word with more behind it
            found.update(word for word in self._near.get(text[:end], ()) if word == text[:end])
        return [word for word, _ in found.most_common(most)]


def _shorter(word: str) -> Iterator[str]:
    return (word[:i] + word[i + 1 :] for i in range(len(word)))
