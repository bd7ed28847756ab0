"""Logs: entries, pages, marks and receipts of players and audiences."""
