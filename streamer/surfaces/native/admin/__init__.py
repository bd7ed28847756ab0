"""Administration of players on the native API: inspecting, presence, disconnecting."""
