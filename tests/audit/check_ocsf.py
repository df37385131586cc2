"""Reads OCSF events (one a line) and holds each against the published class definitions: required
attributes, enumerations, types, and attributes the class does not have. The facts below are those of
OCSF 1.3.0 (github.com/ocsf/ocsf-schema): classes process_activity, file_activity, network_activity,
base_event with profile security_control, and the objects they use.

usage: check_ocsf.py < events.jsonl
"""

import json
import sys

TEXT, WHOLE, LIST = str, int, list
BASE_REQUIRED = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
BASE = BASE_REQUIRED | {
    "activity_name", "category_name", "class_name", "message", "status_id", "status_code", "unmapped", "device",
    "action_id", "disposition_id", "policy", "actor",
}
CLASSES = {
    0: (BASE, BASE_REQUIRED, {0, 99}, 0),
    1001: (BASE | {"file", "file_result"}, BASE_REQUIRED | {"actor", "device", "file"}, set(range(15)) | {99}, 1),
    1007: (BASE | {"process", "exit_code"}, BASE_REQUIRED | {"actor", "device", "process"}, set(range(6)) | {99}, 1),
    4001: (BASE | {"dst_endpoint", "traffic"}, BASE_REQUIRED, set(range(8)) | {99}, 4),
}
# Object: its attributes with their types, those required, those of which one must be there.
OBJECTS = {
    "metadata": ({"version": TEXT, "product": "product", "uid": TEXT, "correlation_uid": TEXT, "sequence": WHOLE,
                  "log_name": TEXT, "profiles": LIST}, {"version", "product"}, set()),
    "product": ({"name": TEXT, "vendor_name": TEXT, "version": TEXT}, {"vendor_name"}, set()),
    "device": ({"type_id": WHOLE, "hostname": TEXT}, {"type_id"}, set()),
    "actor": ({"process": "process", "user": "user", "app_name": TEXT}, set(), {"process", "user", "app_name"}),
    "user": ({"name": TEXT}, set(), {"name"}),
    "process": ({"pid": WHOLE, "name": TEXT, "cmd_line": TEXT, "file": "file"}, set(), {"pid"}),
    "file": ({"name": TEXT, "path": TEXT, "type_id": WHOLE}, {"name", "type_id"}, set()),
    "dst_endpoint": ({"ip": TEXT, "hostname": TEXT, "port": WHOLE, "name": TEXT}, set(), {"ip", "hostname", "name"}),
    "policy": ({"uid": TEXT, "name": TEXT, "desc": TEXT}, set(), {"uid", "name"}),
    "traffic": ({"bytes": WHOLE}, set(), set()),
}
ENUMS = {"severity_id": {0, 1, 2, 3, 4, 5, 6, 99}, "status_id": {0, 1, 2, 99}, "action_id": {0, 1, 2, 99},
         "disposition_id": set(range(28)) | {99}}


def check_object(kind, value):
    attributes, required, one_of = OBJECTS[kind]
    assert isinstance(value, dict), f"{kind} is no object"
    for name, v in value.items():
        want = attributes.get(name)
        assert want, f"{kind} has no attribute {name}"
        if isinstance(want, str):
            check_object(want, v)
        else:
            assert isinstance(v, want) and not isinstance(v, bool), f"{kind}.{name} is {v!r}"
    assert required <= value.keys(), f"{kind} lacks {required - value.keys()}"
    assert not one_of or one_of & value.keys(), f"{kind} has none of {one_of}"


def check(event):
    attributes, required, activities, category = CLASSES[event["class_uid"]]
    assert required <= event.keys(), f"lacks {required - event.keys()}"
    assert event.keys() <= attributes, f"has {event.keys() - attributes}"
    assert event["activity_id"] in activities, event["activity_id"]
    assert event["category_uid"] == category
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert 10**12 < event["time"] < 10**13, "time is not in milliseconds"
    for name, values in ENUMS.items():
        assert name not in event or event[name] in values, f"{name} is {event[name]}"
    for name, value in event.items():
        kind = "file" if name == "file_result" else name
        if kind in OBJECTS:
            check_object(kind, value)


def main():
    seen = set()
    for n, line in enumerate(sys.stdin, 1):
        event = json.loads(line)
        try:
            check(event)
        except (AssertionError, KeyError) as e:
            sys.exit(f"event {n}: {e}\n{line}")
        seen.add(event["class_uid"])
    if seen != set(CLASSES):
        sys.exit(f"only classes {sorted(seen)} were seen")
    print(f"{n} events of {len(seen)} classes hold")


main()
