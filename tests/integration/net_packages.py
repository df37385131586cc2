"""An index for pip and a registry for npm, with one package each. Usage: net_packages.py DIRECTORY"""
import base64
import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile

top = sys.argv[1]


def write(path, data):
    path = os.path.join(top, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def wheel():
    name = "kbtoy-1.0-py3-none-any.whl"
    files = {"kbtoy.py": "word = 'it works'\n",
             "kbtoy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: kbtoy\nVersion: 1.0\n",
             "kbtoy-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join("%s,,\n" % path for path in files) + "kbtoy-1.0.dist-info/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr("kbtoy-1.0.dist-info/RECORD", record)
    write("files/" + name, out.getvalue())
    write("simple/kbtoy/index.html", '<a href="/packages/files/%s">%s</a>' % (name, name))
    write("simple/index.html", '<a href="kbtoy/">kbtoy</a>')


def npm():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in (("package/package.json", '{"name": "kbtoy", "version": "1.0.0"}'),
                           ("package/index.js", "module.exports = 'it works'\n")):
            info = tarfile.TarInfo(path)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    data = out.getvalue()
    digest = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    write("files/kbtoy-1.0.0.tgz", data)
    write("npm/kbtoy", json.dumps({
        "name": "kbtoy", "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "kbtoy", "version": "1.0.0", "dist": {
            "tarball": "http://packages.test/packages/files/kbtoy-1.0.0.tgz", "integrity": digest}}}}))


wheel()
npm()
