"""Access: apps, tokens, signatures, and the rights of callers."""
