"""What is done in C where a compiler was there, and in Python where none was."""
