"""The version of this package, as installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("palate")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"
