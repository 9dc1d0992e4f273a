"""Load files that are damaged or made to do harm: HDF5, NPZ, checkpoints.

    python benchmarks/fuzz.py [--mutations 3000] [--seed 0] [--out FILE.json]

Every mutation of the tables in tests/fuzz once, and random changes of bytes up to so many mutations in all, each
loaded in a process with bounds on time and memory. Prints a table by kind of file and every outcome that should not be,
writes JSON and ends with 1 if there was one. Undetectable are changes of numbers that the file has no checksum of, and
of HDF5's tables, which have none either, where the file is a whole one of other data.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tests'))

from fuzz import TABLES, VERDICTS, counts, draws, run, tables  # noqa: E402  (tests/fuzz)

from ding_cawr.machine import machine, versions  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mutations', type=int, default=3000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks' / 'results' / 'fuzz.json')
    args = parser.parse_args()
    cases = tables(args.seed)
    cases += draws(max(args.mutations - len(cases), 0), args.seed)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(cases, Path(folder))
    seconds, table = time.perf_counter() - start, counts(outcomes)
    print('| kind | tried |', ' | '.join(VERDICTS), '|')
    print('| --- |' + ' --- |' * (1 + len(VERDICTS)))
    for kind, row in table.items():
        print('|', kind, '|', ' | '.join(str(count) for count in row.values()), '|')
    bad = [outcome for outcome in outcomes if outcome.verdict in ('crash', 'hang', 'wrong')]
    for outcome in bad:
        print(f'{outcome.verdict}: {outcome.case}: {outcome.detail[:400]!r}')
    tables_changed = [outcome for outcome in outcomes if outcome.detail == TABLES]
    print(
        f'{len(outcomes)} mutations in {seconds:.0f} s, {len(bad)} of which end as they should not; of the '
        f'undetectable ones {len(tables_changed)} are in the tables of HDF5'
    )
    result = dict(
        mutations=len(outcomes), seed=args.seed, seconds=round(seconds), counts=table,
        undetectable_in_tables=[asdict(outcome.case) for outcome in tables_changed],
        bad=[asdict(outcome) for outcome in bad], machine=machine(cuda=False), versions=versions(),
    )
    args.out.write_text(json.dumps(result, indent=1) + '\n')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
