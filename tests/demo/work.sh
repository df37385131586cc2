#!/bin/sh
# Runs inside the session: an honest build, then two things that are none of its business.
echo '--- build and test'
make check || exit 1

echo '--- read a letter in the home directory'
cat ~/letter.txt

echo '--- reach the network'
bash -c 'exec 3<>/dev/tcp/192.0.2.1/443 && echo connected'

echo '--- done'
