"""Web: requests, callers, routes and the access log."""
