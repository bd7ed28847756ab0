"""Scheduling: what is to be sent, when, and to which recipients."""
