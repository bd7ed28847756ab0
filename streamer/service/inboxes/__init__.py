"""Inboxes: pages, searches, marks, receipts and topics of a player."""
