"""Publishing: from a decoded message to what is appended, once."""
