"""The connections of this process to Redis: commands, Pub/Sub and health."""
