"""Module borders: who may include what.

A folder's own headers are its own business. Across folders only the public headers travel, and only
downwards: base knows nobody, policy knows base, audit knows policy and base, and so on. A library
that is one module's affair is included by that module alone.
"""
import posixpath
import re

# Longest prefix wins.
MODULES = (
    "supervisor/base", "supervisor/daemon", "supervisor/link", "supervisor/guest",
    "supervisor/broker", "supervisor/init", "supervisor/cli", "policy", "audit", "vmctl", "proto", "tests",
)

# The public headers, and who may include them besides their own module and tests.
PUBLIC = {
    "policy/policy.h": ("audit", "vmctl", "supervisor/daemon", "supervisor/link",
                        "supervisor/guest", "supervisor/broker", "supervisor/cli"),
    "audit/audit.h": ("supervisor/daemon", "supervisor/link", "supervisor/guest",
                      "supervisor/broker", "supervisor/cli"),
    "vmctl/vmctl.h": ("supervisor/daemon", "supervisor/link", "supervisor/cli"),
}

# Single headers that two siblings share by design.
SHARED = {
    # The client side of the control socket.
    "supervisor/daemon/client.h": ("supervisor/cli",),
    # The fixed structs that kbsup-init and its parent exchange.
    "supervisor/init/protocol.h": ("supervisor/guest",),
    # The roles that kbsupd re-executes itself into, and what they are handed.
    "supervisor/link/link.h": ("supervisor/daemon",),
    "supervisor/broker/broker.h": ("supervisor/daemon",),
    # The ssh client: shells and connections of the command line.
    "supervisor/link/ssh.h": ("supervisor/cli",),
    "supervisor/link/ssh_keys.h": ("supervisor/cli",),
    # The control socket's client side.
    "supervisor/daemon/client.h": ("supervisor/cli",),
}

# Generated messages: everyone who speaks a protocol, but never through a public header.
PROTO_USERS = ("proto", "policy", "audit", "vmctl", "supervisor/daemon", "supervisor/link",
               "supervisor/guest", "supervisor/broker", "supervisor/cli")

# <header prefix>: (what it is, regular expression of the files that may include it)
LIBRARIES = {
    "event2/": ("libevent", r"supervisor/base/(loop|frame)\.c$"),
    "event.h": ("libevent", r"$^"),
    "lmdb.h": ("LMDB", r"audit/(store|reader)[^/]*(/[^/]+)?\.[ch]$"),
    "libssh2": ("libssh2", r"supervisor/link/ssh[^/]*\.[ch]$"),
    "seccomp.h": ("libseccomp", r"policy/"),
    "bpf/": ("libbpf", r"audit/collect/bpf"),
}

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')


def module_of(path):
    for module in MODULES:
        if path.startswith(module + "/"):
            return module
    return None


def is_public(path):
    return path in PUBLIC or (path.startswith("supervisor/base/") and path.endswith(".h"))


def resolve(tree, source, name):
    """The tree's path of a quoted include: beside the source first, as the compiler looks."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
    if beside in tree.files:
        return beside
    return name


def check_quoted(tree, source, line, name):
    if name.startswith("."):
        tree.finding(source, line, 'include "%s" from the top folder, not by ..' % name)
        return
    own, target = module_of(source), resolve(tree, source, name)
    other = module_of(target)
    if other == "proto":
        if is_public(source):
            tree.finding(source, line, "generated types (%s) in a public header" % target)
        elif own not in PROTO_USERS + ("proto",):
            tree.finding(source, line, "%s does not speak a protocol: %s" % (own, target))
    elif other is None:
        if target not in tree.files and "/" in name:
            tree.finding(source, line, '"%s" is not in the tree' % name)
    elif other == own or other == "supervisor/base":
        pass
    elif own not in PUBLIC.get(target, ()) + SHARED.get(target, ()):
        tree.finding(source, line, "%s may not include %s" % (own, target))


def check_library(tree, source, line, name):
    for prefix, (library, allowed) in LIBRARIES.items():
        if name.startswith(prefix) and not re.match(allowed, source):
            tree.finding(source, line, "%s (<%s>) is not this file's affair" % (library, name))


def run(tree):
    for source in tree.c_files():
        own = module_of(source)
        if own is None:
            tree.finding(source, 1, "a source outside every module")
        if own in (None, "tests"):
            continue
        for line, text in tree.lines(source):
            match = INCLUDE.match(text)
            if match and match.group(1) == '"':
                check_quoted(tree, source, line, match.group(2))
            if match:
                check_library(tree, source, line, match.group(2))
