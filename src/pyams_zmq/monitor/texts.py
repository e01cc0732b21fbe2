"""What the page says, in English; the translations are in ``locales``."""

from pyams_zmq import _

#: What stands in the page, by its place.
PAGE = {
    # Translators: the code of the language that you translate to.
    'language': _('en'),
    'title': _('Background processes'),
    'loading': _('Asking the processes …'),
    'pause': _('Pause'),
    'noscript': _('This page needs JavaScript. The same figures without it:'),
    'process': _('Process'),
    'state': _('State'),
    'pace': _('Messages a minute'),
    'under_way': _('Under way'),
    'answered': _('Answered within'),
    'p50': _('half'),
    'p90': _('90\u00a0%'),
    'p99': _('99\u00a0%'),
    'failed': _('Failed'),
    'memory': _('Memory'),
    'cpu': _('Processor'),
    'uptime': _('Up for'),
    'answered_note': _('The times are those of the last five minutes.'),
    'failures': _('Recent failures'),
    'no_failures': _('None that the processes remember.'),
    'when': _('Last'),
    'type': _('Message'),
    'times': _('Times'),
    'error': _('Error'),
}

#: What the page's script says.
SCRIPT = {
    'up': _('Up'),
    'busy': _('Does not answer'),
    'busy_why': _('It is there, but something keeps it from answering.'),
    'refused': _('Refuses us'),
    'refused_why': _('It wants other credentials, or this host is not among its clients.'),
    'down': _('Down'),
    'down_why': _('Nobody is there.'),
    'given_up': _('Given up'),
    'broken': _('Cannot be asked'),
    'all_up': _('All {all} processes are up.'),
    'one_up': _('The process is up.'),
    'some_down': _('{up} of {all} processes are up. Not so: {names}.'),
    'none': _('The application declares no process.'),
    'updated': _('Updated at {time}'),
    'paused': _('Paused'),
    'waiting': _('{n} waiting'),
    'version': _('pid {pid} · {version}'),
    'lost': _('The application does not answer. This page tries again every few seconds.'),
    'forbidden': _('You may not look at this any more. Sign in again, and reload the page.'),
}
