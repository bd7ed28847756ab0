"""The logs of players and audiences: entries, pages, marks and receipts."""
