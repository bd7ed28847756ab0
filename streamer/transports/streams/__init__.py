"""Streams: opening one, and its bytes over WebSocket, SSE and long poll."""
