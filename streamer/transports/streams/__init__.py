"""Opening streams, and carrying them over WebSocket, SSE and long poll."""
