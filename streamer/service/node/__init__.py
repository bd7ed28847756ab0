"""Node: quotas, requests in flight, and the state of the store."""
