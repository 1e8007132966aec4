"""The learned correction: a pure function of parameters and inputs, written once for numpy arrays and torch tensors.

Knows the recipe's inputs and shapes. Knows neither numpy's nor torch's random numbers beyond the initial weights, no coin and no
horizon by name. The last layer starts at zero: an untrained network corrects nothing, so the forecast starts at its linear part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from cryptod.errors import CheckpointError
from cryptod.forecast.features import COLUMN, LEVELS, MARKET, RANGES, SQUARES, TRENDS, VOLUMES
from cryptod.market import MAX_HORIZON, Float32

HIDDEN: Final = 32
CLAMP: Final = 1.5
"""Largest correction to the log of the variance."""
INPUT_CLIP: Final = 5.0
DROPOUT: Final = 0.1

_LEVELS = [COLUMN[f"level_{k}"] for k in LEVELS]
_BASE = COLUMN["level_48"]
_OTHERS = [column for column in _LEVELS if column != _BASE]
_PLAIN = [*(COLUMN[f"volume_{k}"] for k in VOLUMES[:-1]), *(COLUMN[f"trend_{k}"] for k in TRENDS)]
_DROPS = [COLUMN[f"trend_{k}"] for k in (4, 24)]
_RATIOS = [*(COLUMN[f"range_{k}"] for k in RANGES), *(COLUMN[f"square_{k}"] for k in SQUARES)]
_RATIO_LEVELS = [COLUMN[f"level_{k}"] for k in (*RANGES, *SQUARES)]
_AGAINST = (2, 12, 48, 168)
_AGAINST_OWN = [COLUMN[f"level_{k}"] for k in _AGAINST]
_AGAINST_MARKET = [MARKET.index(f"level_{k}") for k in _AGAINST]

INPUTS: Final = len(_OTHERS) + len(_PLAIN) + len(_DROPS) + len(_RATIOS) + 1 + len(_AGAINST)
SHAPES: Final = {
    "w1": (INPUTS, HIDDEN),
    "b1": (HIDDEN,),
    "w2": (HIDDEN, HIDDEN),
    "b2": (HIDDEN,),
    "w3": (HIDDEN, MAX_HORIZON),
    "b3": (MAX_HORIZON,),
}


def inputs(own: Float32, market: Float32) -> Float32:
    """float32 [..., n, INPUTS] of own features [..., n, len(OWN)] and the market's means [..., len(MARKET)], not yet standardised.

    Levels against the 48 h level, volume, trends and their negative parts, measures of variance against Parkinson's, the size of the
    last shock, levels against the market's. All are relative: neither the market's level nor the calendar is among them, for with
    those a network learns the dates by heart (docs/forecasting.md).
    """
    market = np.broadcast_to(market[..., None, :], (*own.shape[:-1], market.shape[-1]))
    return np.concatenate(
        [
            own[..., _OTHERS] - own[..., _BASE, None],
            own[..., _PLAIN],
            np.minimum(own[..., _DROPS], 0.0),
            own[..., _RATIOS] - own[..., _RATIO_LEVELS],
            np.abs(own[..., COLUMN["shock"], None]),
            own[..., _AGAINST_OWN] - market[..., _AGAINST_MARKET],
        ],
        axis=-1,
        dtype=np.float32,
    )


def standardise(raw: Float32, mean: Float32, scale: Float32) -> Float32:
    """Inputs on the scale of the training window, clipped at `INPUT_CLIP`."""
    return np.asarray(np.clip((raw - mean) / scale, -INPUT_CLIP, INPUT_CLIP), np.float32)


def initial(seed: int) -> dict[str, Float32]:
    """Weights to begin with: normal with variance 1 / fan-in, biases and the whole last layer zero."""
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in SHAPES.items():
        fan = shape[0] if name in ("w1", "w2") else 0
        weights = random.normal(0.0, 1.0, shape) / np.sqrt(fan) if fan else np.zeros(shape)
        found[name] = weights.astype(np.float32)
    return found


def silu(hidden: Float32) -> Float32:
    """x / (1 + exp(-x)) (Elfwing et al. 2018) for numpy arrays, spelt with tanh, which cannot overflow."""
    return np.asarray(hidden * (0.5 + 0.5 * np.tanh(0.5 * hidden)))


def forward(
    parameters: Mapping[str, Any],
    standardised: Any,
    *,
    activation: Callable[[Any], Any] = silu,
    dropout: Callable[[Any], Any] = lambda hidden: hidden,
) -> Any:
    """Correction to the log variance, [rows, 24], of standardised inputs [rows, INPUTS]: numpy arrays by default.

    With torch tensors pass ``torch.nn.functional.silu`` (and, in training, a dropout).
    """
    hidden = dropout(activation(standardised @ parameters["w1"] + parameters["b1"]))
    hidden = dropout(activation(hidden @ parameters["w2"] + parameters["b2"]))
    return (hidden @ parameters["w3"] + parameters["b3"]).clip(-CLAMP, CLAMP)


def check(parameters: Mapping[str, np.ndarray]) -> None:
    """`CheckpointError` unless the parameters are those of this network, in float32 and finite."""
    for name, shape in SHAPES.items():
        given = parameters.get(name)
        if given is None or given.shape != shape or given.dtype != np.float32:
            raise CheckpointError(
                f"network: {name} is missing or not float32 {shape}", hint="the checkpoint is of another version: train anew"
            )
        if not np.isfinite(given).all():
            raise CheckpointError(f"network: {name} is not finite")
