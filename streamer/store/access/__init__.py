"""Access: apps, keys, tickets, quotas and rates."""
