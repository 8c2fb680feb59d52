"""Plant every defect in a clean dataset and count what `blm doctor` finds: a table of defect, found, false findings.

python benchmarks/planted_defects.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blm.curate.doctor import diagnose
from tests.curate.episodes.planting import EPISODE, LENGTHS, PLANTS, clean_dataset, planted


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clean = clean_dataset(Path(folder) / "clean")
        print(f"clean dataset: {len(diagnose(clean).findings)} findings\n")
        print("| defect | found | on other episodes | further reasons on the same one |")
        print("|---|---|---|---|")
        for number, defect in enumerate([*PLANTS, *LENGTHS]):
            reason = defect.split()[0]
            rows = diagnose(planted(clean, Path(folder) / str(number), defect)).findings.to_pylist()
            here = {row["reason"] for row in rows if row["episode"] == EPISODE}
            elsewhere = sum(row["episode"] != EPISODE for row in rows)
            print(
                f"| {defect} | {reason in here} | {elsewhere} | {', '.join(sorted(here - {reason})) or '–'} |"
            )


if __name__ == "__main__":
    main()
