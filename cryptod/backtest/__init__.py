"""The backtest: the daemon's own code living through past candles, as issued and without look-ahead."""
