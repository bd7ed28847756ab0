"""The node: quotas, requests in flight, and the state of its store."""
