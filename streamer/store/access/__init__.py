"""Apps and backend keys, tickets, quotas and rate limits."""
