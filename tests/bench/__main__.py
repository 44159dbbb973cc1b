"""`make bench`: all benchmarks, or the named ones. Nothing is asserted.

python -m tests.bench                        all of them (except failover, which takes an hour)
python -m tests.bench compare rewriter       two of them
python -m tests.bench lab --size 500000000   one, with its own options

It measures the packages of its own interpreter. `make bench` installs them as users do, which compiles the cores if
there is a C compiler. `.venv/bin/python -m tests.bench` measures them interpreted. The first line says which it is.
"""

import sys
from importlib import import_module

from colo_proto.compiled import cores

BENCHES = {
    "compare": "compare: its core, with codec, as a process, and QEMU's colo-compare on the same bytes",
    "rewriter": "rewriter: its core, as a process, and QEMU's filter-rewriter on the same bytes",
    "memory": "compare's memory under a million SYNs",
    "failover": "many failovers under load: the stalls that clients see (needs root)",
    "lab": "throughput and latency of the whole chain beside a plain veth (needs root)",
}


def main() -> int:
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]):
        print(__doc__)
        for name, what in BENCHES.items():
            print(f"    {name:10} {what}")
        return 0
    names = []
    while words and not words[0].startswith("-"):
        names.append(words.pop(0))
    unknown = [name for name in names if name not in BENCHES]
    if unknown or (words and len(names) != 1):
        print(f"unknown: {', '.join(unknown)}" if unknown else "options belong to one benchmark", file=sys.stderr)
        return 2
    print(f"cores: {cores()}", flush=True)
    for name in names or (name for name in BENCHES if name != "failover"):
        print(f"== {BENCHES[name]}", flush=True)
        sys.argv = [name, *words]
        import_module(f"tests.bench.bench_{name}").main()
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
