"""Running a question: processes, machine, rounds, and their report."""
