"""Whole interactions of a pair as text, in the manner of etcd/raft's `testdata`: a command, a line `----`, and what
happened until the next one. `play` performs the commands of a text in the world of `ownership_world` and returns the
text with what has really happened. So a test compares the two, and a person reads them.

::

    kill p                          everything of this host dies; `kill p m0`: this process
    freeze p [NAME], thaw p [NAME]  SIGSTOP, SIGCONT
    start p                         a host that was killed is switched on;  restart p: its COLO frame alone
    cut link|lan|both               the link between the hosts, the client LAN between them;  join link|lan|both
    failover [p|s] [force]          orders; without a host, the secondary
    resync [p|s]                    without a host, the primary
    modes                           shows the mode of the pair at each host, in the last line
    store down|up [p|s]             whether the hosts can reach the store of the third vote
    run SECONDS

`PYTHONPATH=tests python -m interactions FILE...` writes these files anew with what happens now: read the difference.

Each line of an outcome is a change of state: when it happened (seconds after the first command of its block), at which
host, why, which token the host had then, and what its processes were told. The last line shows the states, and who can
write.
"""

import re
import sys
from pathlib import Path

from ownership_world import World

RULE = "----"
_STEP = re.compile(r"^ *[0-9.]+ s  ([ps])  (\w+) -> (\w+) on ([^,]+),")


class Player:
    def __init__(self):
        self.world = None
        self.began = 0.0
        self.shown = False

    def pair(self, *options):
        given = dict(one.split("=") for one in options)
        self.world = World(**given | {name: on == "on" for name, on in given.items() if name == "vote"})
        self.began = 0.0
        self.world.run(3.0)

    def run(self, seconds):
        self.world.run(float(seconds))

    def kill(self, letter, *names):
        self.world.kill(letter, *names)
        self.world.run(0.01)

    def freeze(self, letter, *names):
        self.world.freeze(letter, *names)

    def thaw(self, letter, *names):
        self.world.freeze(letter, *names, frozen=False)

    def start(self, letter):
        host = self.world.hosts[letter]
        for one in host.processes.values():
            one.dead, one.lease, one.promoted, one.fence, one.told = False, float("-inf"), False, 0, 0
        host.start_frame()

    def restart(self, letter):
        self.world.hosts[letter].start_frame()

    def cut(self, what, works=False):
        for name in ("link", "lan") if what == "both" else (what,):
            setattr(self.world, name, works)
        self.world.quiet = 0.0

    def join(self, what):
        self.cut(what, works=True)

    def store(self, how, letters="ps"):
        self.world.store |= dict.fromkeys(letters, how == "up")

    def failover(self, *how):
        letters = [word for word in how if word in ("p", "s")]
        self.order(letters[0] if letters else "s", "failover", force="force" in how)

    def resync(self, letter="p"):
        self.order(letter, "resync")

    def modes(self):
        self.shown = True

    def order(self, letter, what, **args):
        answer = self.world.ask(letter, what, **args)
        if not answer.ok:
            self.world.story.append(f"refused: {answer.error}")

    def outcome(self):
        world, lines = self.world, []
        for one in world.story:
            if isinstance(one, str):
                lines.append(one)
                continue
            when, letter, fields, told = one
            lines.append(
                f"{when - self.began:5.2f} s  {letter}  {fields['before']} -> {fields['after']} on {fields['on']},"
                f" token {fields['fence']}" + (f", told {'+'.join(told)}" if told else "")
            )
        world.story.clear()
        world.told = 0
        hosts = world.hosts.values()
        shown = "   ".join(f"{one.letter} {one.state}{' writes' * one.could_write()}" for one in hosts)
        modes = {one.frame.side.modes.mode for one in hosts if one.processes["frame"].up}
        lines.append(shown + f"   mode {'/'.join(sorted(modes))}" * self.shown)
        return lines


def play(text):
    """See the module."""
    player, out, skipping, fresh = Player(), [], False, True
    for line in text.splitlines():
        if skipping and line:
            continue
        skipping = False
        if line == RULE:
            out += [RULE, *player.outcome()]
            skipping = fresh = True
            continue
        out.append(line)
        if line and not line.startswith("#"):
            command, *words = line.split()
            if player.world is not None and fresh:
                player.began = player.world.now
            fresh = False
            getattr(player, command)(*words)
    return "\n".join(out) + "\n"


def steps(text):
    """The changes of state in a text: (host, before, after, event)."""
    found = [_STEP.match(line) for line in text.splitlines()]
    return {(one[1], one[2], one[3], one[4]) for one in found if one}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(play(Path(name).read_text()))
