"""What the keys of HAM and SAM mean, in the words of the optimizers' own docstrings."""

from __future__ import annotations

import inspect
from dataclasses import replace

from ham import HAM, SAM

from .described import DescribedKey, arguments


def meaning_of(key: DescribedKey) -> str:
    """Return the meaning of a key, from the optimizer that has the option where it is one of an optimizer's."""
    for prefix, cls in (("optimizer.ham.", HAM), ("optimizer.sam.", SAM)):
        if key.path.startswith(prefix):
            return arguments(inspect.getdoc(cls) or "").get(key.path.removeprefix(prefix), key.meaning)
    return key.meaning


def with_words_of_optimizers(key: DescribedKey) -> DescribedKey:
    """Return the key with that meaning."""
    return replace(key, meaning=meaning_of(key))
