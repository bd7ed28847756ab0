"""Common to the native API: names, body types, answers, and contract words."""
