"""Damage datasets at random and build them: a table of kind of damage, cases, what came of them, violations.

python benchmarks/fuzz_datasets.py --cases 2000 --seed 0
python benchmarks/fuzz_datasets.py --seed 0 --only 17        # one case again, in this process, with its files kept
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.curate.episodes.fuzzing import Case, make_bases, run_case, run_cases


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone, with its files kept")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bases = make_bases(Path(folder) / "bases")
        if chosen.only is not None:
            scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
            print(run_case(bases, scratch, chosen.seed, chosen.only, keep=True), f"\nin {scratch}")
            return 0
        numbers = range(chosen.first, chosen.first + chosen.cases)
        cases: list[Case] = []
        begun = time.monotonic()
        for case in run_cases(bases, Path(folder) / "cases", chosen.seed, numbers):
            cases.append(case)
            for violation in case.violations:
                print(
                    f"case {case.number} ({case.base}; {', '.join(case.mutations)}): {violation}", flush=True
                )
            if time.monotonic() - begun > chosen.seconds:
                break
    print_table(cases)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"\n{sum(one.ru_utime + one.ru_stime for one in used):.0f} CPU s in all; slowest case ", end="")
    print(
        f"{max(one.cpu_s for one in cases):.1f} s, largest growth {max(one.growth_mb for one in cases):.0f} MB"
    )
    return int(any(case.violations for case in cases))


def print_table(cases: list[Case]) -> None:
    """A row per kind of damage; cases with several kinds count under the first one."""
    print("\n| damage | cases | built | refused | examined | episodes dropped, by reason | violations |")
    print("|---|---:|---:|---:|---:|---|---:|")
    kinds: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        kinds[case.mutations[0] if case.mutations else "(died)"].append(case)
    for kind, members in [*sorted(kinds.items()), ("all", cases)]:
        results = Counter(case.result for case in members)
        dropped: Counter[str] = Counter()
        for case in members:
            dropped.update(case.dropped)
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        counts = " | ".join(str(results[name]) for name in ("built", "refused", "examined"))
        violations = sum(len(case.violations) for case in members)
        print(f"| {kind} | {len(members)} | {counts} | {reasons or '–'} | {violations} |")


if __name__ == "__main__":
    raise SystemExit(main())
