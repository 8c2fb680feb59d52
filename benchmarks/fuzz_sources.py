"""Damage corpus sources at random and read them: a table of forms, cases, what came of them, violations.

python benchmarks/fuzz_sources.py --cases 5500 --seed 0
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.curate.corpus.fuzzing import FORMS, Case, run_case
from tests.process_memory import peak_mb


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=5500)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(chosen.first, chosen.first + chosen.cases):
            case = run_case(Path(folder), chosen.seed, number)
            cases.append(case)
            for violation in case.violations:
                print(f"case {number} ({case.form}, {case.damage}): {violation}", flush=True)
    print_table(cases)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"\n{used.ru_utime + used.ru_stime:.0f} CPU s, slowest case {max(case.cpu_s for case in cases):.1f} s, "
        f"peak memory {peak_mb():.0f} MB"
    )
    return int(any(case.violations for case in cases))


def print_table(cases: list[Case]) -> None:
    print("\n| form | cases | built | refused | crashed | kept | dropped, by reason | violations |")
    print("|---|---:|---:|---:|---:|---:|---|---:|")
    for form in (*FORMS, "all"):
        members = [case for case in cases if form in (case.form, "all")]
        results = Counter(case.result for case in members)
        dropped: Counter[str] = Counter()
        for case in members:
            dropped.update(case.dropped)
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        numbers = [len(members), *(results[name] for name in ("built", "refused", "crashed"))]
        numbers += [sum(case.kept for case in members)]
        violations = sum(len(case.violations) for case in members)
        print(f"| {form} | {' | '.join(map(str, numbers))} | {reasons or '–'} | {violations} |")


if __name__ == "__main__":
    raise SystemExit(main())
