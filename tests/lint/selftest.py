#!/usr/bin/env python3
"""Every lint must be able to fail: each row seeds one violation into a small clean tree, and the
lint has to name it. The clean tree itself has to pass. Speaks TAP."""
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

CLEAN = {
    "supervisor/base/err.h": "#pragma once\n",
    "supervisor/base/err.c": '#include "err.h"\n\n#include <stdio.h>\n',
    "supervisor/base/loop.c": "#include <event2/event.h>\n",
    "supervisor/init/protocol.h": '#pragma once\n#include "supervisor/base/err.h"\n',
    "supervisor/guest/bundle.h": "#pragma once\n",
    "supervisor/guest/main.c":
        '#include "audit/audit.h"\n#include "bundle.h"\n#include "policy/policy.h"\n'
        '#include "proto/link.pb-c.h"\n#include "supervisor/init/protocol.h"\n',
    "supervisor/daemon/main.c": "int x;\n",
    "policy/policy.h": '#pragma once\n#include "supervisor/base/err.h"\n',
    "policy/lex.h": "#pragma once\n",
    "policy/lex.c": '#include "lex.h"\n',
    "policy/tables.c": "#include <seccomp.h>\n",
    "audit/audit.h": '#pragma once\n#include "policy/policy.h"\n',
    "audit/store.c": '#include <lmdb.h>\n\n#include "proto/record.pb-c.h"\n',
    "vmctl/vmctl.h": "#pragma once\n",
    "policy/presets/node.policy": 'group @npm "registry.npmjs.org:443"\n',
    "tests/unit/test_x.c": '#include "policy/lex.h"\n',
    "bootstrap": '#!/usr/bin/env bash\nset -eu\necho "$1"\n',
}

