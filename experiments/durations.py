"""Time spans in words, the same in every command."""

from __future__ import annotations


def words(seconds: float) -> str:
    """Say a time span in its two largest units: "45 s", "12 min", "3 h 20 min", "2 days 4 h"."""
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"
