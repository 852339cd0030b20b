"""One seed per purpose, so that random draws for one purpose never shift those for another."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Derive the seed of one purpose from the seed of a run.

    Args:
        seed: Seed of the run, any integer.
        purpose: What the draws are for, such as ``"init"``, ``"mask"`` or ``"order", epoch``; parts are joined by
            ``/``.

    Returns:
        The first 63 bits of the SHA-256 of ``"{seed}/{purpose}/..."``, in ``[0, 2**63)``. Unlike `hash`, the result is
        the same on every machine and in every process.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
