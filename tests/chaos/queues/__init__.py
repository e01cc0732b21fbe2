"""Queues of jobs under fire: scripts ``serve FOLDER EXECUTOR`` and ``submit FOLDER CLIENTS JOBS``."""
