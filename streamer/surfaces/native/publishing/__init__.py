"""Publishing and schedules of the native API."""
