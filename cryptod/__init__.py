"""cryptod: calibrated crypto price forecasts, always fresh, on a small machine.

Importing the package loads nothing: a program that only talks to the daemon imports ``cryptod.client``
and pays for the standard library and msgpack, never for numpy, torch or ccxt.
"""

__version__ = "0.1.0"
