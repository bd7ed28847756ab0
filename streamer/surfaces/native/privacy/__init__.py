"""The audit log of an app, and the export and erasure of a player."""
