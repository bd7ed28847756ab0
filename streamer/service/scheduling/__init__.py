"""Scheduling: schedules, campaigns, and the scheduler that fires them."""
