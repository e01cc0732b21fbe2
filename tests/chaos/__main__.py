"""The runner: ``python -m chaos [--old PYTHON] [--huey PYTHON] [--short] [NAME …]``.

Each attack meets a service of its own, of each kind: ours, a bare REP, and version 2.0.0 if ``--old`` names a
Python which has that installed. Kills meet ours alone: the others end with the first. ``jobs`` are submitted
while what runs them is killed: ours, and Huey if ``--huey`` names a Python which has that.
"""

import argparse
import sys

from . import jobs, refusals
from .attacks import ATTACKS
from .kills import KILLS
from .target import MB, endure, running

#: Seconds that an honest call may take: a service that cannot answer at all is found out soon enough.
PATIENCE = {'ours': 30.0, 'bare REP': 5.0, '2.0.0': 5.0}


def milliseconds(seconds):
    return 'none' if seconds is None else f'{seconds * 1000:.1f}'


def main(arguments=None):
    parser = argparse.ArgumentParser(prog='chaos', description='Attack a service that honest clients call.')
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='attacks, kills, and refusals; without any, all of them'
    )
    parser.add_argument('--old', metavar='PYTHON', help='a Python with version 2.0.0, to compare')
    parser.add_argument('--huey', metavar='PYTHON', help='a Python with Huey, to compare')
    parser.add_argument('--short', action='store_true', help='as in the tests')
    options = parser.parse_args(arguments)
    known = [*ATTACKS, *KILLS, 'jobs', 'refusals']
    names = options.names or known
    unknown = set(names) - set(known)
    if unknown:
        parser.error(f'no such attack: {", ".join(unknown)}; there are: {", ".join(known)}')
    kinds = {'ours': ('pyams_zmq', sys.executable), 'bare REP': ('rep', sys.executable)}
    if options.old:
        kinds['2.0.0'] = ('pyams_zmq', options.old)
    attacks = [name for name in names if name in ATTACKS]
    failed = bool(attacks) and run_attacks(attacks, kinds, options.short)
    for name in names:
        if name in KILLS:
            number = KILLS[name].short if options.short else KILLS[name].long
            print(f'{name:30}ours      {KILLS[name].run(number)}', flush=True)
    if 'jobs' in names:
        queues = (*jobs.OURS, *(jobs.hueys(options.huey) if options.huey else ()))
        failed |= jobs.report(queues, *(jobs.SHORT if options.short else jobs.LONG))
    if 'refusals' in names:
        refusals.report(10 if options.short else 200)
    return int(failed)


def run_attacks(names, kinds, short):
    """Run attacks against services of each kind; returns whether ours failed."""
    print(f'{"attack":30}{"service":10}{"known":>9}{"new":>9}{"after":>9}{"memory":>10}  (milliseconds, MB)')
    failed = False
    for name in names:
        attack = ATTACKS[name]
        for kind, (service, python) in kinds.items():
            if kind == 'bare REP' and 'auth' in attack.options:
                continue  # it has no door
            number = attack.short if short else attack.long
            with running(service, python, **attack.options) as target:
                outcome = endure(target, attack, number, PATIENCE[kind])
            times = (outcome.known, outcome.new, outcome.after)
            failed |= kind == 'ours' and not outcome.borne
            columns = ''.join(f'{milliseconds(seconds):>9}' for seconds in times)
            print(f'{name:30}{kind:10}{columns}{outcome.growth / MB:>+10.1f}  {outcome.note}', flush=True)
    return failed


if __name__ == '__main__':
    sys.exit(main())
