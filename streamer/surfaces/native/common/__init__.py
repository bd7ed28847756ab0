"""Parts that all operations of the native API share."""
