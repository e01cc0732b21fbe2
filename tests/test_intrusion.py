"""What a stranger who has read the documentation and the sources tries: see ``docs/security.rst``."""

import pytest

import work
from peers import handler_of
from pyams_zmq.exceptions import ExitCode, ProcessStartError
from services import Process

# Folders in which others may write


def test_a_link_planted_where_the_journal_s_lock_will_be(start, tmp_path):
    precious = tmp_path / 'precious'
    precious.write_text('as it was')
    (tmp_path / 'journal.lock').symlink_to(precious)
    with pytest.raises(ProcessStartError, match='journal cannot be locked: .*symbolic link') as caught:
        start(handler=handler_of(work.Work()), cls=with_journal(tmp_path / 'journal'))
    assert caught.value.exitcode == ExitCode.SETUP
    assert precious.read_text() == 'as it was'


def test_a_journal_that_others_may_change(start, tmp_path):
    """They could have methods run with what they like."""
    journal = tmp_path / 'journal'
    journal.touch()
    journal.chmod(0o666)
    with pytest.raises(
        ProcessStartError, match=r'journal has mode 0666, so others may change it: chmod go-w'
    ):
        start(handler=handler_of(work.Work()), cls=with_journal(journal))
    assert journal.stat().st_size == 0


def with_journal(path):
    return type('Configured', (Process,), {'journal': str(path)})
