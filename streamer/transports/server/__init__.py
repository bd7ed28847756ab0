"""The protocol classes under uvicorn, and the sockets they serve."""
