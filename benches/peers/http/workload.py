"""The workload, the same for every server: 50 flags and 1,000 contexts.

flag-00 is targeted: country in COUNTRIES and plan == "pro", then 50/50 on the targeting key, else off. flag-01 .. flag-24 are booleans
that are on; flag-25 .. flag-49 are strings that answer "blue".
"""
import json
import random

COUNTRIES = ["DE", "FR", "NL", "SE", "US"]
OTHER = ["BR", "IN", "JP"]
TARGETED = "flag-00"
BOOLEANS = [f"flag-{i:02}" for i in range(1, 25)]
STRINGS = [f"flag-{i:02}" for i in range(25, 50)]


def contexts():
    rnd = random.Random(20261122)
    return [{
        "targetingKey": f"user-{i:04}-{rnd.randrange(16**8):08x}",
        "country": rnd.choice(COUNTRIES * 3 + OTHER),
        "plan": "pro" if rnd.random() < 0.8 else "free",
        "device": rnd.choice(["ios", "android", "web"]),
        "appVersion": f"4.{rnd.randrange(30)}.{rnd.randrange(10)}",
    } for i in range(1000)]


def matches(context):
    return context["country"] in COUNTRIES and context["plan"] == "pro"


def body_ofrep(context):
    return {"context": context}


def body_unleash(context):
    properties = {name: value for name, value in context.items() if name != "targetingKey"}
    return {"userId": context["targetingKey"], "properties": properties}


BODIES = {"ofrep": body_ofrep, "unleash": body_unleash}


def flags_flagd():
    targeting = {"if": [{"and": [{"in": [{"var": "country"}, COUNTRIES]}, {"==": [{"var": "plan"}, "pro"]}]},
                        {"fractional": [["on", 50], ["off", 50]]}, "off"]}
    switch = {"state": "ENABLED", "variants": {"on": True, "off": False}}
    flags = {TARGETED: {**switch, "defaultVariant": "off", "targeting": targeting}}
    flags |= {flag: {**switch, "defaultVariant": "on"} for flag in BOOLEANS}
    flags |= {flag: {"state": "ENABLED", "variants": {"blue": "blue", "green": "green"}, "defaultVariant": "blue"} for flag in STRINGS}
    return {"flags": flags}


def flags_goff():
    countries = ", ".join(f'"{country}"' for country in COUNTRIES)
    rule = {"name": "pro-in-countries", "query": f'(country in [{countries}]) and (plan eq "pro")', "percentage": {"on": 50, "off": 50}}
    switch = {"variations": {"on": True, "off": False}}
    flags = {TARGETED: {**switch, "targeting": [rule], "defaultRule": {"variation": "off"}}}
    flags |= {flag: {**switch, "defaultRule": {"variation": "on"}} for flag in BOOLEANS}
    flags |= {flag: {"variations": {"blue": "blue", "green": "green"}, "defaultRule": {"variation": "blue"}} for flag in STRINGS}
    return flags


def flags_unleash():
    def feature(name, strategy, variants=()):
        return {"name": name, "type": "release", "enabled": True, "project": "default", "stale": False,
                "impressionData": False, "strategies": [strategy], "variants": list(variants)}

    plain = {"name": "default", "parameters": {}, "constraints": []}
    variants = [{"name": value, "weight": weight, "weightType": "variable", "stickiness": "userId",
                 "payload": {"type": "string", "value": value}, "overrides": []} for value, weight in (("blue", 1000), ("green", 0))]
    rollout = {"name": "flexibleRollout", "parameters": {"rollout": "50", "stickiness": "userId", "groupId": TARGETED},
               "constraints": [{"contextName": "country", "operator": "IN", "values": COUNTRIES},
                               {"contextName": "plan", "operator": "IN", "values": ["pro"]}]}
    features = [feature(TARGETED, rollout)] + [feature(flag, plain) for flag in BOOLEANS]
    features += [feature(flag, plain, variants) for flag in STRINGS]
    return {"version": 2, "features": features, "segments": [], "query": {"environment": "development", "projects": ["*"]}}


def goff_config(exporter):
    """The relay proxy's settings; JSON is YAML. `exporter`: the file exporter, flushing every second."""
    config = {"server": {"host": "127.0.0.1", "port": 1031}, "hideBanner": True, "logLevel": "info", "pollingInterval": 60000,
              "retrievers": [{"kind": "file", "path": "goff.yaml"}]}
    if exporter:
        config["exporters"] = [{"kind": "file", "outputDir": "export", "format": "json", "flushInterval": 1000, "maxEventInMemory": 100000}]
    return config


def write(directory):
    """All files into `directory`."""
    files = {"flagd.json": flags_flagd(), "goff.yaml": flags_goff(), "unleash.json": flags_unleash(),
             "goff-plain.yaml": goff_config(False), "goff-export.yaml": goff_config(True)}
    for name, value in files.items():
        (directory / name).write_text(json.dumps(value) + "\n")
    for name, body in BODIES.items():
        lines = [json.dumps(body(context), separators=(",", ":")) for context in contexts()]
        (directory / f"bodies-{name}.txt").write_text("\n".join(lines) + "\n")
