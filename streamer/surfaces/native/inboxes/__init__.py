"""Inboxes of the native API."""
