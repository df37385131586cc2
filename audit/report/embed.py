"""page.html as C: its two halves around the place of the data. usage: embed.py PAGE OUT"""
import sys

PLACE = b"@KBSUP_DATA@"
page = open(sys.argv[1], "rb").read()
before, after = page.split(PLACE)
with open(sys.argv[2], "w") as out:
    out.write('#include "audit/report/page.h"\n')
    for name, part in (("before", before), ("after", after)):
        rows = (part[i:i + 20] for i in range(0, len(part), 20))
        out.write("const unsigned char kb_page_%s[] = {\n" % name)
        out.write("\n".join("\t" + ", ".join("0x%02x" % b for b in row) + "," for row in rows))
        out.write("\n};\nconst unsigned long kb_page_%s_len = sizeof(kb_page_%s);\n" % (name, name))
