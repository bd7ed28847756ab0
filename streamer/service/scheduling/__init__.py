"""Scheduling: schedules, campaigns, and the scheduler that sends them."""
