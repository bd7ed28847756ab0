"""Metrics: every metric with its name, and how Prometheus gets them."""
