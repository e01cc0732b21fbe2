"""The library measured beside others, on the same work: ``make bench``."""
