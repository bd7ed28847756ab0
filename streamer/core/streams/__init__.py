"""Streams: order and completeness per log, sessions, and their events as bytes."""
