"""The compose files say what the topology table says, take every default from one place, and give no privilege away."""

import json
import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml

from colo_proto.endpoint import parse_endpoint
from colo_proto.topology import Site, plan

COMPOSE = Path(__file__).resolve().parents[3] / "compose"
FILES = sorted(path.name for path in COMPOSE.glob("*.yaml"))
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)\}")
TUNED = {"mode", "compare-timeout", "max-queue-size", "pair", "failover", "on-loss", "resync", "heartbeat-missed"}
"""Options that are no wiring."""
ROLES = {
    ("primary.yaml", "faithful"): ("primary", [], ""),
    ("primary.yaml", "lean"): ("primary", ["lean-primary.yaml"], ""),
    ("secondary.yaml", "faithful"): ("secondary", [], ""),
    ("secondary.yaml", "lean"): ("secondary", ["lean-secondary.yaml"], ""),
    ("demo.yaml", "faithful"): ("both", [], "-s"),
    ("demo.yaml", "lean"): ("both", ["lean.yaml"], "-s"),
}


def defaults():
    """compose/.env."""
    lines = (COMPOSE / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def load(name, variables=None):
    """A file with its variables filled in."""
    given = defaults() | (variables or {})
    text = (COMPOSE / name).read_text(encoding="utf-8")
    return yaml.safe_load(VARIABLE.sub(lambda found: given[found[1]], text))


def merged(name, overlays):
    """Services of a file under overlays, without those that a profile switches off."""
    services = load(name)["services"]
    for overlay in overlays:
        for service, changes in load(overlay)["services"].items():
            environment = services.get(service, {}).get("environment", {}) | changes.get("environment", {})
            services[service] = services.get(service, {}) | changes | {"environment": environment}
    return {name: one for name, one in services.items() if "profiles" not in one}


def options(service):
    """Role and options of a service's command line, its environment included; links without their hosts."""
    role, *flags = service["command"]
    found = {}
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        found.setdefault(name, []).append(value)
    if role not in ("compare", "frame"):
        found["frame"] = [service["environment"]["COLO_FRAME"]]
    return role, {name: [wire(value) for value in values] for name, values in found.items() if name not in TUNED}


def wire(value):
    """An endpoint without what only the site knows: the host of a TCP link, netdev's socket."""
    if "://" not in value:
        return value
    endpoint = parse_endpoint(value)
    text = str(replace(endpoint, netdev=""))
    return re.sub(r"tcp://[^:]+:", "tcp://HOST:", text)


def of_host(services, side):
    """Those of one host of the demo: they share its volume."""
    volume = f"run-{side[0]}:/run/colo" if side else ""
    return {name: one for name, one in services.items() if not side or volume in one.get("volumes", [])}


def users(services, suffix=""):
    """Whom each service of a host runs as, as the table wants it: who holds a namespace by `@` and its name."""
    found = {}
    for service, about in services.items():
        role, *flags = about.get("command", [""])
        name = service.removesuffix(suffix) if role != "frame" else service
        held = next(("@" + flag.removeprefix("--name=") for flag in flags if role == "netns"), name)
        found[held] = int(about["user"].partition(":")[0])
    return found


def expected(side, wiring, whom):
    """By id, role and options of `plan`, in the same form."""
    site = Site("/run/colo", "0.0.0.0", "peer", {"lan": "lan", "guest": "guest"}, users=whom)
    out = {}
    for spec in plan(side, wiring, 1, site):
        flags = {k: [v] if isinstance(v, str) else list(v) for k, v in spec.options.items()}
        out[spec.id] = (spec.role, {name: [wire(value) for value in values] for name, values in flags.items()})
    return out


@pytest.mark.parametrize(("name", "wiring"), ROLES)
def test_the_wiring_is_that_of_the_table(name, wiring):
    side, overlays, suffix = ROLES[name, wiring]
    found = {}
    for service, about in merged(name, overlays).items():
        if "command" not in about or about["command"][0] == "netns":
            continue
        role, flags = options(about)
        if role == "netdev":
            flags["allow"] = about["environment"]["COLO_NETDEV_ALLOW"].split()
        identity = flags.pop("id")[0].replace("comp-{hostname}", "comp0")
        assert service.removesuffix(suffix) in (identity, role), "a service is called like its process, or its role"
        assert about["environment"]["COLO_NETDEV"] == "/run/colo/netdev.sock"
        found[identity] = (role, flags)
    wanted = {}
    for one in ("primary", "secondary") if side == "both" else (side,):
        whom = users(of_host(merged(name, overlays), one if side == "both" else ""))
        wanted |= expected(one, wiring, whom)
    for role, flags in wanted.values():
        flags.pop("id")
        flags.pop("workers", None)  # whoever says hello: their number is compose's business
        if role == "netdev":
            assert [tap.partition(",")[0] for tap in flags["tap"]] == ["lan", "guest"]
    for role, flags in found.values():
        if role == "netdev":
            flags["tap"] = [tap.partition(",")[0] for tap in flags["tap"]]
    for _, flags in (*found.values(), *wanted.values()):
        flags["allow"] = sorted(flags.get("allow", []))
    assert found == wanted


def safe(service):
    """Environment without what differs: the demo's hosts share a network that leads nowhere, and need no keys."""
    environment, without = service.get("environment", {}), ("COLO_INSECURE", "COLO_PAIR_SECRET")
    return {k: v for k, v in environment.items() if not k.startswith("COLO_CURVE_") and k not in without}


def test_keys_are_with_those_who_need_them():
    for name, overlays in (("primary.yaml", []), ("secondary.yaml", []), ("secondary.yaml", ["lean-secondary.yaml"])):
        for service, about in merged(name, overlays).items():
            across = any("tcp://" in flag for flag in about.get("command", []))
            wanted = ["curve_secret", "curve_peers"] if across else []
            wanted += ["pair_secret"] if service == "frame" else []
            assert about.get("secrets", []) == wanted, service
            assert ("COLO_PAIR_SECRET" in about.get("environment", {})) == (service == "frame")
            if across:
                assert about["environment"]["COLO_INSECURE"] == "off"
    demo = load("demo.yaml")
    assert demo["networks"]["replication"]["internal"] is True, "the demo does without keys"


def test_the_demo_is_both_hosts_in_one_file():
    demo = load("demo.yaml")["services"]
    for name, suffix in (("primary.yaml", ""), ("secondary.yaml", "-s")):
        for service, about in load(name)["services"].items():
            there = demo.get(service + suffix) or demo[service]
            for key in ("command", "user", "cap_add", "cap_drop", "read_only", "sysctls", "healthcheck"):
                assert there.get(key) == about.get(key), f"{name}: {service}.{key}"
            assert safe(there) == safe(about), f"{name}: {service}.environment"
            # In one project nothing is published: the hosts meet on the replication network.
            assert "ports" not in there


def test_the_lean_overlays_of_the_hosts_and_of_the_demo_agree():
    secondary = load("lean-secondary.yaml")["services"]
    secondary["netdev-s"] = secondary.pop("netdev")
    both = load("lean-primary.yaml")["services"] | secondary
    for published in ("ports", "secrets", "environment"):
        both["rew0"].pop(published)
    assert load("lean.yaml")["services"] == both


@pytest.mark.parametrize("name", ["primary.yaml", "secondary.yaml"])
def test_the_third_vote_is_that_of_the_table(name):
    overlay = load("vote.yaml", {"COLO_STORE": "etcd://a:1", "COLO_PAIR": "x"})["services"]
    host = load(name)
    side = name.removesuffix(".yaml")
    site = Site("/run/colo", "0.0.0.0", "peer", {"lan": "lan", "guest": "guest"}, vote="etcd://a:1")
    planned = {spec.role: spec.options for spec in plan(side, "faithful", 1, site)}
    role, *flags = overlay["vote"]["command"]
    given = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    assert role == "vote"
    assert given["store"] == planned["vote"]["store"]
    assert overlay["vote"]["environment"]["COLO_FRAME"] == planned["vote"]["frame"]
    assert overlay["frame"]["environment"] == {"COLO_FRAME_VOTE": planned["frame"]["vote"]}
    assert given["pair"] == next(one for one in host["services"]["frame"]["command"] if one.startswith("--pair="))[
        7:
    ].replace(defaults()["COLO_PAIR"], "x")
    users = {about["user"] for about in host["services"].values()}
    assert overlay["vote"]["user"] not in users
    for key in ("read_only", "cap_drop", "security_opt", "restart", "healthcheck", "stop_grace_period", "volumes"):
        assert overlay["vote"][key] == host["services"]["rew0" if side == "secondary" else "redire1"][key], key


def test_every_default_is_in_one_place_and_used():
    used = set()
    for name in FILES:
        text = "\n".join(
            line.partition(" #")[0] for line in (COMPOSE / name).read_text().splitlines() if not line.startswith("#")
        )
        assert not re.search(r"\$\{\w+[:?-]", text), f"{name} has a default of its own"
        used |= set(VARIABLE.findall(text))
    assert used == set(defaults())


@pytest.mark.parametrize("name", ["primary.yaml", "secondary.yaml", "demo.yaml"])
def test_least_privilege(name):
    file = load(name)
    capable = set()
    for service, about in file["services"].items():
        assert about["cap_drop"] == ["ALL"], service
        assert about["read_only"] is True, service
        assert about["security_opt"] == ["no-new-privileges:true"], service
        assert about["restart"] == "always", service
        assert "healthcheck" in about, service
        assert about.get("network_mode") != "host", service
        assert "privileged" not in about, service
        if "cap_add" in about or "devices" in about:
            capable.add(service.removesuffix("-s"))
            assert about["cap_add"] == ["NET_ADMIN"]
            assert about["user"] == "0:65532"
    assert capable == {"netdev"}
    for volume, about in file["volumes"].items():
        assert about["driver_opts"]["type"] == "tmpfs", volume
        # For the group, and what one user has put there no other removes.
        assert "mode=1770" in about["driver_opts"]["o"]


@pytest.mark.parametrize("name", ["primary.yaml", "secondary.yaml", "demo.yaml"])
def test_each_service_has_a_user_of_its_own(name):
    """Else netdev cannot tell them apart, and one may open what belongs to another."""
    seen = {}
    for service, about in load(name)["services"].items():
        user, _, group = about["user"].partition(":")
        assert seen.setdefault(user, service) == service or user == "0", f"{service} and {seen[user]} are one user"
        # The sockets' group is with those who mount them.
        assert (group == "65532") == bool(about.get("volumes")), service
        # Numbers that neither Debian nor systemd gives to anybody, and that a user namespace of 65,536 has, too.
        assert user == "0" or 60578 <= int(user) <= 61183, service


@pytest.mark.parametrize("name", ["primary.yaml", "secondary.yaml", "demo.yaml"])
def test_a_filter_is_on_no_network_that_it_does_not_need(name):
    for service, about in load(name)["services"].items():
        if "command" not in about or about["command"][0] == "netns":
            continue
        across = any("tcp://" in flag for flag in about["command"])
        assert ("replication" in about.get("networks", [])) == across, service


@pytest.mark.parametrize("name", ["primary.yaml", "secondary.yaml", "demo.yaml"])
def test_a_stop_leaves_time_to_drain(name):
    for service, about in load(name)["services"].items():
        if "stop_grace_period" in about:
            grace = float(about["stop_grace_period"].removesuffix("s"))
            assert grace > float(about["environment"].get("COLO_DRAIN_TIMEOUT", 0)) + 1, service
        else:
            assert about["stop_signal"] == "SIGKILL", f"{service}: nothing to drain"


@pytest.mark.parametrize("name", FILES)
def test_each_file_begins_with_how_to_use_it(name):
    head = (COMPOSE / name).read_text().split("\n\n")[0]
    assert head.startswith("# ")
    assert f"docker compose -f compose/{name}" in (COMPOSE / name).read_text() or f"-f compose/{name}" in head


def metrics_of_roles():
    """Names of metrics that the processes can have, from the counters that their code counts."""
    services = COMPOSE.parent / "services"
    words = set()
    for path in services.rglob("*.py"):
        words |= set(re.findall(r'"([a-z_]+)(?:\.[a-z_.{}]*)?"', path.read_text(encoding="utf-8")))
        words |= set(re.findall(r"\b([a-z_]+)=", path.read_text(encoding="utf-8")))
    return words


def test_alerts_and_dashboard_name_metrics_that_exist():
    folder = COMPOSE / "observability"
    alerts = yaml.safe_load((folder / "alerts.yml").read_text())
    expressions = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    dashboard = json.loads((folder / "dashboard.json").read_text())
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    known = metrics_of_roles()
    for expression in expressions:
        for name in re.findall(r"\bcolo_(?:compare|frame|mirror|redirector|rewriter)_(\w+)", expression):
            bare = name.removesuffix("_total").removeprefix("link_")
            assert bare in known, f"{name} in {expression}"
    for rule in alerts["groups"][0]["rules"]:
        assert rule["annotations"]["summary"]


def test_every_process_that_serves_metrics_is_scraped():
    config = yaml.safe_load((COMPOSE / "observability" / "prometheus.yml").read_text())
    scraped = set(config["scrape_configs"][0]["dns_sd_configs"][0]["names"])
    serving = {name for name, about in load("demo.yaml")["services"].items() if "metrics" in about.get("networks", [])}
    serving |= {name for name, about in load("vote.yaml")["services"].items() if "metrics" in about.get("networks", [])}
    assert scraped == serving


def test_hosts_meet_on_the_replication_network_alone():
    """The demo's hosts share `metrics` as well: what a link is called must be known on no other network."""
    links = {"COLO_MIRROR0": "m0", "COLO_COMPARE1": "f2", "COLO_PEER": "frame"}
    for name, overlays in (("demo.yaml", []), ("demo.yaml", ["lean.yaml"])):
        services = merged(name, overlays)
        for variable, service in links.items():
            alias = defaults()[variable].partition(":")[0]
            assert alias not in services
            bound = "rew0" if service == "f2" and overlays else service
            assert services[bound]["networks"] == {"metrics": {}, "replication": {"aliases": [alias]}}


@pytest.mark.parametrize("name", ["demo.yaml", "primary.yaml", "secondary.yaml"])
def test_docker_gives_no_container_the_guests_addresses(name):
    """Containers on the LAN get theirs from docker, which begins at the bottom of a subnet unless it has a range."""
    given = defaults()
    guests = [ip_address(given["COLO_GUEST"]), ip_address(given["COLO_GUEST6"])]
    pools = load(name)["networks"]["lan"]["ipam"]["config"]
    assert {ip_network(pool["subnet"]).version for pool in pools} == {4, 6}
    for pool in pools:
        assert ip_network(pool["ip_range"]).subnet_of(ip_network(pool["subnet"]))
        assert not any(guest in ip_network(pool["ip_range"]) for guest in guests)
        assert any(guest in ip_network(pool["subnet"]) for guest in guests)


@pytest.mark.parametrize("name", ["primary.yaml", "secondary.yaml", "demo.yaml"])
def test_one_image_is_built_once(name):
    """By the first service, which waits for no other: docker-compose 1.29 goes by that order."""
    services = load(name)["services"]
    built = [service for service, about in services.items() if "build" in about]
    assert built == [next(iter(services))]
    assert "depends_on" not in services[built[0]]
    assert not any(built[0] in about.get("depends_on", []) for about in services.values())
    assert {about["image"] for about in services.values()} == {defaults()["COLO_IMAGE"]}


def test_the_guest_in_the_documents_can_run_as_it_is_printed():
    """It has what it writes to, and a health check that its image has."""
    text = (COMPOSE.parent / "docs" / "guests.md").read_text()
    printed = re.search(r"# nginx.yaml[^\n]*\n(services:\n.*?)\n\n", text, re.DOTALL)[1]
    ((service, about),) = yaml.safe_load(printed)["services"].items()
    for name in ("primary.yaml", "secondary.yaml"):
        guest = load(name)["services"][service] | about
        assert guest["read_only"]
        assert {"/run", "/var/cache/nginx"} <= set(guest["tmpfs"])
        assert "python3" not in guest["healthcheck"]["test"]
