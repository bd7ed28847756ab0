"""Three hot loops in C, if a compiler was available, and the same in Python."""
