"""The leases of open connections, and the devices of players."""
