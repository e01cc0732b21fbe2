"""The peers; each module runs in the environment of its peer.

``serve(port)`` is a service with the methods ``echo`` and ``sleep``, which runs until the process is
terminated. ``connect(port)`` is a context manager that gives one client's :data:`bench.work.Call`. A module
may have its own ``at_once``, in place of that of :mod:`bench.work`.
"""