# (check, file, its new text, what the lint has to say)
SEEDED = (
    ("borders", "policy/lex.c", '#include "supervisor/guest/bundle.h"\n',
     "policy may not include supervisor/guest/bundle.h"),
    ("borders", "policy/lex.c", '#include "audit/audit.h"\n', "policy may not include audit/audit.h"),
    ("borders", "audit/store.c", '#include "policy/lex.h"\n', "audit may not include policy/lex.h"),
    ("borders", "audit/store.c", '#include "supervisor/daemon/store.h"\n',
     "audit may not include supervisor/daemon/store.h"),
    ("borders", "supervisor/daemon/main.c", '#include "supervisor/guest/bundle.h"\n',
     "supervisor/daemon may not include supervisor/guest/bundle.h"),
    ("borders", "supervisor/daemon/main.c", '#include "supervisor/init/protocol.h"\n',
     "supervisor/daemon may not include supervisor/init/protocol.h"),
    ("borders", "supervisor/guest/main.c", '#include "supervisor/daemon/client.h"\n',
     "supervisor/guest may not include supervisor/daemon/client.h"),
    ("borders", "supervisor/base/err.c", '#include "policy/policy.h"\n',
     "supervisor/base may not include policy/policy.h"),
    ("borders", "supervisor/base/err.c", '#include "proto/link.pb-c.h"\n',
     "supervisor/base does not speak a protocol"),
    ("borders", "supervisor/guest/main.c", '#include "../init/protocol.h"\n', "not by .."),
    ("borders", "supervisor/guest/main.c", '#include "policy/gone.h"\n',
     "supervisor/guest may not include policy/gone.h"),
    ("borders", "audit/audit.h", '#pragma once\n#include "proto/record.pb-c.h"\n',
     "generated types (proto/record.pb-c.h) in a public header"),
    ("borders", "supervisor/base/err.h", '#include "proto/link.pb-c.h"\n', "in a public header"),
    ("borders", "supervisor/daemon/main.c", "#include <event2/event.h>\n", "libevent"),
    ("borders", "supervisor/daemon/main.c", "  #  include <lmdb.h>\n", "LMDB"),
    ("borders", "vmctl/vmctl.h", "#include <libssh2_sftp.h>\n", "libssh2"),
    ("borders", "supervisor/guest/main.c", "#include <seccomp.h>\n", "libseccomp"),
    ("borders", "misc/stray.c", "int x;\n", "outside every module"),
    ("text", "bootstrap", "#!/bin/sh\ncurl http://deb.debian.org/x\n", "registry's host name"),
    ("text", "policy/lex.c", "/* see /work/main/x */\n", "a path of one machine"),
    ("text", "policy/lex.c", "/* TODO: later */\n", "left open: TODO"),
    ("text", "policy/lex.c", "/* a\u202eb */\n", "hides or reorders"),
    ("text", "policy/lex.c", "/* List:\n *\ta\tone\n *more of it\n */\n", "run together"),
    ("text", "policy/lex.c", "int x; \n", "white space at the end"),
    ("text", "policy/lex.c", "int x;\r\n", "carriage returns"),
    ("text", "policy/lex.c", "int x;", "no newline at the end"),
    ("text", "policy/lex.c", "void f(char *a)\n{\n\tstrcpy(a, \"x\");\n}\n", "strcpy() has no bound"),
    ("text", "policy/lex.c", "int f(char *a)\n{\n\treturn atoi(a);\n}\n", "atoi() has no bound"),
    ("text", "policy/lex.c", "void f(void)\n{\n\tsystem(\"ls\");\n}\n", "system() has no bound"),
    ("sizes", "policy/lex.c", "int f(void)\n{\n" + "\tg();\n" * 130 + "}\n", "f() has 133 lines"),
    ("sizes", "policy/lex.c", "int x;\n" * 900, "900 lines"),
    ("format", "policy/lex.c", "int f( void ) { return 1; }\n", "not formatted"),
    ("shellcheck", "bootstrap", '#!/usr/bin/env bash\nrm -rf $1\n', "Double quote"),
    ("shellcheck", "tests/x.sh", '#!/bin/sh\n[[ -n "$1" ]] && echo x\n', "[[ ]]"),
    ("tidy", "policy/lex.c", "int f(int a);\nint f(int a)\n{\n\treturn a == a;\n}\n",
     "both sides of operator are equivalent"),
)


def write(root, files):
    for name, content in files.items():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", newline="", encoding="utf-8") as f:
            f.write(content)


def seed(root, files):
    write(root, files)
    for name in (".clang-format", ".clang-tidy"):
        shutil.copy(os.path.join(ROOT, name), os.path.join(root, name))
    with open(os.path.join(root, "compile_commands.json"), "w") as f:
        f.write('[{"directory": "%s", "command": "cc -c policy/lex.c", "file": "policy/lex.c"}]\n'
                % root)


def lint(check, files):
    with tempfile.TemporaryDirectory() as root:
        seed(root, files)
        out = subprocess.run([sys.executable, os.path.join(HERE, "lint.py"), check, root, root],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return out.returncode, out.stdout


def report(number, good, status, what, out):
    if status == 77:
        print("ok %d - %s # SKIP %s" % (number, what, out.strip()))
        return True
    print("%sok %d - %s" % ("" if good else "not ", number, what))
    if not good:
        print("".join("# %s\n" % line for line in out.splitlines()), end="")
    return good


def main():
    rows = [(c, None, None, None) for c in
            ("borders", "text", "sizes", "format", "shellcheck", "tidy")] + list(SEEDED)
    print("1..%d" % len(rows))
    all_good = True
    for number, (check, name, content, says) in enumerate(rows, 1):
        files = dict(CLEAN)
        if name:
            files[name] = content
            what = "%s says: %s" % (check, says)
        else:
            what = "%s passes a clean tree" % check
        status, out = lint(check, files)
        good = status == 0 if name is None else status == 1 and says in out
        all_good &= report(number, good, status, what, out)
    sys.exit(0 if all_good else 1)


main()
