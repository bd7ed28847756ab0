"""Topics and mutes of the native API."""
