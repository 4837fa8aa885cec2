"""The one place that holds Pleo OAuth refresh tokens, and hands out access tokens over gRPC."""

__version__ = "0.1.0"
