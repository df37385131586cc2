"""Writes a BPF object as a C array: embed.py OBJECT OUTPUT.c"""
import sys

data = open(sys.argv[1], "rb").read()
with open(sys.argv[2], "w") as out:
    out.write("extern const unsigned char kb_bpf_object[];\nextern const unsigned kb_bpf_object_len;\n")
    out.write("_Alignas(8) const unsigned char kb_bpf_object[] = {")
    out.write(",".join(str(b) for b in data))
    out.write("};\nconst unsigned kb_bpf_object_len = sizeof(kb_bpf_object);\n")
