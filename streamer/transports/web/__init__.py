"""Requests, callers, routes and the access log."""
