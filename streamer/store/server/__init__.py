"""Server: the private Valkey that a node runs by itself."""
