"""What a backtest hands to its page: scores and outcomes on one grid of (cutoff, coin, horizon).

Knows arrays and the names of things; computes nothing. T cutoffs, N coins, H horizons; NaN wherever something is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptod.errors import DataError
from cryptod.market import QUANTILE_LEVELS, SERVED, Float32, Float64, Int64

MODEL: Final = "model"
"""The model by itself, where it is told apart from what was served. All others are references."""


@dataclass(frozen=True, slots=True)
class BacktestResults:
    """The outcome of a backtest. Raises `DataError` where the parts do not fit together."""

    symbols: tuple[str, ...]
    cutoffs: Int64
    """int64 [T], UTC ms, rising."""
    horizons: tuple[int, ...]
    forecasters: Mapping[str, Float32]
    """Name -> CRPS, float32 [T, N, H]: `SERVED`, perhaps `MODEL`, and the references."""
    hits: Mapping[int, Float32]
    """Percent -> float32 [T, N, H]: 1 where the outcome lay in that central interval, 0 where not."""
    pit: Float32
    """[T, N, H]: probability integral transform of the outcomes under what was served."""
    closes: Float64
    """[T, N]: close at the cutoff."""
    examples: Mapping[str, Float32]
    """Of a few coins what was served: symbol -> quantiles, float32 [T, H, 9]."""
    start: int
    """UTC ms; the period is [start, end)."""
    end: int
    trainings: Sequence[Mapping[str, Any]] = ()
    """Each {"time": UTC ms, "kind": str, "batch": int, "promoted": bool, "reason": str, "figures": mapping of name to number or text}."""
    settings: str = ""
    """With what the backtest was run, as text; line breaks are kept."""
    widths: Mapping[int, Float32] = field(default_factory=dict)
    """Percent -> float32 [T, N, H]: width of that central interval, in log return. Without it, sharpness is that of the examples."""
    block_hours: int = 28 * 24
    """Length of the blocks that the period is looked at in."""
    shares: Mapping[str, Float32] = field(default_factory=dict)
    """Forecaster -> float32 [T]: its share in what was served (of the coins, or its weight in a combination)."""

    def __post_init__(self) -> None:
        cube = (len(self.cutoffs), len(self.symbols), len(self.horizons))
        if SERVED not in self.forecasters:
            raise DataError(f"the results name no forecaster {SERVED!r}: {', '.join(self.forecasters) or 'none at all'}")
        lengths: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
            "pit": (self.pit.shape, cube),
            "closes": (self.closes.shape, cube[:2]),
        }
        lengths |= {f"forecasters[{name!r}]": (loss.shape, cube) for name, loss in self.forecasters.items()}
        lengths |= {f"hits[{percent}]": (hit.shape, cube) for percent, hit in self.hits.items()}
        lengths |= {f"widths[{percent}]": (width.shape, cube) for percent, width in self.widths.items()}
        lengths |= {f"shares[{name!r}]": (share.shape, cube[:1]) for name, share in self.shares.items()}
        lengths |= {f"examples[{name!r}]": (q.shape, (cube[0], cube[2], len(QUANTILE_LEVELS))) for name, q in self.examples.items()}
        wrong = [f"{name} is {found} and should be {wanted}" for name, (found, wanted) in lengths.items() if found != wanted]
        unknown = [name for name in self.examples if name not in self.symbols]
        if wrong or unknown:
            raise DataError("the results do not fit together: " + "; ".join([*wrong, *(f"no coin {name!r}" for name in unknown)]))
