"""The scenarios, one module each with a `Scenario` named ``SCENARIO``."""
