"""The page ``/demo`` and what it asks the server for."""
