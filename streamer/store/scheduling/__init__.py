"""Schedules, campaigns, and the recipients they are sent to."""
