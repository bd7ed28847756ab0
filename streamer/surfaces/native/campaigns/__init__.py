"""Campaigns of the native API."""
