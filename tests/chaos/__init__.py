"""Attacks on a running service: short ones for the tests, long ones for ``make chaos`` and ``make soak``."""
