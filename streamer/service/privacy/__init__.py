"""Audit logs, and the export and erasure of a player."""
