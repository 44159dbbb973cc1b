"""`python -m tests.simulation --seeds N [--seed S] [--jobs J]`: many seeds, or one with its trace."""

import argparse
import sys
import time
import traceback
from multiprocessing import Pool

from . import mutants
from .plan import KINDS
from .run import run


def command(seed, options):
    """The command that repeats a seed."""
    text = f"python -m tests.simulation --seed {seed}"
    if options.kind:
        text += f" --kind {options.kind}"
    if options.mutant:
        text += f" --mutant {options.mutant}"
    return text + f" --trace {options.trace or 200}"


def one(argument):
    seed, kind, mutant = argument
    result = run(seed, kind, cores=mutants.MUTANTS[mutant] if mutant else None)
    return seed, result.name, str(result.violation or ""), dict(result.pair.oracle.reasons), result.pair.plan.kind


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--kind", choices=KINDS, help="only plans of this kind")
    parser.add_argument("--mutant", choices=sorted(mutants.MUTANTS), help="with a deliberately broken core")
    parser.add_argument("--trace", type=int, default=0, help="events to show of a failure, or of --seed")
    parser.add_argument("--figures", action="store_true", help="print what each seed came to, and nothing else")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first violations")
    options = parser.parse_args(argv)
    if options.seed is not None:
        return single(options)
    if options.figures:
        for seed in range(options.start, options.start + options.seeds):
            print(seed, run(seed, options.kind).summary())
        return 0
    return many(options)


def single(options):
    cores = mutants.MUTANTS[options.mutant] if options.mutant else None
    result = run(options.seed, options.kind, trace=options.trace or 200, cores=cores)
    print(result.report(command(options.seed, options)))
    if result.violation is not None and not result.name.isupper() and result.name == "crash":
        traceback.print_exception(result.violation)
    print(result.summary())
    return 1 if result.violation else 0


def many(options):
    began = time.monotonic()
    work = ((options.start + n, options.kind, options.mutant) for n in range(options.seeds))
    failed, reasons, kinds, count = [], {}, {}, 0
    with Pool(options.jobs) as pool:
        for seed, name, text, wanted, kind in pool.imap(one, work, 8):
            count += 1
            kinds[kind] = kinds.get(kind, 0) + 1
            for reason, n in wanted.items():
                reasons[reason] = reasons.get(reason, 0) + n
            if name:
                failed.append(seed)
                print(f"seed {seed}: {text}\n   again: {command(seed, options)}", flush=True)
                if not options.keep_going and len(failed) >= 10:
                    break
            if count % 1000 == 0:
                print(f"{count} seeds, {len(failed)} violations, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{count} seeds from {options.start} ({kinds}), {len(failed)} violations, {time.monotonic() - began:.0f} s")
    print(f"checkpoints wanted: {dict(sorted(reasons.items()))}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
