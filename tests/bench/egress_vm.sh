#!/usr/bin/env bash
# What a session's way out costs in a machine: medians of ROUNDS with their ranges, taking turns. The
# same curl in the same machine asks the same server on the host,
#
#   direct      as the machine's root, through the machine's user network
#   session     in a session: relay, link and broker
#   tinyproxy   as the machine's root, through a common proxy on the host, if there is one
#
# Under TCG where there is no KVM: then it is the emulated processor that is measured.
here=$(cd "${0%/*}" && pwd)
[ "${KB_WORLD_INSIDE:-}" = yes ] || (. "$here/../vm/lib.sh") || exit 1
. "$here/../integration/net_world.sh"
enter_world "$@"
. "$here/../vm/lib.sh"
. "$here/../vm/host.sh"

rounds=${ROUNDS:-5} size=$((64 << 20)) requests=20
address=93.184.215.14 port=8000 proxy_port=8888
project=/home/dev/code/app

# A file of options for curl: first so many times one byte, each on a connection of its own, then all.
curl_options() {
	local count
	printf 'silent\nshow-error\nfail\nmax-time = 120\nwrite-out = "%%{size_download} %%{time_starttransfer} %%{time_total}\\n"\n'
	for count in $(seq "$requests" | sed 's/.*/1/') "$size"; do
		printf 'url = "http://%s:%d/%d"\noutput = /dev/null\n' $address $port "$count"
	done
}

# asked NAME COMMAND…: its times, one more round
asked() {
	local name=$1
	shift
	"$@" >"$WORK/times" 2>"$WORK/err" </dev/null || fail "$name: $(cat "$WORK/err")"
	awk '$1 == 1 { print $2 * 1000 }' "$WORK/times" | median >>"$WORK/$name.first"
	awk '$1 > 1 { print $1 * 8 / $3 / 1000000 }' "$WORK/times" >>"$WORK/$name.speed"
}

median() {
	sort -n | awk '{ v[NR] = $0 } END { print v[int((NR + 1) / 2)] }'
}

range() { # FILE: median (least to most)
	sort -n "$1" | awk '{ v[NR] = $1 } END { printf "%8.1f (%.1f to %.1f)", v[int((NR + 1) / 2)], v[1], v[NR] }'
}

row() { # NAME
	[ ! -s "$WORK/$1.speed" ] ||
		printf '%-10s %-32s Mbit/s   first byte %-30s ms\n' "$1" "$(range "$WORK/$1.speed")" "$(range "$WORK/$1.first")"
}

VM_LIMIT=300
python3 "$here/egress_server.py" $address $port >"$WORK/server.log" &
if command -v tinyproxy >/dev/null; then
	printf 'Port %d\nListen %s\nTimeout 60\nMaxClients 200\nLogLevel Critical\nDisableViaHeader Yes\n' \
		$proxy_port $address >"$WORK/tinyproxy.conf"
	tinyproxy -d -c "$WORK/tinyproxy.conf" >/dev/null 2>&1 &
fi
kb vm start box >/dev/null
curl_options >curl.conf
kb vm cp curl.conf box:/home/dev/curl.conf >/dev/null
guest box "install -d -o dev -g dev /home/dev/code $project && install -o dev -m 644 /home/dev/curl.conf $project/"
echo "policy net version 1 extends shell { net connect tcp \"$address:$port\" }" >net.policy
kb run --vm box --policy ./net.policy -- true
say "load average before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors, $rounds rounds"
for round in $(seq 0 "$rounds"); do
	asked direct guest box "curl -K $project/curl.conf"
	asked session kb run --quiet --vm box --policy ./net.policy -- curl -K curl.conf
	! command -v tinyproxy >/dev/null ||
		asked tinyproxy guest box "curl -x http://$address:$proxy_port -K $project/curl.conf"
	# The first warms up.
	[ "$round" -gt 0 ] || rm "$WORK"/*.first "$WORK"/*.speed
done
row direct
row session
row tinyproxy
kb vm delete box >/dev/null
