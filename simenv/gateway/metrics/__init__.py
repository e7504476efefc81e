"""Metrics for Prometheus, and the stored series, over HTTP."""

from simenv.gateway.metrics.routes import application as application, routes as routes

__all__ = ["application", "routes"]
