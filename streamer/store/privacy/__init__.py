"""What is stored of people: audit logs, and the list of erased players."""
