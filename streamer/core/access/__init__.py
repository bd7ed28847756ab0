"""Access: apps, tokens and their signatures, and the rights that follow from them."""
