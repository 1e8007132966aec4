"""How an exchange pages: what its answers have shown about how much one of them can hold and how far back they reach.

Pure. Nothing is believed because documentation says so: how many rows one answer can hold is the most that one has held,
and how many hours it can span is the most that one has spanned. Both only grow, so they are never above the truth.
"""

from __future__ import annotations

from typing import Any, Final

from cryptod.market import Int64, Timeframe

DAY_MS: Final = 86_400_000


class Paging:
    """``asked`` is how many rows to ask for; ``saved`` is what `facts` gave in an earlier run."""

    def __init__(self, asked: int, saved: dict[str, Any] | None = None) -> None:
        saved = saved or {}
        self.asked = max(1, asked)
        self.rows: int = saved.get("rows", 0)
        """The most rows that came with one answer."""
        self.hours: int = saved.get("hours", 0)
        """The most hours that one answer spanned, from its first row to its last."""
        self.overnight: bool = saved.get("overnight", False)
        """Whether an answer had rows on both sides of midnight UTC; some exchanges give a day and no more."""
        self.accepted: int = saved.get("accepted", 0)
        self.refused: int = saved.get("refused", 0)
        """Hours of age: the oldest question that was answered and the youngest that was refused as too old (0: none)."""

    def facts(self) -> dict[str, Any]:
        """What to keep for the next run."""
        return {
            "rows": self.rows, "hours": self.hours, "overnight": self.overnight,
            "accepted": self.accepted, "refused": self.refused if self.accepted else 0,
        }  # fmt: skip

    @property
    def sure(self) -> int:
        """So many rows the exchange gives when it is asked for them and has them."""
        return max(1, min(self.asked, self.rows))

    def reach(self, since: int, limit: int, timeframe: Timeframe) -> int:
        """So many hours from ``since`` on are within the window of an answer that was asked for ``limit`` rows."""
        hours = min(limit, self.hours)
        return hours if self.overnight else min(hours, (DAY_MS - since % DAY_MS) // timeframe.ms)

    def saw(self, times: Int64, unclosed: bool, timeframe: Timeframe) -> None:
        """An answer had sound rows with these open times (sorted), and perhaps one that is not closed yet."""
        if len(times):
            self.rows = max(self.rows, len(times) + unclosed)
            self.hours = max(self.hours, int(times[-1] - times[0]) // timeframe.ms + 1)
            self.overnight = self.overnight or bool(times[0] // DAY_MS != times[-1] // DAY_MS)

    def answered(self, age: int) -> None:
        """A question that begins ``age`` hours ago had rows for an answer."""
        self.accepted = max(self.accepted, age)
        if self.refused <= self.accepted:
            self.refused = 0

    def too_old(self, age: int) -> None:
        """A question that begins ``age`` hours ago was refused."""
        if age > self.accepted:
            self.refused = min(self.refused, age) if self.refused else age
