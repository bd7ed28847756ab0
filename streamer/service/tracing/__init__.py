"""Traces: from a request through the store to the write to a connection."""
