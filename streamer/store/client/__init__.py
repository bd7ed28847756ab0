"""Client: how this process speaks to the store, and hears from it."""
