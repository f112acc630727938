"""Veilwatch sees malware in encrypted traffic of a mobile core, without decrypting it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("veilwatch")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0"
