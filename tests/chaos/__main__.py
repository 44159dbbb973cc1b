"""`make chaos`: a campaign of faults against the pair in containers.

    make chaos ARGS='--rounds 10 --services m0,compare --faults kill,pause --seed 7'

Exit status: 0 every trial passed, 1 one failed, 3 none failed but one has no result, 2 it could not run.
"""

import argparse
import json
import random
import signal
import sys
import time
from pathlib import Path

from chaos import checker, nemesis
from chaos.campaign import FILES, SERVICES, Campaign
from containers import engine


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="make chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault hits each service")
    parser.add_argument("--services", default=",".join(SERVICES))
    parser.add_argument("--faults", default=",".join(nemesis.FAULTS))
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long, with what there is")
    parser.add_argument("--report", type=Path, help="write every trial there, a line of JSON each")
    options = parser.parse_args()
    services, faults = options.services.split(","), options.faults.split(",")
    if unknown := [one for one in faults if one not in nemesis.FAULTS] + [
        one for one in services if one not in SERVICES
    ]:
        parser.error(
            f"unknown: {', '.join(unknown)}; services {', '.join(SERVICES)}; faults {', '.join(nemesis.FAULTS)}"
        )
    if reason := engine.missing():
        sys.stderr.write(f"chaos: {reason}\n")
        return 2
    # Also when a shell has started this in the background: what was made is taken down.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    say(f"seed {options.seed}")
    done = []
    began = time.monotonic()
    try:
        with engine.project(*FILES, image=engine.image()) as project:
            campaign = Campaign(project, say)
            campaign.start()
            strikes = nemesis.plan(services, faults, options.rounds, options.seed, nemesis.cuttable(project))
            for number, strike in enumerate(strikes, 1):
                if options.minutes and time.monotonic() - began > options.minutes * 60:
                    say(f"time is over after {number - 1} of {len(strikes)} trials")
                    break
                trial, verdict = campaign.trial(strike)
                done.append((trial, verdict))
                if options.report:
                    line = {"service": trial.service, "fault": trial.fault, "verdict": verdict.verdict,
                            "why": verdict.why, "resets": verdict.resets, "clients": dict(trial.clients)}  # fmt: skip
                    with options.report.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
    except KeyboardInterrupt:
        say("interrupted")
    except engine.EngineError as error:
        sys.stderr.write(f"chaos: {error}\n")
        return 2
    sys.stdout.write(checker.table(done))
    verdict = checker.worst([one.verdict for _, one in done])
    say(f"{verdict}: {len(done)} trials, seed {options.seed}")
    return checker.EXIT[verdict]


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
