"""The embedded store: a private Valkey that a node starts and stops."""
