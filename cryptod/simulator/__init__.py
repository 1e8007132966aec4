"""An exchange on loopback for tests and for the demo: Binance's public spot API over generated or replayed candles, with faults.

Knows the vocabulary (`market`), the clock and the errors; knows nothing of the daemon that will ask it.
"""
