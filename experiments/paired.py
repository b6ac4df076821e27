"""Two agents on the same starts: the mean difference of each term of the score, episode by episode, with its interval.

    occsora-sim evaluate agent --world traffic --agent imagining-planner --episodes 24 --csv out/planner.csv
    occsora-sim evaluate agent --world traffic --agent route-follower --episodes 24 --csv out/rule.csv
    python experiments/paired.py out/planner.csv out/rule.csv

The same options but for the agent, else the files name other starts, and are refused.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from occsora_sim.scoring.interval import mean_interval

NO_TERMS = ("episode", "start", "seed", "ended")


def main() -> None:
    """Read both files, print the table and the episodes that differ most."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", type=Path, nargs=2, help="of `evaluate agent --csv`: the one, the other")
    one, other = (list(csv.DictReader(path.open())) for path in parser.parse_args().csv)
    if [(row["start"], row["seed"]) for row in one] != [(row["start"], row["seed"]) for row in other]:
        sys.exit("the files hold other starts or seeds: drive both with the same options")
    print(f"{len(one)} episodes: mean of the first, of the second, difference (95 % interval)")
    for name in (name for name in one[0] if name not in NO_TERMS):
        values, others = (np.array([float(row[name]) for row in rows]) for rows in (one, other))
        low, high = mean_interval(values - others, np.random.default_rng(0))
        apart = f"{(values - others).mean():+8.3f} ({low:+.3f} to {high:+.3f})"
        print(f"{name:9} {values.mean():8.3f} {others.mean():8.3f} {apart}")
    order = sorted(
        zip(one, other, strict=True), key=lambda pair: float(pair[0]["score"]) - float(pair[1]["score"])
    )
    for mine, its in order:
        ends = f"ended by {mine['ended']}, {its['ended']}"
        print(f"{mine['start']:24} score {float(mine['score']):.3f} {float(its['score']):.3f}, {ends}")


if __name__ == "__main__":
    main()
