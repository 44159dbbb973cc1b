"""`make faults`: faults against a pair in the lab, two at a time, under load.

    make faults ARGS='--pairs 250 --seed 7 --wiring lean'

Exit status: 0 all invariants held, 1 one did not, 2 it could not run.
"""

import argparse
import random
import sys
import time

from colo_lab import privileges
from faults.campaign import Campaign


def main() -> int:
    """Run the campaign, and print a line for each pair of faults."""
    parser = argparse.ArgumentParser(prog="make faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--pairs", type=int, default=250, help="pairs of faults")
    parser.add_argument("--wiring", choices=("faithful", "lean"), default="faithful")
    parser.add_argument("--logs", default="", metavar="DIR", help="keep the logs of all processes there")
    options = parser.parse_args()
    gaps = privileges.missing()
    if gaps or not privileges.privileged():
        sys.stderr.write(f"faults: needs {', and '.join(gaps or ['root'])}\n")
        return 2
    say(f"seed {options.seed}, {options.wiring} wiring")
    campaign = Campaign(options.seed, options.pairs, options.wiring, say=say, logs=options.logs)
    began = time.monotonic()
    campaign.run()
    wrong = campaign.verdict()
    for line in wrong:
        say(f"✘ {line}")
    say(campaign.summary())
    say(f"{'FAIL' if wrong else 'pass'}: {time.monotonic() - began:.0f} s, seed {options.seed}")
    return 1 if wrong else 0


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
